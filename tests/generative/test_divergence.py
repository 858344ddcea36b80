"""Divergences against independent quadrature, closed forms and each other."""

import jax.numpy as jnp
import numpy as np
import pytest
from jax.scipy.stats import norm as jnorm
from scipy import integrate, optimize, stats
from scipy.special import logit
from scipy.stats import norm

import nlmefit as nm
from nlmefit.generative.divergence import (
    Atoms,
    Draws,
    Interval,
    cross_entropy,
    entropy,
    fisher,
    gan_value,
    jensen_shannon,
    kl,
    optimal_discriminator,
    reverse_kl,
)
from nlmefit.generative.transport.optimal_transport import wasserstein

P, Q = norm(0.0, 1.0), norm(1.0, 0.8)
LINE = Interval(-12.0, 12.0)
JS = 0.139495501


def log_masses(p):
    """The log mass of each atom 0, 1, ..., as a function of the atoms."""
    with np.errstate(divide="ignore"):
        logs = np.log(np.asarray(p, float))
    return lambda k: logs[np.asarray(k, int)]


def log_normal(mean, variance):
    return lambda x: jnorm.logpdf(x, mean, np.sqrt(variance))


# ---- A1: cross-entropy and maximum likelihood --------------------------------------------------------------------------


def test_a1_cross_entropy_of_discrete_laws():
    """A1: H(p, q) - H(p) - KL(p || q) = 0 to 1e-12; each of them SciPy's."""
    p, q = np.array([0.5, 0.0, 0.3, 0.2]), np.array([0.25, 0.25, 0.1, 0.4])
    over = Atoms(np.arange(4))
    both, own, divergence = (
        cross_entropy(log_masses(p), log_masses(q), over).value,
        entropy(log_masses(p), over).value,
        kl(log_masses(p), log_masses(q), over).value,
    )
    assert both - own - divergence == pytest.approx(0.0, abs=1e-12)
    assert own == pytest.approx(stats.entropy(p), abs=1e-14)
    assert divergence == pytest.approx(stats.entropy(p, q), abs=1e-14)
    assert reverse_kl(log_masses(q), log_masses(p), over).value == pytest.approx(divergence, abs=1e-14)
    assert kl(log_masses(q), log_masses(p), over).value == np.inf


def test_a1_densities():
    """A1: the same identity by quadrature, and KL and H of normals in closed form."""
    divergence = kl(P.logpdf, Q.logpdf, LINE)
    assert divergence.mc_se == 0.0
    assert divergence.value == pytest.approx(np.log(0.8) + (1 + 1) / (2 * 0.64) - 0.5, abs=1e-12)
    assert entropy(Q.logpdf, LINE).value == pytest.approx(Q.entropy(), abs=1e-12)
    both = cross_entropy(P.logpdf, Q.logpdf, LINE).value
    assert both == pytest.approx(P.entropy() + divergence.value, abs=1e-12)


def best_normal(objective):
    found = optimize.minimize(
        lambda v: objective(norm(v[0], np.exp(v[1])).logpdf), [1.0, 0.0], method="BFGS", options={"gtol": 1e-9}
    )
    return found.x[0], np.exp(found.x[1])


@pytest.mark.filterwarnings("ignore:.*precision loss")
def test_a1_maximum_likelihood_minimizes_kl():
    """A1: of a skew law, the normal nearest in KL and that of largest likelihood of draws both match moments."""
    gamma = stats.gamma(3.0, scale=0.5)
    nearest = best_normal(lambda log_q: kl(gamma.logpdf, log_q, Interval(1e-12, 40.0)).value)
    assert nearest == pytest.approx((gamma.mean(), gamma.std()), abs=1e-6)
    x = gamma.rvs(500, random_state=3)
    likeliest = best_normal(lambda log_q: cross_entropy(gamma.logpdf, log_q, Draws(p=x)).value)
    assert likeliest == pytest.approx((x.mean(), x.std()), abs=1e-6)


# ---- A2: Jensen-Shannon ------------------------------------------------------------------------------------------------


def test_a2_jensen_shannon():
    """A2: JS(N(0, 1), N(1, 0.8)) = 0.139495501, symmetric, and 0 for equal laws."""
    assert jensen_shannon(P.logpdf, Q.logpdf, LINE).value == pytest.approx(JS, abs=1e-9)
    assert jensen_shannon(Q.logpdf, P.logpdf, LINE).value == pytest.approx(
        jensen_shannon(P.logpdf, Q.logpdf, LINE).value, abs=1e-15
    )
    assert jensen_shannon(P.logpdf, P.logpdf, LINE).value == 0.0


def test_a2_disjoint_supports():
    """A2: log 2 to 1e-9 for uniform laws on [0, 1] and [2, 3]; between 0 and log 2 for any."""
    over = Interval(0.0, 3.0, breaks=(1.0, 2.0))
    value = jensen_shannon(stats.uniform(0, 1).logpdf, stats.uniform(2, 1).logpdf, over).value
    assert value == pytest.approx(np.log(2), abs=1e-9)
    rng = np.random.default_rng(0)
    for p, q in rng.dirichlet(np.full(6, 0.3), size=(50, 2)):
        assert 0.0 < jensen_shannon(log_masses(p), log_masses(q), Atoms(np.arange(6))).value < np.log(2)


