"""Arrays with their first and second derivatives in k variables, carried along as they are computed.

    x(e) = value + sum_i first_i e_i + 1/2 sum_ij second_ij e_i e_j

A solver that carries jets integrates the variational equations along with the amounts, all by the same steps. Nested forward
mode around the solver computes the same numbers and takes several times as long: it computes every mixed derivative twice, and
puts the directions first, where the loops over them are neither innermost nor contiguous.
"""

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import jaxpr_as_fun
from jaxtyping import Array, Bool, Float, Int

from nlmefit.core.dependence import reached


class Jet(eqx.Module):
    """An array (...) with its derivatives; None where there are none, as for what does not depend on the variables."""

    value: Float[Array, "..."]
    first: Float[Array, "... k"] | None = None
    second: Float[Array, "... P"] | None = None
    """By pair i <= j, P = k (k + 1) / 2."""

    def __getitem__(self, index: Any) -> "Jet":
        return jax.tree.map(lambda x: x[index], self)

    def __add__(self, other: Any) -> "Jet":
        other = constant(other)
        value = self.value + other.value
        return Jet(value, _sum(value, self.first, other.first), _sum(value, self.second, other.second))

    def __sub__(self, other: Any) -> "Jet":
        return self + -1.0 * constant(other)

    def __mul__(self, other: Any) -> "Jet":
        other = constant(other)
        a, b = self.value[..., None], other.value[..., None]
        value = self.value * other.value
        first = _sum(value, _product(b, self.first), _product(a, other.first))
        second = _sum(value, _product(b, self.second), _product(a, other.second))
        if self.first is not None and other.first is not None and second is not None:
            second = second + mixed(self.first, other.first)
        return Jet(value, first, second)

    __radd__, __rmul__ = __add__, __mul__


def constant(x: Any) -> Jet:
    """x as a jet without derivatives; itself where it is one."""
    return x if isinstance(x, Jet) else Jet(jnp.asarray(x, float))


def constants(tree: Any) -> Any:
    """The same of all floating-point leaves of a PyTree."""
    return jax.tree.map(lambda x: constant(x) if jnp.issubdtype(jnp.result_type(x), jnp.floating) else x, tree)


@lru_cache
def pairs(k: int) -> tuple[Int[np.ndarray, "P"], Int[np.ndarray, "P"]]:
    """i and j of the pairs i <= j."""
    return np.triu_indices(k)


def mixed(a: Float[Array, "... k"], b: Float[Array, "... k"]) -> Float[Array, "... P"]:
    """a_i b_j + a_j b_i by pair."""
    i, j = pairs(a.shape[-1])
    return a[..., i] * b[..., j] + a[..., j] * b[..., i]


def full(second: Float[Array, "... P"], k: int) -> Float[Array, "... k k"]:
    """Second derivatives as a symmetric matrix."""
    place = np.zeros((k, k), int)
    i, j = pairs(k)
    place[i, j] = place[j, i] = np.arange(len(i))
    return second[..., place]


def where(condition: Bool[Array, ""], a: Any, b: Any) -> Jet:
    """a where the condition holds, else b."""
    a, b = constant(a), constant(b)

    def choose(x: Any, y: Any) -> Any:
        if x is None and y is None:
            return None
        return jnp.where(condition, 0.0 if x is None else x, 0.0 if y is None else y)

    return Jet(choose(a.value, b.value), choose(a.first, b.first), choose(a.second, b.second))


def stack(parts: Sequence[Jet]) -> Jet:
    """Numbers that have the same derivatives as a vector (n,)."""
    return jax.tree.map(lambda *x: jnp.stack(x), *parts)


