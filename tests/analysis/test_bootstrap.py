"""The bootstrap where something goes wrong: Ctrl-C, samples that cannot be fitted; and its random keys."""

from importlib import import_module

import jax
import numpy as np
import pandas as pd
import pytest

import nlmefit as nm
from nlmefit.core.errors import DataError
from nlmefit.estimate.status import Status

module = import_module("nlmefit.analysis.bootstrap")  # nm.bootstrap is the function


class Level(nm.Model):
    b = nm.Normal(1.0, iiv=0.5)

    def observe(self, t, A, p):
        return {"y": p.b + 0 * t}

    y = nm.Additive(0.3)


@pytest.fixture(scope="module")
def fit():
    rng = np.random.default_rng(1)
    y = 1 + 0.5 * rng.normal(size=(20, 1)) + 0.3 * rng.normal(size=(20, 4))
    data = pd.DataFrame({"ID": np.repeat(np.arange(20), 4), "TIME": np.tile([0.0, 1, 2, 3], 20), "DV": y.ravel()})
    return nm.fit(Level(), data, nm.FOCE(), progress=False)


def forged(monkeypatch, fit, ends):
    """Refits that end as told: a status, or an error."""
    seen = []

    def refit(model, data, method, *, key, progress):
        end = ends[len(seen)]
        seen.append((data, key))
        if isinstance(end, Exception):
            raise end
        made = nm.evaluate(fit.model, fit.data, nm.FOCE())
        object.__setattr__(made, "status", end)
        return made

    monkeypatch.setattr(module, "refit", refit)
    return seen


GOOD = Status("converged")
STOPPED = Status("failed", ("Interrupted; these are the best values so far.",))


def test_an_interrupted_refit_is_no_row_and_the_last(fit, monkeypatch):
    seen = forged(monkeypatch, fit, [GOOD, GOOD, STOPPED, GOOD])
    with pytest.warns(UserWarning, match="interrupted: these are 2 of 4 refits"):
        table = nm.bootstrap(fit, 4, progress=False)
    assert len(table) == 2 and len(seen) == 3


def test_a_sample_that_cannot_be_fitted_loses_no_other(fit, monkeypatch):
    ends = [GOOD, DataError("no observations"), Status("uncertain", ("omega_b has collapsed to 0.",)), GOOD]
    forged(monkeypatch, fit, ends)
    with pytest.warns(UserWarning) as told:
        table = nm.bootstrap(fit, 4, progress=False)
    assert table.attrs["converged"] == [True, False, True]
    assert table.attrs["reasons"] == {"DataError: no observations": 1, "uncertain: omega_b has collapsed to 0.": 1}
    assert [str(w.message)[:9] for w in told] == ["1 of 3 re", "1 samples"]


def test_samples_that_all_fail_are_an_error(fit, monkeypatch):
    forged(monkeypatch, fit, [DataError("no observations")] * 3)
    with pytest.raises(nm.DataError, match="no observations"):
        nm.bootstrap(fit, 3, progress=False)


def test_resampling_and_refit_have_keys_of_their_own(fit, monkeypatch):
    drawn = []
    own = module._resampled

    def resampled(model, data, key):
        drawn.append(np.asarray(jax.random.key_data(key)))
        return own(model, data, key)

    monkeypatch.setattr(module, "_resampled", resampled)
    seen = forged(monkeypatch, fit, [GOOD, GOOD])
    nm.bootstrap(fit, 2, progress=False)
    keys = [np.asarray(jax.random.key_data(key)) for _, key in seen]
    everything = np.array([*drawn, *keys])
    assert len(np.unique(everything, axis=0)) == 4


@pytest.mark.parametrize(("arguments", "words"), [((3,), "bootstrap is of a fit"), ((None, "a"), "samples must be")])
def test_wrong_arguments(fit, arguments, words):
    given = (fit if arguments[0] is None else arguments[0], *arguments[1:])
    with pytest.raises(nm.MethodError, match=words):
        nm.bootstrap(*given)
