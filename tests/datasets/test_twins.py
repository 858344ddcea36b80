"""The twins without random effects and errors: what SciPy makes of their equations is what their models predict."""

import sys
from pathlib import Path

import numpy as np
import pytest

import nlmefit as nm

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmarks"))
from twins import MODELS, twin


@pytest.mark.parametrize("name", list(MODELS))
def test_models_predict_what_was_simulated(name: str) -> None:
    model, data = twin(name, subjects=2, spread=0.0)
    predicted = nm.predict(model, data)
    seen = (data.EVID == 0).to_numpy()
    endpoint = data["DVID"] if "DVID" in data else [model.endpoints[0]] * len(data)
    prediction = np.array([row[which] for (_, row), which in zip(predicted.iterrows(), endpoint, strict=True)], float)
    np.testing.assert_allclose(prediction[seen], data.DV[seen], rtol=1e-5, atol=1e-6)
