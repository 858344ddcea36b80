"""One step ahead: p(y_ij | y_i1, ..., y_i,j-1, theta), observation by observation (Dawid 1984, the prequential approach)."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float
from scipy.special import ndtr

from nlmefit.core.backend import compiled
from nlmefit.core.errors import MethodError
from nlmefit.core.typing import Theta
from nlmefit.estimate import random_numbers
from nlmefit.estimate.coordinates import Coordinates
from nlmefit.estimate.density import Sites
from nlmefit.estimate.method import Reporter
from nlmefit.estimate.modes.laplace import Laplace
from nlmefit.estimate.modes.subject_modes import modes
from nlmefit.estimate.observations import Order, Steps, mean, places, rows, through, variance
from nlmefit.estimate.problem import Problem
from nlmefit.estimate.referee.sequential_importance import SequentialImportance, by_importance
from nlmefit.latent.model import AbstractLatentModel
from nlmefit.latent.programs import program

Forecaster = SequentialImportance | Laplace
DEFAULT = SequentialImportance()


def one_step_ahead(
    problem: Problem, u: np.ndarray, method: Forecaster, order: Order, scored: Bool[np.ndarray, " M"], key: Array, line: Reporter
) -> dict[str, Float[np.ndarray, " M"]]:
    """By observation, the fields of `Steps`; only those `scored` need be good."""
    if isinstance(method, Laplace):
        if not method.interaction:
            raise MethodError("one step ahead reads the density of the observations itself; use nm.Laplace().")
        steps = _by_laplace(problem, u, order, int(order.place[scored].min()), line)
        return _long(steps, order)
    if not isinstance(method, SequentialImportance):
        raise MethodError(f"the method must be nm.SequentialImportance(draws=...) or nm.Laplace(), got {method!r}.")
    drawing, randomising = jax.random.split(key)
    found = _long(by_importance(problem, u, method.draws, order, scored, random_numbers.generator(drawing), line), order)
    interval = _discrete(problem, u, order.sites)[order.site] | _censored(problem, order)
    part = random_numbers.generator(randomising).uniform(size=len(order.place)) * interval
    return found | {"pit": np.clip(found["pit"] - part * np.exp(found["log_predictive"]), 0.0, 1.0)}


def _long(steps: Steps, order: Order) -> dict[str, Float[np.ndarray, " M"]]:
    return {name: np.asarray(values)[order.subject, order.place] for name, values in steps._asdict().items()}


def _discrete(problem: Problem, u: np.ndarray, sites: tuple[str, ...]) -> Bool[np.ndarray, " S"]:
    found: dict[str, bool] = {}

    def look(u: Array, subject: Any) -> None:
        theta = problem.coordinates.theta(u, problem.fixed)
        observed = problem.model.observe(theta, jnp.zeros(problem.q), subject)
        found.update({name: bool(d.is_discrete) for name, d in observed.items()})

    jax.eval_shape(look, np.asarray(u), jax.tree.map(lambda x: x[0], problem.subjects))
    return np.array([found[name] for name in sites])


def _censored(problem: Problem, order: Order) -> Bool[np.ndarray, " M"]:
    """Which observations are known by an interval only, whose P(Y <= y) is that of its upper end."""
    found = np.zeros(len(order.place), bool)
    for name, marked in getattr(problem.subjects, "censoring", {}).items():
        here = order.site == order.sites.index(name)
        found[here] = np.asarray(marked.flag)[order.subject[here], order.row[here]] != 0
    return found


def _by_laplace(problem: Problem, u: np.ndarray, order: Order, first: int, line: Reporter) -> Steps:
    """log p(y_i1..y_ij) - log p(y_i1..y_i,j-1), each by Laplace, from place `first` on; the predictive distribution is normal,
    with the mean and variance of the model linearized around the mode given the observations before:

        mean f(z*),   variance V(z*) + J H^-1 J',   J = df/dz
    """
    size, most = problem.size, order.most
    log_joint = np.full((size, most + 1), np.nan)
    center, sd = np.full((size, most), np.nan), np.full((size, most), np.nan)
    run, at = _linearized(problem.model, most), np.asarray(u)
    for j in range(first, most + 1):
        line.stage(f"modes given {j} of {most} observations")
        found = modes(through(problem, order, j), u)
        log_joint[:, j] = -0.5 * found.value
        if j < most:
            packed = np.concatenate([found.z[..., None], found.hessian], axis=-1)
            moments = problem.batches.map(lambda x, s, j=j: run(at, problem.fixed, j, x, s), packed)  # type: ignore[misc]
            center[:, j], sd[:, j] = moments
    observed = np.zeros((size, most))
    observed[order.subject, order.place] = order.observed
    nothing = np.full((size, most), np.nan)
    return Steps(np.diff(log_joint, axis=1), center, sd, ndtr((observed - center) / sd), np.zeros((size, most)), nothing)


@program
def _linearized(model: AbstractLatentModel, most: Any) -> Any:
    coordinates = Coordinates(model.parameters())

    def one(theta: Theta, root: Array, place: Array, packed: Array, subject: Any) -> tuple[Array, Array]:
        """Mean and standard deviation of the observation at `place`, z | y before ~ N(z*, H^-1)."""
        z, hessian = packed[:, 0], packed[:, 1:]
        sites = Sites(model, theta, root, subject).taylor_expanded(z, 1)
        where = places(sites(z), most)[0][place]
        slope = jax.jacfwd(lambda z: rows(sites(z), mean)[where])(z)
        center, spread = (rows(sites(z), read)[where] for read in (mean, variance))
        return center, jnp.sqrt(spread + slope @ jnp.linalg.solve(hessian, slope))

    def batch(u: Array, fixed: Theta, place: Array, packed: Array, subjects: Any) -> tuple[Array, Array]:
        theta = coordinates.theta(u, fixed)
        root = model.omega(theta)
        return jax.vmap(lambda x, s: one(theta, root, place, x, s))(packed, subjects)

    return compiled(batch)
