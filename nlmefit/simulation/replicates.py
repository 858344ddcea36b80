"""Simulated observations of a design: new random effects, or given ones, the model's predictions, and residual error.

    eta_id = L(theta_d) z_id,  z_id ~ N(0, I);    y_id ~ p(y | theta_d, eta_id)

The random numbers of draw d and subject i depend on the key, d and i alone: not on what else is simulated beside them, nor on how
the work is cut into pieces, nor on the doses, so that regimens are compared by common random numbers.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from numpyro.distributions import Distribution

from nlmefit.core.backend import compiled
from nlmefit.core.typing import Theta
from nlmefit.estimate.batches import cores
from nlmefit.estimate.coordinates import Coordinates
from nlmefit.estimate.problem import Problem
from nlmefit.estimate.stiff_fallback import with_stiff_fallback
from nlmefit.latent.distribution import mean_of
from nlmefit.latent.model import AbstractLatentModel
from nlmefit.latent.programs import program

CLOSED_FORM_BUDGET, ODE_BUDGET = 1 << 16, 1 << 13
"""Rows (draws x subjects x rows) of a piece: it should fit the cache, and be worth a call."""


class Piece(NamedTuple):
    """Some draws of some subjects."""

    draws: slice
    subjects: slice
    values: dict[str, Float[np.ndarray, "d b n"]]
    """By endpoint."""


def pieces(
    problem: Problem,
    u: Float[np.ndarray, "D p"],
    key: Array,
    eta: Float[np.ndarray, "D N q"] | None = None,
    *,
    residual: bool,
    first: int = 0,
) -> Iterator[Piece]:
    """All subjects of the problem under every draw of theta(u), piece by piece, in order of the draws. `eta` are the random
    effects, None for new ones; `residual` False gives the predictions. The draws count from `first`.
    """
    rows = next(iter(problem.subjects.mask.values())).shape[1]
    budget = ODE_BUDGET if problem.model.solves_ode else CLOSED_FORM_BUDGET
    width = max(1, min(problem.size, budget // rows))
    depth = max(1, min(len(u), budget // (rows * width)))
    none = np.zeros((depth, width, 0))

    def one(at: tuple[int, int]) -> Piece:
        d, s = at
        draws, subjects = slice(d, min(d + depth, len(u))), slice(s, min(s + width, problem.size))
        which = np.minimum(np.arange(d, d + depth), len(u) - 1)  # a last piece is filled up, so that all have one shape
        who = np.minimum(np.arange(s, s + width), problem.size - 1)
        part = jax.tree.map(lambda x: np.asarray(x)[who], problem.subjects)
        given = none if eta is None else eta[which[:, None], who]

        def computed(model: AbstractLatentModel) -> Any:
            run = _compiled(model, residual, eta is None)
            return run(key, first + which, u[which], problem.fixed, who, given, part)

        found = with_stiff_fallback(problem.model, computed, axes=2)
        count = draws.stop - draws.start, subjects.stop - subjects.start
        return Piece(draws, subjects, {name: v[: count[0], : count[1]] for name, v in found.items()})

    places = [(d, s) for d in range(0, len(u), depth) for s in range(0, problem.size, width)]
    yield from _in_threads(one, places)


def random_effects(problem: Problem, u: Float[np.ndarray, " p"], key: Array, draw: int, who: int) -> Float[np.ndarray, " q"]:
    """The new random effects that `pieces` gives a subject in a draw at u."""
    effects, _ = _keys(key, draw, who)
    root = problem.model.omega(problem.coordinates.theta(jnp.asarray(u), problem.fixed))
    return np.asarray(root @ jax.random.normal(effects, (problem.q,)))


def _keys(key: Array, draw: Any, who: Any) -> tuple[Array, Array]:
    """Of the random effects, and of the residual errors."""
    effects, noise = jax.random.split(jax.random.fold_in(jax.random.fold_in(key, draw), who))
    return effects, noise


def replicates(problem: Problem, u: Float[np.ndarray, " p"], draws: int, key: Array, residual: bool = True) -> dict[str, Any]:
    """Data sets of the problem's own design at theta(u), by endpoint (draws, N, n); `mask` says which rows count."""
    shape = (draws, *next(iter(problem.subjects.mask.values())).shape)
    found: dict[str, np.ndarray] = {}
    for piece in pieces(problem, np.tile(np.asarray(u, float), (draws, 1)), key, residual=residual):
        for name, values in piece.values.items():
            found.setdefault(name, np.empty(shape))[piece.draws, piece.subjects] = values
    return found


@program
def _compiled(model: AbstractLatentModel, residual: Any, anew: Any) -> Any:
    coordinates = Coordinates(model.parameters())
    q = len(model.eta_names())

    def one(key: Array, draw: Array, theta: Theta, root: Array, number: Array, eta: Array, subject: Any) -> dict[str, Array]:
        effects, noise = _keys(key, draw, number)
        if anew:
            eta = root @ jax.random.normal(effects, (q,))
        sites = model.observe(theta, eta, subject)
        rows = next(iter(subject.mask.values())).shape
        if not residual:
            return {name: jnp.broadcast_to(mean_of(d), rows) for name, d in sites.items()}
        return {name: _sample(d, jax.random.fold_in(noise, i), rows) for i, (name, d) in enumerate(sites.items())}

    def draw(key: Array, number: Array, u: Array, fixed: Theta, who: Array, eta: Array, subjects: Any) -> dict[str, Array]:
        theta = coordinates.theta(u, fixed)
        root = model.omega(theta)
        return jax.vmap(lambda i, e, s: one(key, number, theta, root, i, e, s))(who, eta, subjects)

    return compiled(jax.vmap(draw, in_axes=(None, 0, 0, None, None, 0, None)))


def _sample(distribution: Distribution, key: Array, shape: tuple[int, ...]) -> Array:
    extra = () if distribution.batch_shape == shape else shape
    return jnp.asarray(distribution.sample(key, extra), float)


def _in_threads(function: Callable[[Any], Piece], places: list[Any]) -> Iterator[Piece]:
    """The results in order, computed side by side and no further ahead than the cores need."""
    ahead = 2 * cores()
    with ThreadPoolExecutor(cores(), thread_name_prefix="nlmefit") as pool:
        waiting = [pool.submit(function, place) for place in places[:ahead]]
        for k in range(len(places)):
            found = waiting[k % ahead].result()
            if k + ahead < len(places):
                waiting[k % ahead] = pool.submit(function, places[k + ahead])
            yield found
