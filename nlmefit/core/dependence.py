"""What a traced computation computes from what."""

from collections.abc import Iterable
from typing import Any

from jax.extend.core import Literal


def reached(jaxpr: Any, inputs: Iterable[Any] | None = None) -> list[bool]:
    """By output: whether it is computed from any of the inputs (all of them where none are given). An equation passes dependence
    from any of its inputs to all its outputs."""
    hit = set(jaxpr.invars if inputs is None else inputs)

    def depends(var: Any) -> bool:
        return not isinstance(var, Literal) and var in hit

    for equation in jaxpr.eqns:
        if any(map(depends, equation.invars)):
            hit.update(equation.outvars)
    return [depends(var) for var in jaxpr.outvars]
