"""JAX settings of the package, made once at import: float64, the persistent compilation cache, compiler options.

The cache folder is JAX's own setting where the user made one (`JAX_COMPILATION_CACHE_DIR`), else
`$XDG_CACHE_HOME/nlmefit/xla`. Set `NLMEFIT_CACHE=off` for none.
"""

import os
from collections.abc import Callable
from functools import lru_cache, wraps
from pathlib import Path
from typing import Any

import jax

from nlmefit.core.errors import ProcessError

QUICK_TO_COMPILE: dict[str, Any] = {"xla_cpu_use_fusion_emitters": False, "xla_backend_optimization_level": 1}
"""Halves the compile time of these programs on a CPU and leaves their run time as it is. What `XLA_FLAGS` says goes before it."""

JAX_CACHES_AFTER = 1.0
"""Seconds of compiling from which JAX keeps a program, where the user does not say."""

_orphaned = False
"""Whether this process was forked from one in which JAX was at work."""


def _note_fork() -> None:
    global _orphaned
    _orphaned = _is_at_work()


def _is_at_work() -> bool:
    """Whether JAX has started its threads in this process."""
    try:
        from jax._src.xla_bridge import backends_are_initialized
    except ImportError:  # a JAX that keeps this elsewhere: at least what this package did is known
        return compiler_options.cache_info().currsize > 0
    return bool(backends_are_initialized())


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_note_fork)


def check_process() -> None:
    """ProcessError in a process whose threads were lost in a fork: whatever it computed would wait for them for ever."""
    if _orphaned:
        raise ProcessError(
            "this process was forked after JAX had started, and would wait for ever. Start workers by "
            'multiprocessing.get_context("spawn") or "forkserver" (mp_context= of a ProcessPoolExecutor), or by joblib\'s "loky".'
        )


def configure() -> None:
    """Switch float64 on for the process, and the compilation cache."""
    jax.config.update("jax_enable_x64", True)
    if os.environ.get("NLMEFIT_CACHE") == "off":
        return
    config: Any = jax.config  # whose attributes are made when JAX is imported
    if config.jax_compilation_cache_dir is not None:  # the user's own, and how it is used
        return
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    jax.config.update("jax_compilation_cache_dir", str(Path(home) / "nlmefit" / "xla"))
    if config.jax_persistent_cache_min_compile_time_secs == JAX_CACHES_AFTER:
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)


@lru_cache(maxsize=1)
def compiler_options() -> dict[str, Any] | None:
    """Options for this backend, or None where the installed JAX does not know them."""
    if jax.default_backend() != "cpu":
        return None
    flags = os.environ.get("XLA_FLAGS", "")
    options = {name: value for name, value in QUICK_TO_COMPILE.items() if f"--{name}" not in flags}
    try:
        jax.jit(lambda x: x + 1.0, compiler_options=options)(0.0)
    except Exception:  # the error for an unknown option differs between JAX versions
        return None
    return options


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """`jax.jit` with this package's compiler options."""
    return jax.jit(function, compiler_options=compiler_options())


def compiled_module(function: Callable[..., Any]) -> Callable[..., Any]:
    """`compiled` for functions of equinox modules; a decorator too, since JAX starts at the first call only."""

    @lru_cache(maxsize=1)
    def program() -> Callable[..., Any]:
        import equinox as eqx  # not to import it before it is used

        return eqx.filter_jit(function, compiler_options=compiler_options())  # type: ignore[call-overload, no-any-return]

    @wraps(function)
    def run(*arguments: Any, **options: Any) -> Any:
        check_process()
        return program()(*arguments, **options)

    return run
