"""Estimates of a model that knows the maximum of its likelihood: nothing is searched for, and no method need approximate.

The derivatives at the maximum are exact, too. Those of the whole likelihood are taken of its sufficient statistics, so that R,
and with it the standard errors, costs the same however many subjects there are.
"""

import time
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from nlmefit.core.backend import compiled
from nlmefit.core.typing import Scalar, Theta
from nlmefit.estimate.coordinates import Coordinates
from nlmefit.estimate.method import Found
from nlmefit.estimate.modes.objective import MarginalMethod
from nlmefit.estimate.posterior import Gaussian
from nlmefit.estimate.problem import Problem
from nlmefit.estimate.spectrum import smallest, spectrum
from nlmefit.estimate.standard_errors import Uncertainty, covariance, culprits
from nlmefit.estimate.status import WORTHWHILE, Status
from nlmefit.latent.model import AbstractExact, AbstractLatentModel
from nlmefit.latent.programs import program

MOST = 3000
"""Parameters up to which standard errors are computed: their matrices hold the square of that."""


class Programs(NamedTuple):
    """-2 log L and its derivatives in u, compiled."""

    values: Any
    """By subject."""
    slopes: Any
    """Their gradients, by subject."""
    slope: Any
    """Of the sum."""
    curvature: Any


@program
def _programs(model: AbstractLatentModel) -> Programs:
    assert isinstance(model, AbstractExact)
    coordinates = Coordinates(model.parameters())

    def one(u: Array, fixed: Theta, subject: Any) -> Scalar:
        return -2.0 * model.log_marginal(coordinates.theta(u, fixed), subject)

    def total(u: Array, fixed: Theta, statistics: Any) -> Scalar:
        return -2.0 * model.log_likelihood(coordinates.theta(u, fixed), statistics)

    return Programs(
        compiled(jax.vmap(one, in_axes=(None, None, 0))),
        compiled(jax.vmap(jax.grad(one), in_axes=(None, None, 0))),
        compiled(jax.grad(total)),
        compiled(jax.hessian(total)),
    )


def maximize(problem: Problem, method: MarginalMethod) -> Found:
    """The maximum, with its status and standard errors. Raises DataError where there is none."""
    began = time.perf_counter()
    model = problem.model
    assert isinstance(model, AbstractExact)
    theta, doubts = model.maximum(problem.subjects)
    u = problem.coordinates.vector(theta)
    run, statistics = _programs(model), model.statistics(problem.subjects)
    slope = np.asarray(run.slope(u, problem.fixed, statistics))
    small = len(u) <= MOST
    hessian = np.asarray(run.curvature(u, problem.fixed, statistics)) if small else None
    found = _answer(problem, method, u, _status(slope, hessian, doubts, problem.coordinates.names))
    found.notes = {**found.notes, "maximum": "in closed form, nothing searched for"}
    if hessian is None:
        found.notes = {**found.notes, "standard errors": f"none of {len(u)} parameters: over {MOST}, the matrices are too large"}
    elif method.covariance != "none":
        found.uncertainty = _uncertainty(problem, method, u, hessian, found.z)
    found.history = [{"iteration": 0, "objective": float(found.value.sum())}]
    found.seconds = {"fit": time.perf_counter() - began}
    return found


def evaluate(problem: Problem, method: MarginalMethod) -> Found:
    """The likelihood at the model's own values."""
    status = Status("evaluated", ("at the given values, nothing estimated.",))
    return _answer(problem, method, problem.coordinates.start(), status)


def _answer(problem: Problem, method: MarginalMethod, u: Float[np.ndarray, "p"], status: Status) -> Found:
    model = problem.model
    assert isinstance(model, AbstractExact)
    theta = {name: np.asarray(value) for name, value in problem.coordinates.theta(jnp.asarray(u), problem.fixed).items()}
    z, precision = model.conditional(theta, problem.subjects)  # type: ignore[arg-type]
    return Found(
        u=u,
        z=z,
        posterior=Gaussian.at_mode(z, precision),
        value=np.asarray(_programs(model).values(u, problem.fixed, problem.subjects)),
        status=status,
        kind=method.kind,
        converged=np.ones(problem.size, bool),
        iterations=np.zeros(problem.size, int),
        notes=dict(method.notes),
    )


def _status(
    slope: Float[np.ndarray, "p"], hessian: Float[np.ndarray, "p p"] | None, doubts: tuple[str, ...], names: tuple[str, ...]
) -> Status:
    """Converged where a Newton step in the directions that the data determine has nothing to gain."""
    if doubts:
        return Status("uncertain", doubts)
    said = f"the maximum in closed form, gradient norm {np.linalg.norm(slope):.1e}."
    if hessian is None:
        return Status("converged", (said,))
    unique = smallest(hessian) > 1e-8
    gain = float(0.5 * slope @ np.linalg.solve(hessian, slope)) if unique else _gain(slope, hessian)
    if gain > WORTHWHILE:
        return Status("uncertain", (f"One more Newton step promises to lower the objective by {gain:.2g}.",))
    if not unique:
        return Status("converged", (said, f"The data do not determine all parameters ({culprits(hessian, names)})."))
    return Status("converged", (said,))


def _gain(slope: Float[np.ndarray, "p"], hessian: Float[np.ndarray, "p p"]) -> float:
    """What a Newton step would gain in the directions that the data determine."""
    R = spectrum(hessian)
    determined = R.values > 1e-8
    along = (R.vectors.T @ (slope / R.scale))[determined]
    return float(0.5 * np.sum(along**2 / R.values[determined]))


def _uncertainty(problem: Problem, method: MarginalMethod, u: np.ndarray, hessian: np.ndarray, z: np.ndarray) -> Uncertainty:
    run = _programs(problem.model)
    by_subject = np.asarray(run.slopes(u, problem.fixed, problem.subjects))
    return covariance(method.covariance, hessian, by_subject, problem.final(u, z).slope, problem.coordinates.names)
