"""The model linearized in the random effects, observation by observation."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from nlmefit.core.backend import compiled
from nlmefit.core.typing import Theta
from nlmefit.estimate.coordinates import Coordinates
from nlmefit.estimate.observations import Order, mean, places, rows, variance
from nlmefit.estimate.problem import Problem
from nlmefit.estimate.stiff_fallback import with_stiff_fallback
from nlmefit.latent.model import AbstractLatentModel
from nlmefit.latent.program import observed_sites
from nlmefit.latent.programs import program


class Linearized(NamedTuple):
    """f, V and df/deta of the M observations at some random effects of their subjects; NaN of families without such."""

    mean: Float[np.ndarray, " M"]
    variance: Float[np.ndarray, " M"]
    slope: Float[np.ndarray, "M q"]


def linearized(problem: Problem, u: Float[np.ndarray, " p"], eta: Float[np.ndarray, "N q"], order: Order) -> Linearized:
    """The observations' moments at theta(u) and `eta`."""
    at = np.asarray(u)

    def moments(model: AbstractLatentModel) -> list[np.ndarray]:
        run = _moments(model, order.most)
        return problem.batches.map(lambda e, s: run(at, problem.fixed, e, s), eta)

    found = with_stiff_fallback(problem.model, moments)
    return Linearized(*(values[order.subject, order.place] for values in found))


@program
def _moments(model: AbstractLatentModel, most: Any) -> Any:
    coordinates = Coordinates(model.parameters())

    def one(theta: Theta, eta: Array, subject: Any) -> tuple[Array, Array, Array]:
        local = model.taylor_expanded(theta, eta, subject, 1)

        def read(eta: Array) -> tuple[Array, tuple[Array, Array]]:
            sites = observed_sites(local, theta, jnp.eye(len(eta)), eta, subject)
            where = places(sites, most)[0]
            center, spread = (rows(sites, part)[where].astype(float) for part in (mean, variance))
            return center, (center, spread)

        if not len(eta):
            center, (_, spread) = read(eta)
            return center, spread, jnp.zeros((most, 0))
        slope, (center, spread) = jax.jacfwd(read, has_aux=True)(eta)
        return center, spread, slope

    def batch(u: Array, fixed: Theta, eta: Array, subjects: Any) -> tuple[Array, Array, Array]:
        theta = coordinates.theta(u, fixed)
        return jax.vmap(lambda e, s: one(theta, e, s))(eta, subjects)

    return compiled(batch)
