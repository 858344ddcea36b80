"""What all tests share: the checkout, the shipped data and the folder of published numbers."""

import gc
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import jax
import pandas as pd
import pytest

from nlmefit.core import backend

ROOT = Path(__file__).resolve().parents[1]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests marked `reference` need the folder that NLMEFIT_REFERENCE names."""
    if os.environ.get("NLMEFIT_REFERENCE"):
        return
    missing = pytest.mark.skip(reason="NLMEFIT_REFERENCE is not set")
    for item in items:
        if item.get_closest_marker("reference"):
            item.add_marker(missing)


QUICK = ("--xla_backend_optimization_level=0", "--xla_cpu_use_fusion_emitters=false", "--xla_cpu_parallel_codegen_split_count=1")
"""Most of the time of the tests goes into compiling programs that run once or twice: their machine code is left as it comes."""

os.environ["XLA_FLAGS"] = " ".join((os.environ.get("XLA_FLAGS", ""), *QUICK)).strip()  # XLA reads it as it starts


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """Tests marked `optimized` compile as the package does for a user."""
    with pytest.MonkeyPatch.context() as patch:
        if item.get_closest_marker("optimized"):
            patch.setattr(backend, "compiler_options", lambda: backend.QUICK_TO_COMPILE)
        return (yield)


def pytest_configure(config: pytest.Config) -> None:
    """Compiled programs are shared by the processes of one run, and by no other run."""
    if "JAX_COMPILATION_CACHE_DIR" in os.environ:  # the user's, or in a worker that of this run
        return
    folder = tempfile.TemporaryDirectory(prefix="nlmefit-programs-", ignore_cleanup_errors=True)
    config.add_cleanup(folder.cleanup)
    os.environ |= {"JAX_COMPILATION_CACHE_DIR": folder.name, "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.1"}
    jax.config.update("jax_compilation_cache_dir", folder.name)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)


gc.set_threshold(50_000, 10, 10)  # tracing makes objects by the million that live for a moment


def pytest_collection_finish() -> None:
    """What all tests have in common is never garbage."""
    gc.collect()
    gc.freeze()


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

GROWTH = 1 << 30
"""Bytes that it has grown by since it last did so: what was freed then is used again, but seldom given back to the system."""


def resident() -> int:
    """Bytes of memory that this process holds; 0 where the system does not say."""
    status = Path("/proc/self/statm")
    return int(status.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") if status.exists() else 0


@pytest.fixture(scope="session")
def forgotten_at() -> list[int]:
    """The bytes that were left each time that programs were forgotten."""
    return [0]


@pytest.fixture(autouse=True, scope="module")
def forget_programs(forgotten_at: list[int]) -> Iterator[None]:
    yield
    if resident() > max(MEMORY, forgotten_at[-1] + GROWTH):
        jax.clear_caches()
        gc.collect()
        forgotten_at.append(resident())
