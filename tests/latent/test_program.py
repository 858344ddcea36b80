"""The NumPyro programs: their log density is the one that every method uses, and NumPyro's own tools run on them."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import pytest
from models import examples
from numpyro import handlers
from numpyro.infer import MCMC, NUTS, SVI, Predictive, Trace_ELBO, init_to_value
from numpyro.infer.autoguide import AutoNormal
from numpyro.infer.reparam import TransformReparam
from numpyro.infer.util import log_density

from nlmefit import generative as gen
from nlmefit.analysis.fit import bind
from nlmefit.latent.model import AbstractLatentModel
from nlmefit.latent.program import log_joint, population_program, subject_program


def _bound(name):
    if name == "ppca":
        rng = np.random.default_rng(2)
        return bind(gen.PPCA(latent=2), rng.normal(size=(8, 4)) + 1.0)
    return bind(examples()[name].model, examples()[name].data)


def _values(latent: AbstractLatentModel):
    return {name: jnp.asarray(p.start, float) for name, p in latent.parameters().items()}


NAMES = [*examples(), "ppca"]


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[pytest.mark.slow] if n in ("growing", "occasions") else []) for n in NAMES]
)
def test_log_density_is_numpyros(name):
    """Ours, the one-subject program's and the population program's agree, etas away from 0."""
    latent, data = _bound(name)
    theta, size = _values(latent), len(data.ids)
    root = latent.omega(theta)
    z = 0.3 * np.random.default_rng(3).normal(size=(size, root.shape[0]))
    ours = jax.vmap(lambda z, s: log_joint(latent, theta, root, z, s))(z, data.subjects)

    def one(z, subject):
        whitened = handlers.reparam(lambda: subject_program(latent, theta, subject), config={"eta": TransformReparam()})
        return log_density(whitened, (), {}, {"eta_base": z})[0]

    np.testing.assert_allclose(jax.vmap(one)(z, data.subjects), ours, rtol=1e-12)
    free = {n: theta[n] for n, p in latent.parameters().items() if not p.fixed}
    total, _ = log_density(population_program(latent, data.subjects, size), (), {}, {**free, "eta_base": z})
    prior = sum(jnp.sum(p.prior.log_prob(theta[n])) for n, p in latent.parameters().items() if not p.fixed)
    assert total == pytest.approx(float(jnp.sum(ours) + prior), rel=1e-12)


QUICK = ("theophylline", "turnover", "counts")


@pytest.mark.parametrize("name", [pytest.param(n, marks=[] if n in QUICK else [pytest.mark.slow]) for n in NAMES])
def test_reverse_mode_gradients_are_finite(name):
    """NUTS and SVI differentiate in reverse: padded rows and rows of other endpoints must not make a NaN."""
    latent, data = _bound(name)
    theta, size = _values(latent), len(data.ids)
    free = {n: theta[n] for n, p in latent.parameters().items() if not p.fixed}
    program = population_program(latent, data.subjects, size)

    def density(sites):
        return log_density(program, (), {}, sites)[0]

    gradient = jax.grad(density)({**free, "eta_base": jnp.zeros((size, len(latent.eta_names())))})
    assert all(np.all(np.isfinite(g)) for g in gradient.values())


def test_sites_of_the_population_program():
    example = examples()["pkpd"]
    trace = handlers.trace(handlers.seed(example.model.program(example.data), 0)).get_trace()
    kinds = {name: site["type"] for name, site in trace.items()}
    assert kinds["eta"] == "deterministic"
    assert trace["eta"]["value"].shape == (10, 4)
    assert set(kinds) >= {"CL", "omega_CL", "EC50", "eta_base", "cp", "effect"}
    assert trace["cp"]["is_observed"]


def test_nuts_and_svi_run():
    example = examples()["fraction"]
    program = example.model.program(example.data)
    start = init_to_value(values=example.model.values)
    mcmc = MCMC(NUTS(program, init_strategy=start), num_warmup=60, num_samples=60, progress_bar=False)
    mcmc.run(jax.random.key(0))
    base = mcmc.get_samples()["base"]
    assert 8.5 < float(jnp.mean(base)) < 11.5
    assert float(jnp.std(base)) > 0
    guide = AutoNormal(program)
    result = SVI(program, guide, numpyro.optim.Adam(0.02), Trace_ELBO()).run(jax.random.key(1), 300, progress_bar=False)
    assert np.all(np.isfinite(result.losses))
    assert np.mean(result.losses[-30:]) < 0.9 * np.mean(result.losses[:30])


def test_etas_are_drawn_apart_for_every_subject():
    """A `numpyro.sample` under `vmap` would share one draw between subjects."""
    example = examples()["fraction"]
    draws = Predictive(example.model.program(example.data), num_samples=2)(jax.random.key(2))["eta"]
    assert len(np.unique(np.asarray(draws).ravel())) == draws.size
