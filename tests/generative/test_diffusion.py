"""Diffusions of normal data, whose optimal network is known: bounds, samplers, densities; training on a mixture."""

from itertools import pairwise

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import norm

import nlmefit as nm
from nlmefit import generative as gen
from nlmefit.estimate.random_numbers import matched
from nlmefit.generative.diffusion.denoising import denoising_error
from nlmefit.generative.diffusion.noising import noise, reverse, signal, transition
from nlmefit.generative.rows import Samples
from nlmefit.generative.variational.decoder import Networks

NONE = jnp.zeros(0)
SD = 0.4
EXACT = 0.5 * (np.log1p(SD**2 * np.exp(8)) - np.log1p(SD**2 * np.exp(-6)))  # 3.0845582


class Optimal(eqx.Module):
    """The noise in x_t as it is best predicted where the data are N(mean, sd^2)."""

    mean: float = 0.0
    sd: float = SD

    def __call__(self, x, log_snr, given):
        a, s = signal(log_snr), noise(log_snr)
        return s * (x - a * self.mean) / (a**2 * self.sd**2 + s**2)


class Linear(eqx.Module):
    """N(factor z, sd^2)."""

    factor: float
    sd: float

    def __call__(self, z):
        return self.factor * z, jnp.full_like(z, self.sd)


def of_normal(schedule, steps=None, mean=0.0, sd=SD):
    model = gen.Diffusion(Optimal(mean, sd), schedule, "noise", steps, standardised=False)
    return model.built(Samples.of(np.zeros((2, 1))), jax.random.key(0))


def over_draws(function, mean=0.0):
    """E[f(x_0, eps)], x_0 of the data and eps standard normal: exact where f is quadratic."""
    points = jnp.asarray(matched(32, 2))
    return jnp.mean(jax.vmap(lambda p: function(mean + SD * p[:1], p[1:]))(points))


def over_time(function, panels=200):
    """The mean of f over [0, 1], by Gauss and Legendre's rule."""
    nodes, weights = np.polynomial.legendre.leggauss(8)
    t = jnp.asarray((np.arange(panels)[:, None] + (nodes + 1) / 2).ravel() / panels)
    return float(jax.jit(jax.vmap(function))(t) @ np.tile(weights / 2 / panels, panels))


ENDS = [gen.LinearLogSNR(8.0, -6.0), gen.Cosine(8.0, -6.0), gen.LearnedSchedule(8.0, -6.0)]


@pytest.mark.parametrize("schedule", ENDS, ids=lambda s: type(s).__name__)
def test_d7_the_continuous_bound_depends_on_the_ends_only(schedule):
    """3.0845582, whatever is between."""
    model = of_normal(schedule)
    error = lambda t: over_draws(lambda x, e: denoising_error(model, x, NONE, t, e, "likelihood"))  # noqa: E731
    assert over_time(error) == pytest.approx(EXACT, abs=1e-6)
    assert EXACT == pytest.approx(3.0845582, abs=5e-8)


@pytest.mark.parametrize(("steps", "value"), [(8, 7.1953), (32, 3.7326), (128, 3.2307), (512, 3.1202)])
def test_d8_the_discrete_bound_falls_to_the_continuous_one(steps, value):
    """7.1953, 3.7326, 3.2307, 3.1202 for 8, 32, 128, 512 steps, to 3.0846."""
    model = of_normal(gen.LinearLogSNR(8.0, -6.0), steps)
    times = (jnp.arange(steps) + 0.5) / steps
    term = lambda t: over_draws(lambda x, e: model._through_noise(x, NONE, e, t))  # noqa: E731
    assert float(jnp.mean(jax.jit(jax.vmap(term))(times))) == pytest.approx(value, abs=5e-5)


