"""The posteriors of variational and amortized fits, saved and loaded: the same draws, the same answers for new subjects."""

import jax
import numpy as np
import pandas as pd
import pytest
from models import examples
from test_archive import assert_same, reloaded

import nlmefit as nm
from nlmefit import generative as gen
from nlmefit.core import archive
from nlmefit.results import stored


@pytest.fixture(scope="module")
def X():
    return np.random.default_rng(0).normal(size=(30, 4)) @ np.diag([1.0, 2.0, 1.0, 0.5])


@pytest.fixture
def path(tmp_path):
    return tmp_path / "fit.nlmefit"


@pytest.mark.parametrize("family", [nm.FullRank(), nm.MeanField(), nm.TriangularFlow(units=2)], ids=lambda f: f.name)
def test_a_variational_posterior_comes_back(family, X, path):
    fit = nm.evaluate(gen.PPCA(latent=2), X, nm.VI(family=family))
    loaded = reloaded(fit, path)
    assert_same(fit, loaded)
    assert loaded.found.posterior.family == family
    key = jax.random.key(4)
    np.testing.assert_array_equal(loaded.found.posterior.draws(key, 7), fit.found.posterior.draws(key, 7))


def test_an_encoder_comes_back(X, path):
    """And answers for new subjects as it did."""
    example = examples()["theophylline"]
    method = nm.AmortizedVI(nm.SetEncoder(width=8, depth=3), steps=20, refine=False)
    for model, data in ((gen.PPCA(latent=2), X), (example.model, example.data)):
        fit = nm.fit(model, data, method, progress=False)
        loaded = reloaded(fit, path, model=model)
        assert_same(fit, loaded)
        np.testing.assert_array_equal(loaded.found.posterior.mean, fit.found.posterior.mean)
        found, again = nm.posterior(fit, data, draws=3), nm.posterior(loaded, data, draws=3)
        pd.testing.assert_frame_equal(again.draws, found.draws, check_exact=True)
        assert again.warning == found.warning
    leaves = archive.read(path)["found"]["posterior"]["network"]["weights"]
    assert all(isinstance(x, np.ndarray) for x in leaves)


def test_weights_of_another_network_are_refused(X, path):
    fit = nm.fit(gen.PPCA(latent=2), X, nm.AmortizedVI(nm.SetEncoder(width=8), steps=10, refine=False), progress=False)
    content = stored.content(fit)
    content["found"]["posterior"]["network"]["weights"].pop()
    archive.write(path, content)
    with pytest.raises(nm.NlmefitError, match="weights of other shapes"):
        nm.load(path)