def solve(inverted: Float[Array, "n n"], matrix: Jet, right: Jet) -> Jet:
    """x of M x = b, with M^-1 given: x_i = M^-1 (b_i - M_i x),  x_ij = M^-1 (b_ij - M_ij x - M_i x_j - M_j x_i)."""
    x = jnp.sum(inverted * right.value, axis=1)

    def pulled(b: Array | None, *taken: Array | None) -> Array | None:
        parts = [] if b is None else [b]
        parts += [-jnp.sum(part, axis=1) for part in taken if part is not None]
        return inverted @ sum(parts[1:], parts[0]) if parts else None

    first = pulled(right.first, _product(x[:, None], matrix.first))
    both = None if first is None or matrix.first is None or matrix.second is None else mixed(matrix.first, first[None])
    return Jet(x, first, pulled(right.second, _product(x[:, None], matrix.second), both))


def apply(function: Callable[..., Any], *arguments: Any) -> Any:
    """`function` of jets: a PyTree of jets, all with the derivatives that the arguments have together. Arguments are PyTrees
    whose leaves are jets."""
    leaves, form = jax.tree.flatten(arguments, is_leaf=_is_jet)
    moving = [n for n, leaf in enumerate(leaves) if leaf.first is not None]

    def values(*moved: Array) -> Any:
        own = [leaf.value for leaf in leaves]
        for n, x in zip(moving, moved, strict=True):
            own[n] = x
        return function(*jax.tree.unflatten(form, own))

    return _expanded(values, [leaves[n] for n in moving])


def _expanded(function: Callable[..., Any], arguments: Sequence[Jet]) -> Any:
    x = tuple(a.value for a in arguments)
    value = function(*x)
    if not arguments:
        return jax.tree.map(Jet, value)

    def along(x: Any, v: Any) -> Any:
        return jax.jvp(function, x, v)[1]

    v: tuple[Any, ...] = tuple(a.first for a in arguments)
    first = jax.vmap(along, in_axes=(None, -1), out_axes=-1)(x, v)
    if all(a.second is None for a in arguments):
        return jax.tree.map(Jet, value, first)
    i, j = pairs(v[0].shape[-1])
    curved = tuple(jnp.zeros(f[..., i].shape) if a.second is None else a.second for a, f in zip(arguments, v, strict=True))

    def twice(vi: Any, vj: Any, curved: Any) -> Any:
        return jax.jvp(along, (x, vi), (vj, curved))[1]

    ahead, beside = (tuple(f[..., side] for f in v) for side in (i, j))
    second = jax.vmap(twice, in_axes=-1, out_axes=-1)(ahead, beside, curved)
    return jax.tree.map(Jet, value, first, second)


def expanded(function: Callable[[Array], Any], center: Float[Array, "k"], order: int) -> Any:
    """The PyTree that `function` makes of its argument, with jets in the k coordinates of that for all floating-point leaves;
    those that do not depend on it have no derivatives."""
    traced, form = jax.make_jaxpr(function, return_shape=True)(center)
    run, tree = jaxpr_as_fun(traced), jax.tree.structure(form)
    found = run(center)
    moving = [n for n, hit in enumerate(reached(traced.jaxpr)) if hit and jnp.issubdtype(found[n].dtype, jnp.floating)]
    result = [constants(x) for x in found]
    if order and moving:
        k = center.shape[0]
        variables = Jet(center, jnp.eye(k), None if order == 1 else jnp.zeros((k, k * (k + 1) // 2)))
        jets = apply(lambda x: [run(x)[n] for n in moving], variables)
        for n, jet in zip(moving, jets, strict=True):
            result[n] = jet
    return jax.tree.unflatten(tree, result)


def _is_jet(x: Any) -> bool:
    return isinstance(x, Jet)


def _product(factor: Array, derivative: Array | None) -> Array | None:
    return None if derivative is None else factor * derivative


def _sum(value: Array, a: Array | None, b: Array | None) -> Array | None:
    """The sum of derivatives of what has the shape of `value`."""
    if a is None and b is None:
        return None
    total = b if a is None else a if b is None else a + b
    assert total is not None
    return jnp.broadcast_to(total, (*value.shape, total.shape[-1]))
