"""The training loop, its fit, and what models refuse, on a model whose optimum is known: one normal distribution."""

from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import nlmefit as nm
from nlmefit import generative as gen
from nlmefit.generative import training as loop
from nlmefit.generative.capability import AbstractDensity

FAST = gen.Training(steps=2000, batch=64, rate=2e-2)


class Normal(AbstractDensity):
    """x ~ N(mean, exp(log_sd)^2), column by column."""

    mean: jax.Array | None = None
    log_sd: jax.Array | None = None
    fitted_by: ClassVar[tuple[str, ...]] = ("MaximumLikelihood",)

    @property
    def dimension(self):
        return None if self.mean is None else len(self.mean)

    def built(self, data, key):
        size = data.x.shape[1]
        return Normal(jnp.zeros(size), jnp.zeros(size)) if self.mean is None else self

    def log_density(self, x, given):
        return jnp.sum(jax.scipy.stats.norm.logpdf(x, self.mean, jnp.exp(self.log_sd)))

    def draw(self, key, given):
        return self.mean + jnp.exp(self.log_sd) * jax.random.normal(key, self.mean.shape)


@pytest.fixture(scope="module")
def X():
    return np.random.default_rng(0).normal([1.0, -2.0], [0.5, 3.0], (500, 2))


@pytest.fixture(scope="module")
def fit(X):
    return nm.fit(Normal(), X, gen.MaximumLikelihood(training=FAST), progress=False)


def test_it_ends_at_the_maximum(fit, X):
    assert fit.status, str(fit.status)
    best = np.mean(np.sum(-np.log(X.std(0)) - 0.5 * np.log(2 * np.pi) - 0.5, axis=-1))
    assert best - 1e-3 < fit.model.score(X) <= best
    assert str(fit).splitlines()[2] == "Data       500 rows, 2 columns"
    np.testing.assert_allclose(fit.model.stein_score(X), (fit.model.mean - X) / np.exp(2 * fit.model.log_sd), rtol=1e-12)


def test_the_same_key_gives_the_same(fit, X):
    again = nm.fit(Normal(), X, gen.MaximumLikelihood(training=FAST), progress=False)
    np.testing.assert_array_equal(again.model.mean, fit.model.mean)
    other = nm.fit(Normal(), X, gen.MaximumLikelihood(training=FAST), key=1, progress=False)
    assert not np.array_equal(other.model.mean, fit.model.mean)
    np.testing.assert_array_equal(fit.model.sample(5, key=3), fit.model.sample(5, key=3))


def test_a_fitted_model_goes_on_from_where_it_is(fit, X):
    more = nm.fit(fit.model, X, gen.MaximumLikelihood(training=gen.Training(steps=1, rate=1e-9)), progress=False)
    np.testing.assert_allclose(more.model.mean, fit.model.mean, atol=1e-6)


def test_the_best_weights_on_rows_held_out_are_kept(X):
    training = gen.Training(steps=400, batch=64, rate=0.5, held_out=0.2)
    fit = nm.fit(Normal(), X, gen.MaximumLikelihood(training=training), progress=False)
    seen = fit.history["held_out"].dropna()
    assert fit.loss == seen.min() < seen.iloc[0]


def test_single_precision_ends_near_and_answers_in_double(fit, X):
    fast = gen.Training(steps=2000, batch=64, rate=2e-2, precision="float32")
    single = nm.fit(Normal(), X, gen.MaximumLikelihood(training=fast), progress=False)
    assert single.model.mean.dtype == jnp.float64
    assert abs(single.model.score(X) - fit.model.score(X)) < 1e-3


def test_averaged_weights(X):
    def mean_after_a_step(average):
        training = gen.Training(steps=1, rate=0.1, average=average)
        return np.asarray(nm.fit(Normal(), X, gen.MaximumLikelihood(training=training), progress=False).model.mean)

    assert np.all(mean_after_a_step(0.0) != 0)
    np.testing.assert_allclose(mean_after_a_step(0.75), 0.25 * mean_after_a_step(0.0), rtol=1e-12)


def test_interrupted_keeps_what_it_has(X, monkeypatch):
    class Impatient:
        def __init__(self):
            self.calls = 0

        def stage(self, text):
            self.calls += 1
            if self.calls == 3:
                raise KeyboardInterrupt

    samples = loop.Samples.of(X)
    model = Normal().built(samples, jax.random.key(0))
    found = loop.train(gen.MaximumLikelihood().loss, model, samples, FAST, Impatient(), jax.random.key(0))
    assert found.status().state == "failed" and "Interrupted after 150 steps" in str(found.status())
    assert not np.array_equal(found.model.mean, model.mean)


def test_a_loss_that_is_no_number_ends_with_the_last_good_weights(X):
    def loss(model, x, given, key):
        value = gen.MaximumLikelihood().loss(model, x, given, key)
        return jnp.where(model.mean[0] > 0.5, jnp.nan, value)

    samples = loop.Samples.of(X)
    found = loop.train(loss, Normal().built(samples, jax.random.key(0)), samples, FAST, _Quiet(), jax.random.key(0))
    assert found.status().state == "failed" and "not a number from step" in str(found.status())
    assert np.all(np.isfinite(found.model.mean))


class _Quiet:
    def stage(self, text): ...


def test_errors_say_what_is_wrong(fit, X):
    with pytest.raises(gen.NotTractableError, match="Normal cannot compute elbo: it does not have a bound of log p"):
        fit.model.elbo(X)
    assert not hasattr(fit.model, "critic_distance")
    with pytest.raises(nm.DataError, match="X has 3 columns, the model 2"):
        fit.model.log_prob(np.ones((4, 3)))
    with pytest.raises(nm.DataError, match="1 values that are not finite, the first in row 0, column 1"):
        nm.fit(Normal(), [[1.0, np.nan]], gen.MaximumLikelihood(), progress=False)
    with pytest.raises(nm.ModelError, match="has not been fitted"):
        Normal().sample(3)
    with pytest.raises(nm.MethodError, match=r"Normal is fitted by gen\.MaximumLikelihood"):
        nm.fit(Normal(), X, nm.Laplace(), progress=False)
    with pytest.raises(nm.MethodError, match="n must be a whole number"):
        fit.model.sample(0)
    with pytest.raises(nm.MethodError, match="rate must be"):
        gen.Training(rate=-1)
    with pytest.raises(nm.MethodError, match="training= is for networks"):
        nm.fit(gen.PPCA(latent=1), X, gen.MaximumLikelihood(training=FAST), progress=False)
    with pytest.raises(nm.DataError, match="the data's scale"):
        nm.fit(Normal(), X * 1e200, gen.MaximumLikelihood(training=FAST), progress=False)
