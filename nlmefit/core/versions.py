"""Versions of what a result was computed with."""

import platform
from importlib.metadata import PackageNotFoundError, version

VERSIONED = ("nlmefit", "jax", "numpyro", "numpy", "pandas")


def package_version(package: str) -> str:
    """Of an installed package."""
    try:
        return version(package)
    except PackageNotFoundError:  # run from a folder, not installed
        return "unknown"


def versions() -> dict[str, str]:
    """By package, and Python's."""
    return {name: package_version(name) for name in VERSIONED} | {"python": platform.python_version()}