@pytest.mark.parametrize(("steps", "most"), [(None, 0.01), (1000, 0.02), (2000, 0.01)])
def test_d12_the_bound_is_the_entropy_where_the_network_is_right(steps, most):
    """Within 0.01 nats in continuous time and with 2000 steps, 0.02 with 1000; never above log p within 4 standard errors."""
    model = of_normal(gen.LinearLogSNR(8.0, -4.0), steps)
    rng = np.random.default_rng(0)
    X = SD * rng.normal(size=(1000, 1))
    gap = norm.logpdf(X[:, 0], 0, SD) - model.elbo(X, draws=100)
    error = gap.std() / np.sqrt(len(gap))
    assert -4 * error < gap.mean() < most + 4 * error
    ends = lambda x: model._reconstruction(1) - model._prior_divergence(x)  # noqa: E731
    middle = over_time(lambda t: over_draws(lambda x, e: model._through_noise(x, NONE, e, t)), (steps or 800) // 8)
    exact = float(over_draws(lambda x, e: ends(x))) - middle
    entropy = 0.5 * (1 + np.log(2 * np.pi * SD**2))
    assert 0 < -entropy - exact < most


def test_d5_a_diffusion_is_a_hierarchical_vae():
    """With the noising steps for encoder and the ancestral steps for decoder: the same bound, 2 steps, to 1e-12."""
    model = of_normal(gen.LinearLogSNR(2.0, -1.0), 2)
    log_snr = [float(model.schedule.log_snr(t)) for t in (0.0, 0.5, 1.0)]
    first = noise(log_snr[0])
    up, down = [Linear(float(signal(log_snr[0])), float(first))], []
    for earlier, later in pairwise(log_snr):
        step, back = transition(earlier, later), reverse(earlier, later)
        up.append(Linear(float(step.factor), float(jnp.sqrt(step.variance))))
        predicted = model.predicted(jnp.ones(1), jnp.asarray(later), NONE).data[0]  # linear in x_t
        down.append(Linear(float(back.factor + back.data_factor * predicted), float(jnp.sqrt(back.variance))))
    own = jnp.log(jnp.array([first / signal(log_snr[0])]) - 1e-3)
    units = gen.HierarchicalVAE((1,)).built(Samples.of([[-1.0], [1.0]]), jax.random.key(0)).standard
    networks = Networks((lambda z: z / signal(log_snr[0]), *down), tuple(up), own)
    chain = gen.HierarchicalVAE((1, 1, 1), networks=networks, standard=units)
    x = jnp.array([0.3])
    direct = jnp.mean(jax.vmap(lambda e: chain.bound_along(x, NONE, e))(jnp.asarray(matched(64, 3))))
    points = jnp.asarray(matched(32, 1))
    middle = [jnp.mean(jax.vmap(lambda e, t=t: model._through_noise(x, NONE, e, t))(points)) for t in (0.25, 0.75)]
    assert float(direct) == pytest.approx(
        float(model._reconstruction(1) - model._prior_divergence(x) - np.mean(middle)), abs=1e-12
    )


def drawn_bounds(model, count=20_000):
    """`bound_at` at as many times and draws."""
    data, times, noises = jax.random.split(jax.random.key(9), 3)
    x, given = SD * jax.random.normal(data, (count, 1)), jnp.zeros((count, 0))
    bound = eqx.filter_jit(lambda *rows: jax.vmap(model.bound_at)(*rows))
    return np.asarray(bound(x, given, jax.random.split(noises, count), jax.random.uniform(times, (count,))))


def test_d10_a_learned_schedule_lowers_the_variance_not_the_bound():
    """To 0.50 of that of the linear one."""
    X = SD * np.random.default_rng(0).normal(size=(500, 1))
    method = gen.VariationalBound(training=gen.Training(steps=400, batch=500, rate=3e-2))
    start = gen.Diffusion(Optimal(), gen.LearnedSchedule(8.0, -6.0), "noise", standardised=False)
    linear = drawn_bounds(of_normal(gen.LinearLogSNR(8.0, -6.0)))
    found = drawn_bounds(nm.fit(start, X, method, progress=False).model)
    error = np.hypot(linear.std(), found.std()) / np.sqrt(len(found))
    assert abs(linear.mean() - found.mean()) < 4 * error
    assert found.var() < 0.6 * linear.var()


def test_d11_tweedie():
    """E[x_0 | x_t] = (x_t + (1 - abar) score) / sqrt(abar): 0.60548015, of the marginal's score."""
    model = of_normal(gen.LinearLogSNR(), mean=0.3, sd=0.5)
    said = model.predicted(jnp.array([1.1]), jnp.log(0.6 / 0.4), NONE)
    variance = 0.6 * 0.25 + 0.4
    score = -(1.1 - np.sqrt(0.6) * 0.3) / variance
    assert float(said.score[0]) == pytest.approx(score, abs=1e-14)
    assert float(said.data[0]) == pytest.approx((1.1 + 0.4 * score) / np.sqrt(0.6), abs=1e-14)
    assert float(said.data[0]) == pytest.approx(0.60548015, abs=5e-9)


def test_e5_denoising_is_implicit_score_matching_but_for_a_constant():
    """For normal data and any linear score: E|s - d log q(x_t|x_0)|^2 - E[|s|^2 + 2 tr ds] does not depend on it."""
    t = jnp.asarray(0.4)

    def difference(sd):
        model = of_normal(gen.LinearLogSNR(), sd=sd)
        log_snr = model.schedule.log_snr(t)
        a, s = signal(log_snr), noise(log_snr)
        score = lambda x: model.predicted(x, log_snr, NONE).score  # noqa: E731
        explicit = over_draws(lambda x, e: denoising_error(model, x, NONE, t, e, "simple")) / s**2

        def implicit(x, e):
            noised = a * x + s * e
            return jnp.sum(score(noised) ** 2) + 2 * jnp.trace(jax.jacfwd(score)(noised))

        return float(explicit - over_draws(implicit))

    assert difference(0.3) == pytest.approx(difference(2.0), rel=1e-10)


def test_e7_the_probability_flow_has_the_density_of_the_data():
    """log p(0.9) of N(1.5, 0.4^2) is -1.12764780, from the exact law at t = 1; from N(0, 1) off by no more than its divergence
    from that law suggests, and a normalized density either way."""
    model = of_normal(gen.LinearBeta(highest=18.4), mean=1.5)
    flow = gen.ProbabilityFlow(model, rtol=1e-9, atol=1e-11)
    end, log_volume = eqx.filter_jit(flow.noised)(jnp.array([0.9]), NONE)
    a = float(signal(model.schedule.log_snr(1.0)))
    law = norm(1.5 * a, np.sqrt(1 - a**2 + SD**2 * a**2))
    assert law.logpdf(float(end[0])) + float(log_volume) == pytest.approx(-1.12764780, abs=2e-7)
    divergence = 0.5 * (law.var() + law.mean() ** 2 - 1 - np.log(law.var()))
    assert divergence == pytest.approx(4.86e-5, rel=0.01)
    grid = np.linspace(-1, 4, 401)
    loose = gen.ProbabilityFlow(model)
    density = np.exp(loose.log_prob(grid[:, None]))
    assert np.trapezoid(density, grid) == pytest.approx(1.0, abs=1e-4)
    np.testing.assert_allclose(density, norm.pdf(grid, 1.5, SD), atol=0.02)


def test_e7_the_reverse_equation_converges_with_order_one():
    """Mean and variance of the Euler-Maruyama scheme, exact for a linear score: the error halves with the step."""
    model = of_normal(gen.LinearLogSNR(6.0, -6.0), mean=1.0)

    def moments(steps):
        sampler = gen.ReverseSDE(model, steps)

        def one(carry, k):
            t = k / steps
            mean, sd = sampler.step(carry[0], t, NONE)
            slope = jax.jacfwd(lambda x: sampler.step(x, t, NONE)[0])(carry[0])[0, 0]
            return (mean, slope**2 * carry[1] + sd**2), None

        (mean, variance), _ = jax.lax.scan(one, (jnp.zeros(1), jnp.ones(())), jnp.arange(steps, 0, -1))
        return np.array([mean[0], variance])

    values = [moments(n) for n in (400, 800, 1600, 3200)]
    ratios = np.array([(b - a) / (c - b) for a, b, c in zip(values[:-2], values[1:-1], values[2:], strict=True)])
    assert np.all(np.abs(ratios[-1] - 2) < 0.1)


def test_samplers_give_the_data_back():
    model = of_normal(gen.LinearLogSNR(8.0, -8.0), 100, mean=1.0)
    flow = gen.ProbabilityFlow(model, rtol=1e-3, atol=1e-3)
    for sampler in (model, gen.DDIM(model, 100), gen.ReverseSDE(model, 500), flow):
        drawn = sampler.sample(1000, key=1)
        assert abs(drawn.mean() - 1) < 4.5 * SD / np.sqrt(1000) + 0.01
        assert abs(drawn.std() / SD - 1) < 4.5 / np.sqrt(2000) + 0.02
    np.testing.assert_array_equal(gen.DDIM(model, 100, 1.0).sample(5), model.sample(5))


@pytest.fixture(scope="module")
def mixture():
    """Two normals in the plane, a diffusion trained on them, and the score of their noised mixture."""
    rng = np.random.default_rng(0)
    centers = np.array([[2.0, 0.0], [-2.0, 1.0]])
    X = (centers[:, None] + [0.4, 0.6] * rng.normal(size=(2, 10_000, 2))).reshape(-1, 2)
    model = gen.Diffusion(gen.MLP(48, 2), gen.LearnedSchedule(8.0, -6.0))
    method = gen.VariationalBound(training=gen.Training(steps=6000, batch=500, rate=3e-3, precision="float32"))
    return X, centers, nm.fit(model, X, method, progress=False)


def log_density(x, centers, log_snr, units):
    """Of the mixture with noise, in the data's units."""
    a, s = signal(log_snr), noise(log_snr)
    z, c = (x - units.center) / units.scale, a * (centers - units.center) / units.scale
    sd = jnp.sqrt((a * jnp.array([0.4, 0.6]) / units.scale) ** 2 + s**2)
    return jax.nn.logsumexp(jnp.sum(jax.scipy.stats.norm.logpdf(z, c, sd), axis=1))


@pytest.mark.slow
def test_e6_the_score_of_a_mixture(mixture):
    """Relative error in the mean square over noised data, by time."""
    X, centers, fit = mixture
    assert fit.status
    units, schedule = fit.model.standard, fit.model.schedule
    rng = np.random.default_rng(1)
    for t in (0.2, 0.4, 0.6, 0.8):
        log_snr = schedule.log_snr(t)
        noised = signal(log_snr) * (X - units.center) / units.scale + noise(log_snr) * rng.normal(size=X.shape)
        points = np.asarray(units.center + units.scale * noised)
        exact = jax.vmap(jax.grad(lambda x, level=log_snr: log_density(x, centers, level, units)))(points)
        error = fit.model.stein_score(points, t) - exact
        assert np.sqrt(np.mean(error**2) / np.mean(exact**2)) < 0.15


@pytest.mark.slow
def test_bounds_and_densities_of_a_trained_model(mixture):
    X, centers, fit = mixture
    units = fit.model.standard
    mixed = jax.vmap(lambda x: log_density(x, centers, 40.0, units))(X[::500])
    truth = float(np.mean(mixed)) - np.log(2 * np.prod(units.scale))
    bound = fit.model.elbo(X[::500], draws=500)
    assert truth - 0.3 < bound.mean() < truth + 0.05
    flow = gen.ProbabilityFlow(fit.model, rtol=1e-4, atol=1e-4)
    assert truth - 0.2 < flow.score(X[::500]) < truth + 0.1
    assert np.all(np.abs(flow.to_noise(X[::500])) < 5)


def test_denoising_score_matching_trains_too():
    X = 1 + SD * np.random.default_rng(0).normal(size=(500, 1))
    training = gen.Training(steps=600, batch=250, rate=1e-2, precision="float32")
    fit = nm.fit(gen.Diffusion(gen.MLP(24, 1), gen.Cosine()), X, gen.DenoisingScoreMatching(training=training), progress=False)
    drawn = gen.DDIM(fit.model, 50).sample(2000)
    assert abs(drawn.mean() - X.mean()) < 0.08 and abs(drawn.std() / X.std() - 1) < 0.15


def test_weightings_of_denoising_score_matching():
    """Each is the squared error of the score times its w(t)."""
    model, t, x, eps = of_normal(gen.LinearBeta()), jnp.asarray(0.3), jnp.array([0.5]), jnp.array([-0.7])
    log_snr = model.schedule.log_snr(t)
    a, s = signal(log_snr), noise(log_snr)
    error = float(jnp.sum((model.predicted(a * x + s * eps, log_snr, NONE).score + eps / s) ** 2))
    weights = {
        "simple": s**2,
        "likelihood": model.schedule.beta(t) / 2,
        "snr": s**2 * min(1.0, 5 * float(s**2 / a**2)),
        "velocity": s**2 / a**2,
    }
    for weighting, weight in weights.items():
        assert float(denoising_error(model, x, NONE, t, eps, weighting)) == pytest.approx(float(weight) * error, rel=1e-10)


def test_errors():
    X = np.random.default_rng(0).normal(size=(20, 2))
    for wrong, match in [
        ({"network": 3}, r"Diffusion\(network=...\) must be a gen.MLP"),
        ({"schedule": "cosine"}, r"Diffusion\(schedule=...\) must be .*gen.LinearLogSNR"),
        ({"predicts": "image"}, r"Diffusion\(predicts=...\) must be one of 'data', 'noise', 'score', 'velocity'"),
        ({"steps": 0}, r"Diffusion\(steps=...\) must be a whole number"),
    ]:
        with pytest.raises(nm.ModelError, match=match):
            gen.Diffusion(**wrong)
    model = of_normal(gen.LinearLogSNR())
    with pytest.raises(nm.MethodError, match=r"t must be a time from 0 \(data\) to 1 \(noise\), got 2"):
        model.stein_score([[0.0]], 2)
    with pytest.raises(nm.ModelError, match=r"DDIM\(model=...\) must be .*gen.Diffusion"):
        gen.DDIM(gen.PPCA(1))
    with pytest.raises(nm.MethodError, match="stochastic must be from 0 to 1"):
        gen.DDIM(model, stochastic=2.0)
    with pytest.raises(nm.MethodError, match="weighted=5 needs a model with an encoder; Diffusion has none"):
        nm.fit(gen.Diffusion(), X, gen.VariationalBound(weighted=5), progress=False)
    with pytest.raises(nm.MethodError, match=r"weighting=...\) must be one of 'simple"):
        gen.DenoisingScoreMatching("none")
    with pytest.raises(gen.NotTractableError, match="Diffusion cannot compute log_prob"):
        model.log_prob([[0.0]])
    with pytest.raises(nm.ModelError, match="has not been fitted"):
        gen.Diffusion().sample(2)
