"""JAX settings of the package, made once at import: float64, the persistent compilation cache, compiler options.

The cache folder is JAX's own setting where the user made one (`JAX_COMPILATION_CACHE_DIR`), else
`$XDG_CACHE_HOME/nlmefit/xla`. Set `NLMEFIT_CACHE=off` for none.
"""

import os
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import jax

QUICK_TO_COMPILE: dict[str, Any] = {"xla_cpu_use_fusion_emitters": False, "xla_backend_optimization_level": 1}
"""Halves the compile time of these programs on a CPU and leaves their run time as it is."""


def configure() -> None:
    """Switch float64 on for the process, and the compilation cache."""
    jax.config.update("jax_enable_x64", True)
    if os.environ.get("NLMEFIT_CACHE") == "off":
        return
    if jax.config.jax_compilation_cache_dir is None:
        home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        jax.config.update("jax_compilation_cache_dir", str(Path(home) / "nlmefit" / "xla"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)


@lru_cache(maxsize=1)
def compiler_options() -> dict[str, Any] | None:
    """Options for this backend, or None where the installed JAX does not know them."""
    if jax.default_backend() != "cpu":
        return None
    try:
        jax.jit(lambda x: x + 1.0, compiler_options=QUICK_TO_COMPILE)(0.0)
    except Exception:  # the error for an unknown option differs between JAX versions
        return None
    return QUICK_TO_COMPILE


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """`jax.jit` with this package's compiler options."""
    return jax.jit(function, compiler_options=compiler_options())