# ---- A4: Fisher --------------------------------------------------------------------------------------------------------


def test_a4_fisher():
    """A4: D_F(N(0, 1) || N(0.4, 1.7)) = 0.224913495, SciPy's quadrature of the scores' squared difference.

    Their sum, as sometimes printed (X2), is 4 at p = q; the divergence is 0 there, and only there."""
    p, q = log_normal(0.0, 1.0), log_normal(0.4, 1.7)
    value = fisher(p, q, LINE).value
    assert value == pytest.approx(0.224913495, abs=1e-9)
    assert value == pytest.approx(integrate.quad(lambda x: norm.pdf(x) * (-x + (x - 0.4) / 1.7) ** 2, -20, 20)[0], abs=1e-10)
    assert fisher(p, p, LINE).value == 0.0
    for mean, variance in [(1e-3, 1.0), (0.0, 1.001), (0.0, 0.999)]:
        assert fisher(p, log_normal(mean, variance), LINE).value > 1e-7


def test_a4_fisher_needs_no_normalization():
    """A4: an energy's constant cancels, and rows are points: in two dimensions the closed form within 4 standard errors."""
    x = np.random.default_rng(1).normal(size=(4000, 2))
    shift, precision = np.array([0.5, -0.2]), np.array([1.0, 0.25])

    def log_p(x):
        return -0.5 * jnp.sum(x**2, axis=1) + 7.0

    def log_q(x):
        return -0.5 * jnp.sum(precision * (x - shift) ** 2, axis=1) - 3.0

    exact = np.sum((precision - 1) ** 2 + (precision * shift) ** 2)
    found = fisher(log_p, log_q, Draws(p=x))
    assert 0 < found.mc_se < 0.05
    assert found.value == pytest.approx(exact, abs=4 * found.mc_se)


# ---- Monte Carlo -------------------------------------------------------------------------------------------------------


def test_draws_know_their_error():
    """Each divergence by draws: within 4 standard errors of quadrature, and over 200 repetitions those are the errors' spread."""
    rng = np.random.default_rng(2)
    draws = [Draws(p=rng.normal(size=400), q=1 + 0.8 * rng.normal(size=400)) for _ in range(200)]
    for divergence in (kl, reverse_kl, jensen_shannon, cross_entropy, gan_value):
        exact = divergence(P.logpdf, Q.logpdf, LINE).value
        found = np.array([divergence(P.logpdf, Q.logpdf, over) for over in draws])
        assert abs(found[:, 0].mean() - exact) < 4 * found[:, 0].std() / np.sqrt(200), divergence.__name__
        assert found[:, 0].std() == pytest.approx(found[:, 1].mean(), rel=0.25), divergence.__name__


def test_infinite_where_q_is_zero():
    found = kl(stats.uniform(0, 2).logpdf, stats.uniform(0, 1).logpdf, Draws(p=np.linspace(0.0, 2.0, 50)))
    assert found == (np.inf, 0.0)


# ---- F: the discriminator ----------------------------------------------------------------------------------------------


def test_f1_value_is_the_bernoulli_log_likelihood():
    """F1: of the labels real and generated, given the discriminator's probabilities."""
    rng = np.random.default_rng(3)
    x, y = rng.normal(size=60), rng.normal(size=60) + 1

    def scores(x):
        return 0.3 - 0.8 * np.asarray(x)

    chance = 1 / (1 + np.exp(-scores(np.concatenate([x, y]))))
    log_likelihood = stats.bernoulli(chance).logpmf(np.repeat([1, 0], 60)).sum() / 60
    assert gan_value(None, None, Draws(p=x, q=y), scores).value == pytest.approx(log_likelihood, abs=1e-12)


def test_f2_optimal_discriminator_is_a_maximum():
    """F2: at D* = p / (p + q) the value is stationary in every direction h, and its second derivative is
    -int (p / D^2 + q / (1 - D)^2) h^2 dx < 0."""
    D = optimal_discriminator(P.logpdf, Q.logpdf)
    x = np.linspace(-3.0, 4.0, 15)
    np.testing.assert_allclose(D(x), P.pdf(x) / (P.pdf(x) + Q.pdf(x)), rtol=1e-13)

    def value(h, direction):
        return gan_value(P.logpdf, Q.logpdf, LINE, lambda x: logit(np.clip(D(x) + h * direction(x), 1e-300, 1 - 1e-16))).value

    bumps = [lambda x, c=c: norm.pdf(x, c, 0.5) * D(x) * (1 - D(x)) for c in (-1.0, 0.0, 1.5)]
    for direction in bumps:
        step = 1e-3
        below, at, above = (value(h, direction) for h in (-step, 0.0, step))
        second = -integrate.quad(
            lambda x: (P.pdf(x) / D(x) ** 2 + Q.pdf(x) / (1 - D(x)) ** 2) * direction(x) ** 2, -8, 8, points=[0.0]
        )[0]
        assert (above - below) / (2 * step) == pytest.approx(0.0, abs=1e-5)
        assert (above - 2 * at + below) / step**2 == pytest.approx(second, rel=1e-3)
        assert second < 0 and at > max(above, below)


