"""What the EM algorithms share: derivatives of the complete-data likelihood, its maximization, and Louis' information.

With phi_i = mu_i(theta) + eta_i, the complete-data likelihood falls into two parts:

    log p(y, phi; theta) = sum_i log p(y_i | phi_i; theta_D) + sum_i log N(phi_i; mu_i(theta_P), Omega(theta_P))

theta_P (typical values, covariate coefficients, omegas: `AbstractLatentModel.centred`) is maximized from the first two moments of
phi alone, exactly; theta_D (residual sds, parameters without random effect, networks) by Newton steps. Nothing is a random effect
that the model does not declare as one.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from nlmefit.core.backend import compiled
from nlmefit.core.errors import MethodError
from nlmefit.core.typing import Scalar, Theta
from nlmefit.estimate.coordinates import Coordinates
from nlmefit.estimate.density import Sites
from nlmefit.estimate.modes.empirical_bayes import expand, find_mode
from nlmefit.estimate.problem import Problem
from nlmefit.estimate.spectrum import spectrum
from nlmefit.latent.model import AbstractLatentModel
from nlmefit.latent.program import log_likelihood
from nlmefit.latent.programs import program

LONGEST = 1.0
"""A step of a coordinate of theta_D never exceeds this (they are logs, mostly)."""


class Expected(NamedTuple):
    """Means over weighted points, by subject (N, ...), at some u."""

    first: Any
    """E[phi] (q,)."""
    second: Any
    """E[phi phi'] (q, q)."""
    score: Any
    """E[s], s = d log p(y, phi; u) / du (p,): the gradient of log p(y; u) (Fisher's identity)."""
    curvature: Any
    """-E[d2 log p(y, phi; u) / du du'] (p, p)."""
    crossed: Any
    """E[s s'] (p, p)."""

    @property
    def information(self) -> Any:
        """-d2 log p(y_i; u) / du du' (Louis 1982)."""
        return self.curvature - self.crossed + self.score[:, :, None] * self.score[:, None, :]


def check_scores(problem: Problem, method: str) -> None:
    """MethodError where random effects are a flow's: given the scores, precise records say almost all about its weights, and the
    steps of EM get as short as that information is large."""
    scores = problem.model.scores()
    if scores:
        raise MethodError(
            f"{method} would learn the flow of {', '.join(scores)} (nm.Flow) so slowly that its answer could not be trusted. "
            "Use nm.Laplace(), nm.Quadrature(...), nm.VI() or nm.NUTS(); nm.log_marginal judges them all."
        )


def population_coordinates(problem: Problem) -> Bool[np.ndarray, "p"]:
    """Which coordinates belong to theta_P."""
    own = set(problem.model.centred(problem.subjects))
    return np.array([name.split("[")[0] in own for name in problem.coordinates.names], bool)


def expected(problem: Problem, u: np.ndarray, points: Float[np.ndarray, "K N q"], weights: Float[np.ndarray, "K N"]) -> Expected:
    """Means over points z of every subject, with weights of sum 1."""
    run = _expected(problem.model, tuple(population_coordinates(problem)))
    at, fixed = np.asarray(u), problem.fixed
    starts = np.concatenate([np.moveaxis(points, 0, 1), weights.T[:, :, None]], axis=2)
    return Expected(*problem.batches.map(lambda x, s: run(at, fixed, x, s), starts))


@program
def _expected(model: AbstractLatentModel, mask: Any) -> Any:
    coordinates = Coordinates(model.parameters())
    own = np.array(mask, bool)

    def one(u: Array, fixed: Theta, points: Array, subject: Any) -> tuple[Array, ...]:
        theta = coordinates.theta(u, fixed)
        root, mu = model.omega(theta), model.centre(theta, subject)
        z, weight = points[:, :-1], points[:, -1]
        phi = mu + z @ root.T

        def data(part: Array, z: Array) -> Scalar:
            sites = Sites(model, _joined(coordinates, own, u, part, fixed), root, subject)
            return log_likelihood(sites(z))

        def population(part: Array, phi: Array) -> Scalar:
            theta = coordinates.theta(u.at[own.nonzero()[0]].set(part), fixed)
            return _log_normal(phi - model.centre(theta, subject), model.omega(theta))

        p, size = u.shape[0], z.shape[0]
        score, hessian = jnp.zeros((size, p)), jnp.zeros((p, p))
        for function, chosen, x in ((data, ~own, z), (population, own, phi)):
            place = chosen.nonzero()[0]
            if len(place) == 0:
                continue
            _, g, h = jax.vmap(lambda x, f=function, at=u[place]: expand(lambda part: f(part, x), at))(x)
            score = score.at[:, place].set(g)
            hessian = hessian.at[np.ix_(place, place)].set(jnp.tensordot(weight, h, 1))
        return (
            weight @ phi,
            jnp.einsum("k,ki,kj->ij", weight, phi, phi),
            weight @ score,
            -hessian,
            jnp.einsum("k,ki,kj->ij", weight, score, score),
        )

    return compiled(jax.vmap(one, in_axes=(None, None, 0, 0)))


def _joined(coordinates: Coordinates, own: np.ndarray, u: Array, part: Array, fixed: Theta) -> Theta:
    """theta with theta_D from `part`; theta_P carries no derivative at all, so that what depends on it alone costs none."""
    moved = coordinates.theta(u.at[(~own).nonzero()[0]].set(part), fixed)
    still = coordinates.theta(u, fixed)
    names = {name.split("[")[0] for name, mine in zip(coordinates.names, own, strict=True) if not mine}
    return {name: moved[name] if name in names else still[name] for name in still}


def _log_normal(eta: Float[Array, "q"], root: Float[Array, "q q"]) -> Scalar:
    white = jax.scipy.linalg.solve_triangular(root, eta, lower=True) if eta.shape[0] else eta
    return -0.5 * (white @ white) - jnp.sum(jnp.log(jnp.diag(root))) - 0.5 * eta.shape[0] * jnp.log(2 * jnp.pi)


def frame(problem: Problem, u: np.ndarray) -> tuple[Float[np.ndarray, "N q"], Float[np.ndarray, "q q"]]:
    """mu_i of every subject and Omega's Cholesky factor: phi_i = mu_i + root z_i."""
    mu, root = _frame(problem.model)(np.asarray(u), problem.fixed, problem.subjects)
    return np.asarray(mu), np.asarray(root)


@program
def _frame(model: AbstractLatentModel) -> Any:
    coordinates = Coordinates(model.parameters())

    def run(u: Array, fixed: Theta, subjects: Any) -> tuple[Array, Array]:
        theta = coordinates.theta(u, fixed)
        return jax.vmap(lambda s: model.centre(theta, s))(subjects), model.omega(theta)

    return compiled(run)


def maximize_population(
    problem: Problem, u: np.ndarray, first: Float[np.ndarray, "N q"], second: Float[np.ndarray, "q q"]
) -> np.ndarray:
    """u with theta_P at the maximum of sum_i log N(phi_i; mu_i, Omega), from E[phi_i] and sum_i E[phi_i phi_i'].

    Newton's method on a function of these moments: the closed forms where there are any (Omega = mean of (phi - mu)(phi - mu)',
    coefficients by generalized least squares), and what they turn into where values are fixed or shared.
    """
    mask = population_coordinates(problem)
    if not mask.any():
        return u
    run = _population(problem.model, tuple(mask))
    found, good = run(np.asarray(u), problem.fixed, first, second, problem.subjects)
    return np.asarray(found) if bool(good) else u


@program
def _population(model: AbstractLatentModel, mask: Any) -> Any:
    coordinates = Coordinates(model.parameters())
    place = np.flatnonzero(mask)

    def run(u: Array, fixed: Theta, first: Array, second: Array, subjects: Any) -> tuple[Array, Array]:
        size = first.shape[0]

        def objective(part: Array) -> Scalar:
            theta = coordinates.theta(u.at[place].set(part), fixed)
            mu = jax.vmap(lambda s: model.centre(theta, s))(subjects)
            crossed = first.T @ mu
            left = second - crossed - crossed.T + mu.T @ mu
            root = model.omega(theta)
            white = jax.scipy.linalg.solve_triangular(root, left, lower=True)
            white = jax.scipy.linalg.solve_triangular(root, white.T, lower=True)
            return 0.5 * jnp.trace(white) + size * jnp.sum(jnp.log(jnp.diag(root)))

        mode = find_mode(objective, u[place])
        return u.at[place].set(mode.z), jnp.isfinite(mode.value)

    return compiled(run)


def newton(problem: Problem, u: np.ndarray, score: Float[np.ndarray, "p"], curvature: Float[np.ndarray, "p p"]) -> np.ndarray:
    """u after a Newton step of theta_D; along directions of no or negative curvature by its size."""
    place = np.flatnonzero(~population_coordinates(problem))
    if len(place) == 0:
        return u
    known = spectrum(curvature[np.ix_(place, place)])
    sizes = np.maximum(np.abs(known.values), 1e-8 * max(np.max(np.abs(known.values)), 1e-300))
    step = known.vectors @ ((known.vectors.T @ (score[place] / known.scale)) / sizes) / known.scale
    step *= min(1.0, LONGEST / max(np.max(np.abs(step)), 1e-300))
    result = np.array(u, float)
    result[place] += step
    return result


def stationary(visited: list[np.ndarray], window: int, independent: float, small: Any = 1e-6) -> bool:
    """Whether the mean of the last `window` estimates differs from that of those before by less than two standard errors,
    `independent` of the estimates in a window counting as such, or by less than what is `small`."""
    if len(visited) < 2 * window:
        return False
    before, after = np.array(visited[-2 * window : -window]), np.array(visited[-window:])
    error = np.sqrt((before.var(axis=0) + after.var(axis=0)) / independent)
    return bool(np.all(np.abs(after.mean(axis=0) - before.mean(axis=0)) < np.maximum(2 * error, small)))
