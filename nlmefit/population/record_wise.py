"""A model's methods mean one record of one subject; here they are run over many records, each by itself, so that whatever a
method adds up, sorts or normalizes never goes over the records."""

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from numpyro.distributions import Distribution

from nlmefit.core.dependence import reached
from nlmefit.latent.distribution import ByRecord

Name = TypeVar("Name", str, tuple[str, str])


def by_record(method: Callable[[dict[Name, Any]], Any], values: Mapping[Name, Any]) -> Any:
    """What `method` of numbers by name returns (a PyTree) where some of `values` are vectors over records: with a leading axis,
    but for what depends on none of the vectors, which stays as it is."""
    axes = {name: 0 if jnp.ndim(value) else None for name, value in values.items()}
    if all(axis is None for axis in axes.values()):
        return method(dict(values))
    first = {name: value if axes[name] is None else value[0] for name, value in values.items()}
    return jax.vmap(method, in_axes=(axes,), out_axes=_axes(method, first, axes))(dict(values))


def every_record(method: Callable[..., dict[str, Any]], rows: int, *values: Mapping[str, Any]) -> dict[str, Any]:
    """The same for numbers and distributions by name, all of them with a value for each of `rows` records."""
    axes = [{name: 0 if jnp.ndim(value) else None for name, value in group.items()} for group in values]
    found = jax.vmap(method, in_axes=tuple(axes), axis_size=rows)(*map(dict, values))
    return {name: ByRecord(value, rows) if isinstance(value, Distribution) else value for name, value in found.items()}


def _axes(method: Callable[[dict[Name, Any]], Any], first: dict[Name, Any], axes: dict[Name, int | None]) -> Any:
    """0 for what depends on a vector, None for the rest, in the form of what `method` returns."""
    traced, form = jax.make_jaxpr(method, return_shape=True)(first)
    flat = [axes[name] for name in sorted(axes)]  # as a PyTree orders a dictionary
    vectors = [var for var, axis in zip(traced.jaxpr.invars, flat, strict=True) if axis == 0]
    found = [0 if hit else None for hit in reached(traced.jaxpr, vectors)]
    return jax.tree.unflatten(jax.tree.structure(form), found)