def test_f3_value_at_the_optimum():
    """F3: V(D*) = 2 JS - 2 log 2 = -1.107303359, and any other discriminator bounds JS from below."""
    best = gan_value(P.logpdf, Q.logpdf, LINE).value
    assert best == pytest.approx(-1.107303359, abs=1e-9)
    assert best == pytest.approx(2 * jensen_shannon(P.logpdf, Q.logpdf, LINE).value - 2 * np.log(2), abs=1e-14)
    for slope in (-2.0, -1.0, 0.0, 1.0):
        other = gan_value(P.logpdf, Q.logpdf, LINE, lambda x, slope=slope: slope * (x - 0.5)).value
        assert other / 2 + np.log(2) < JS


def test_f5_jensen_shannon_is_blind_to_distance():
    """F5: for point masses at 0 and theta JS = log 2 without slope, while W_1 = |theta| with slope 1."""

    def both(theta):
        over = Atoms([0.0, theta])
        at_zero, at_theta = (lambda x: np.where(x == 0, 0.0, -np.inf)), (lambda x: np.where(x == theta, 0.0, -np.inf))
        return np.array([jensen_shannon(at_zero, at_theta, over).value, wasserstein([0.0], [theta], order=1)])

    for theta in (0.01, 0.5, 3.0):
        np.testing.assert_allclose(both(theta), [np.log(2), theta], atol=1e-15)
        np.testing.assert_allclose((both(theta + 1e-4) - both(theta - 1e-4)) / 2e-4, [0.0, 1.0], atol=1e-10)


# ---- errors ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "error", "match"),
    [
        (lambda: kl(P.logpdf, Q.logpdf, Interval(-1, 1)), nm.DataError, r"p has mass 0.68.* on \[-1, 1\], not 1. Widen"),
        (lambda: kl(lambda x: P.logpdf(x) + 1, Q.logpdf, LINE), nm.DataError, "p has mass 2.718282"),
        (
            lambda: kl(P.logpdf, lambda x: Q.logpdf(x) + 1, LINE),
            nm.DataError,
            "q has mass 2.718282 .* more than 1: normalize log_q",
        ),
        (lambda: entropy(log_masses([0.5, 0.4]), Atoms([0, 1])), nm.DataError, "mass 0.9 over 2 atoms, not 1. Add the points"),
        (lambda: kl(log_masses([0.5, 0.5]), log_masses([1, 1]), Atoms([0, 1])), nm.DataError, "q has mass 2 over 2 atoms, more"),
        (lambda: kl(P.logpdf, Q.logpdf, Draws(q=[0.0, 1.0])), nm.MethodError, r"needs draws of p: Draws\(p=...\)"),
        (lambda: jensen_shannon(P.logpdf, Q.logpdf, Draws(p=[0.0, 1.0])), nm.MethodError, "needs draws of q"),
        (lambda: kl(stats.uniform.logpdf, P.logpdf, Draws(p=[0.5, 2.0])), nm.DataError, "-inf at 1 of the 2 draws of p"),
        (
            lambda: kl(lambda x: np.nan * x, P.logpdf, Draws(p=[0.5, 2.0])),
            nm.DataError,
            "log_p is NaN or infinite at 2 of 2 points",
        ),
        (lambda: kl(P.logpdf, Q.logpdf, Draws(p=np.ones((3, 2)))), nm.DataError, r"shape \(3, 2\), not \(3,\): it must be"),
        (lambda: Draws(p=[1.0]), nm.DataError, "the sample of p must have 2 rows or more, got 1"),
        (lambda: Draws(p=[1.0, np.nan, np.inf]), nm.DataError, "2 values that are not finite"),
        (lambda: Draws(p=["a", "b"]), nm.DataError, "array of numbers, got list"),
        (lambda: Atoms(np.zeros((2, 2, 2))), nm.DataError, r"shape \(N,\) or \(N, D\).*got \(2, 2, 2\)"),
        (lambda: Interval(1.0, 0.0), nm.MethodError, "lower < breaks < upper, in order; got 1, 0"),
        (lambda: Interval(-np.inf, 0.0), nm.MethodError, "finite lower"),
        (lambda: Interval(0.0, 1.0, panels=0), nm.MethodError, "panels must be a whole number from 1 up, got 0"),
        (lambda: fisher(P.logpdf, Q.logpdf, LINE), nm.MethodError, "JAX cannot differentiate log_p: write it with jax.numpy"),
        (lambda: fisher(P.logpdf, Q.logpdf, Atoms([0.0])), nm.MethodError, "have no gradient"),
        (lambda: gan_value(None, Q.logpdf, LINE), nm.MethodError, "the optimal discriminator needs log_p and log_q"),
        (lambda: gan_value(None, None, LINE, np.sin), nm.MethodError, "left out with Draws only, not with Interval"),
    ],
)
def test_errors(call, error, match):
    with pytest.raises(error, match=match):
        call()
