"""What all tests share: the checkout, the shipped data and the folder of published numbers."""

import gc
import os
from collections.abc import Iterator
from pathlib import Path

import jax
import pandas as pd
import pytest

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


MEMORY = 3 << 30
"""Bytes of a test process beyond which it forgets its compiled programs: they stay in memory otherwise, gigabytes of them."""


@pytest.fixture(autouse=True, scope="module")
def forget_programs() -> Iterator[None]:
    yield
    status = Path("/proc/self/statm")
    if status.exists() and int(status.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") > MEMORY:
        jax.clear_caches()
        gc.collect()
