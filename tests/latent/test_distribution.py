"""Endpoints that are NumPyro distributions: of any parameter shapes in every method, and joint ones once or not at all."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pandas as pd
import pytest
from numpyro.infer.util import log_density

import nlmefit as nm
from nlmefit.analysis.fit import bind
from nlmefit.latent.distribution import family
from nlmefit.latent.program import log_likelihood, observed_sites, population_program

DATA = pd.DataFrame({"ID": [1, 1, 1, 2, 2], "TIME": [0.0, 1, 2, 0, 1], "DV": [1.0, 2, 0, 3, 1]})
SHARES, POSITIVE = DATA.assign(DV=[0.1, 0.2, 0.3, 0.4, 0.6]), DATA.assign(DV=DATA["DV"] + 0.5)
WEIGHTS = dist.Categorical(jnp.array([0.3, 0.7]))

FAMILIES = {  # what `observe` gives, what an error calls it, and data of its kind
    "scalars alone": (lambda t, p: dist.TruncatedNormal(p.b, p.s, low=-0.5), "TruncatedNormal", DATA),
    "a scalar beside rows": (lambda t, p: dist.TruncatedNormal(p.b + 0 * t, p.s, low=-0.5), "TruncatedNormal", DATA),
    "between two limits": (lambda t, p: dist.TruncatedNormal(p.b + 0 * t, p.s, low=-0.5, high=9.0), "TruncatedNormal", DATA),
    "Student's t": (lambda t, p: dist.StudentT(4, p.b + 0.01 * t, p.s), "StudentT", DATA),
    "beta": (lambda t, p: dist.Beta(2.0, jnp.exp(p.b + 0 * t)), "Beta", SHARES),
    "zeros and counts": (lambda t, p: dist.ZeroInflatedPoisson(0.3, jnp.exp(p.b + 0 * t)), "ZeroInflatedPoisson", DATA),
    "zeros and wide counts": (
        lambda t, p: dist.ZeroInflatedNegativeBinomial2(jnp.exp(p.b + 0 * t), 2.0, gate=0.2),
        "ZeroInflatedNegativeBinomial2",
        DATA,
    ),
    "ordered": (lambda t, p: dist.OrderedLogistic(p.b + 0 * t, jnp.array([-1.0, 0.5, 1.5])), "OrderedLogistic", DATA),
    "Weibull": (lambda t, p: dist.Weibull(jnp.exp(p.b + 0 * t), 1.5), "Weibull", POSITIVE),
    "a mixture": (
        lambda t, p: dist.MixtureSameFamily(WEIGHTS, dist.Normal(jnp.stack([p.b, p.b + 1]), 0.5)),
        "MixtureSameFamily",
        DATA,
    ),
    "a mixture of families": (
        lambda t, p: dist.MixtureGeneral(WEIGHTS, [dist.Normal(p.b, 0.5), dist.Cauchy(0.0, 1.0)]),
        "MixtureGeneral",
        DATA,
    ),
    "constants": (lambda t, p: dist.Cauchy(1.0, 0.5), "Cauchy", DATA),
}


def of(distribution):
    """A model whose `observe` gives that for y."""

    class Own(nm.Model):
        b = nm.Normal(1.0, iiv=0.5)
        s = nm.Theta(0.5, lower=0)

        def observe(self, t, A, p):
            return {"y": distribution(t, p)}

    return Own()


@pytest.mark.parametrize("name", FAMILIES)
def test_parameters_of_any_shape(name):
    """The population's program, which NUTS samples, is the sum of the subjects' own log densities, record by record."""
    distribution, called, data = FAMILIES[name]
    model = of(distribution)
    latent, subjects = bind(model, data)
    theta = {key: jnp.asarray(p.start) for key, p in latent.parameters().items()}
    given = {**theta, "eta_base": np.array([[0.3], [-0.4]])}
    prior = sum(float(p.prior.log_prob(p.start).sum()) for p in latent.parameters().values())
    prior += float(dist.Normal(0, 1).log_prob(given["eta_base"]).sum())
    each = []
    for i, eta in enumerate(np.array([0.15, -0.2])):
        p = type("P", (), {"b": 1.0 + eta, "s": 0.5})
        values = data.loc[data["ID"] == i + 1, ["TIME", "DV"]].to_numpy()
        each += [distribution(t, p).log_prob(int(y) if distribution(t, p).is_discrete else y).sum() for t, y in values]
        subject = jax.tree.map(lambda x, i=i: x[i], subjects.subjects)
        z = jnp.array([eta / 0.5])
        total = jax.jit(lambda z, s: log_likelihood(observed_sites(latent, theta, latent.omega(theta), z, s)))(z, subject)
        np.testing.assert_allclose(total, sum(each[-len(values) :]), rtol=1e-10)
    total = jax.jit(lambda s: log_density(population_program(latent, s, 2), (), {}, given)[0])(subjects.subjects)
    np.testing.assert_allclose(total - prior, sum(each), rtol=1e-10)
    assert family(distribution(0.0, type("P", (), {"b": 1.0, "s": 0.5})).expand([3])) == called


JOINT = {
    "to_event": lambda f, s: dist.Normal(f, s).to_event(1),
    "a diagonal covariance": lambda f, s: dist.MultivariateNormal(f, s**2 * jnp.eye(len(f))),
    "a diagonal root": lambda f, s: dist.MultivariateNormal(f, scale_tril=s * jnp.eye(len(f))),
}


@pytest.mark.parametrize("name", JOINT)
def test_a_joint_distribution_counts_each_record_once(name):
    """Also where subjects have fewer records than others: padding counts nothing."""
    joint = of(lambda t, p: JOINT[name](p.b + 0 * jnp.atleast_1d(t), p.s))
    alone = of(lambda t, p: dist.Normal(p.b + 0 * t, p.s))
    found, each = (nm.evaluate(model, DATA, nm.Laplace()) for model in (joint, alone))
    assert found.log_likelihood == pytest.approx(each.log_likelihood, abs=1e-10)
    assert "residual variance at" in str(found)


def test_what_a_record_cannot_have_is_refused():
    def covariance(f):
        return 0.3 * jnp.eye(len(f)) + 0.1

    correlated = of(lambda t, p: dist.MultivariateNormal(p.b + 0 * jnp.atleast_1d(t), covariance(jnp.atleast_1d(t))))
    with pytest.raises(nm.ModelError, match=r"a MultivariateNormal with covariances between records.*random effect"):
        nm.evaluate(correlated, DATA, nm.Laplace())
    for vectors, called in (
        (lambda t, p: dist.Dirichlet(jnp.ones(3) * jnp.exp(p.b)), "a Dirichlet, a distribution of vectors"),
        (lambda t, p: dist.Multinomial(5, jnp.ones(3) / 3), "a Multinomial, a distribution of vectors"),
    ):
        with pytest.raises(nm.ModelError, match=f"`observe` gives `y` {called}"):
            nm.evaluate(of(vectors), DATA, nm.Laplace())
    with pytest.raises(nm.ModelError, match=r"of one record.s observation, got one of shape \(2,\)"):
        nm.evaluate(of(lambda t, p: dist.Normal(jnp.ones(2) * p.b, 1.0)), DATA, nm.Laplace())


def test_the_residual_variance_is_told_of_where_there_is_one():
    counts = nm.evaluate(of(lambda t, p: dist.Poisson(jnp.exp(p.b))), DATA, nm.Laplace())
    assert "residual variance" not in str(counts)


def test_an_error_names_the_endpoint_s_own_family():
    with pytest.raises(nm.MethodError, match="`y` is TruncatedNormal"):
        nm.evaluate(of(lambda t, p: dist.TruncatedNormal(p.b, p.s, low=-0.5)), DATA, nm.FOCE())


DRAWN = {
    "LogNormal": lambda p: dist.LogNormal(jnp.log(p.b), 0.1),
    "HalfNormal": lambda p: dist.HalfNormal(p.b),
    "Folded": lambda p: dist.FoldedDistribution(dist.Normal(p.b, 1.0)),
    "Transformed": lambda p: dist.TransformedDistribution(dist.Normal(p.b, 1.0), dist.transforms.AffineTransform(1.0, 2.0)),
    "StudentT": lambda p: dist.StudentT(5.0, p.b, 1.0),
    "Beta": lambda p: dist.Beta(p.b, 3 * p.b),
    "Mixture": lambda p: dist.MixtureSameFamily(
        dist.Categorical(probs=jnp.array([0.5, 0.5])), dist.Normal(jnp.stack([p.b, p.b + 1]), 1.0)
    ),
    "NegativeBinomial2": lambda p: dist.NegativeBinomial2(10 * p.b, 20.0),
    "ZeroInflatedPoisson": lambda p: dist.ZeroInflatedPoisson(0.2, 50 * p.b),
    "BetaBinomial": lambda p: dist.BetaBinomial(p.b, 2.0, 1000),
}


@pytest.mark.parametrize("family", DRAWN)
def test_every_record_has_a_draw_of_its_own(family):
    """Whatever a distribution is made of inside: its parameters, the normal one of a log-normal, the parts of a mixture."""

    class Own(nm.Model):
        b = nm.LogNormal(2.0, iiv=0.1)

        def observe(self, t, A, p):
            return {"y": DRAWN[family](p)}

    times = np.arange(40.0)
    drawn = nm.simulate(Own(), times=times, subjects=30, residual=True, progress=False).frame()["y"].to_numpy().reshape(30, 40)
    assert all(len(np.unique(row)) > 8 for row in drawn)
    expected = DRAWN[family](SimpleNamespace(b=2.0)).sample(jax.random.key(1), (4000,))
    spread = np.std(expected)
    assert abs(drawn.mean() - np.mean(expected)) < 0.35 * spread
    assert abs(drawn.std(axis=1).mean() / spread - 1) < 0.3


def test_students_t_has_third_derivatives_where_the_residual_is_0():
    class Tails(nm.Model):
        b = nm.Normal(2.0, iiv=0.5)

        def observe(self, t, A, p):
            return {"y": dist.StudentT(5.0, p.b, 1.0)}

    data = pd.DataFrame({"ID": [1, 1, 2], "TIME": [0.0, 1, 0], "DV": [2.0, 2.0, 2.0]})
    fit = nm.evaluate(Tails(), data, nm.Laplace())
    exact = nm.evaluate(Tails(), data, nm.Quadrature(nodes=15))
    assert fit.ofv == pytest.approx(exact.ofv, abs=0.1)


def test_what_has_no_mean_is_predicted_as_nan_and_simulated_by_draws():
    class Levels(nm.Model):
        b = nm.Normal(-1.0, iiv=0.5)

        def observe(self, t, A, p):
            return {"y": dist.Categorical(logits=jnp.stack([p.b, 0 * p.b]))}

    with pytest.raises(nm.DataError, match="a distribution without a mean: residual=True gives draws of it"):
        nm.simulate(Levels(), times=[0.0, 1], subjects=3, progress=False).frame()
    assert nm.simulate(Levels(), times=[0.0, 1], subjects=3, residual=True, progress=False).frame()["y"].isin([0, 1]).all()
