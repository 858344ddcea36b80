"""What all tests share: the checkout, the shipped data and the folder of published numbers."""

import os
from pathlib import Path

import pandas as pd
import pytest

from nlmefit import backend

# Tests compile many programs and run each a few times: no optimization compiles twice as fast.
backend.QUICK_TO_COMPILE["xla_backend_optimization_level"] = 0

ROOT = Path(__file__).resolve().parents[1]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests marked `reference` need the folder that NLMEFIT_REFERENCE names."""
    if os.environ.get("NLMEFIT_REFERENCE"):
        return
    missing = pytest.mark.skip(reason="NLMEFIT_REFERENCE is not set")
    for item in items:
        if item.get_closest_marker("reference"):
            item.add_marker(missing)


@pytest.fixture(scope="session")
def root() -> Path:
    """The checkout."""
    return ROOT


@pytest.fixture
def theophylline() -> pd.DataFrame:
    """Oral theophylline, 12 subjects."""
    return pd.read_csv(ROOT / "datasets" / "theophylline.csv")
