"""Variational inference with its own posterior for each subject (Jordan, Ghahramani, Jaakkola and Saul 1999).

    log p(y_i | theta) >= E_xi[ log p(y_i, z | theta) + log|det dT/dxi| ] + q/2 (1 + log 2 pi),   z = T(xi; phi_i),  xi ~ N(0, I)

The expectation is taken over fixed points xi whose first two moments are exact, so that the bound is a smooth function of phi
and theta with nothing random in it, and exact where p(y, z) is linear-Gaussian. Each phi_i is driven to its optimum at every
theta; there the bound's gradient in theta is the partial one (the envelope theorem), and the joint optimum is found by the same
search as FOCE's.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, final

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from scipy.special import logsumexp

from nlmefit.core.backend import compiled
from nlmefit.core.errors import MethodError
from nlmefit.core.options import check_truth
from nlmefit.core.typing import Scalar, Theta
from nlmefit.estimate.coordinates import Coordinates
from nlmefit.estimate.density import Sites, log_joint
from nlmefit.estimate.method import Found, Kind, Reporter
from nlmefit.estimate.modes.empirical_bayes import Mode, Start, expand, find_mode
from nlmefit.estimate.modes.marginal_likelihood import AbstractMarginalLikelihood, check_covariance
from nlmefit.estimate.modes.objective import Contributions, Objective
from nlmefit.estimate.modes.subject_modes import posterior_mode
from nlmefit.estimate.posterior import AbstractPosterior, Gaussian
from nlmefit.estimate.problem import Problem
from nlmefit.estimate.random_numbers import generator, matched
from nlmefit.estimate.random_numbers import log_density as standard_log_density
from nlmefit.estimate.referee.importance import Drawn, joint_in_blocks
from nlmefit.estimate.standard_errors import Covariance
from nlmefit.estimate.status import Status
from nlmefit.estimate.variational.families import AbstractFamily, Frame, FullRank
from nlmefit.estimate.variational.vi_alternating import alternate
from nlmefit.latent.model import AbstractLatentModel

DEFAULT = FullRank()
FRESH = 2000
"""Independent draws per subject of the bound that is reported."""
OVERFITTED, OVERFITTED_EACH = 1.0, 0.1
"""What the log-likelihood's bound may lose on them: in all, or per subject where that is more."""
MOST = 1024
"""Points up to which the search is repeated with four times as many, where they had been fitted too closely."""


@final
@dataclass(frozen=True)
class VI(AbstractMarginalLikelihood):
    """Variational inference, subject by subject. The objective is a bound: log p(y | theta) is larger by the sum of the subjects'
    KL(q_i | posterior).

    **Arguments:** `family` of the q_i: `nm.FullRank()`, `nm.MeanField()` or `nm.TriangularFlow(units=3)`; `draws` points per
    subject over which the bound is averaged in the search, None for the family's number (64 for a normal; 1000 for a flow, which
    has more numbers phi_i to fit to them) and up to 1024 where the q_i are fitted to so few too
    closely; `weighted=K` reports, at the optimum, the tighter bound of K importance-weighted draws (Burda, Grosse and
    Salakhutdinov 2016); `alternating` begins with steps in all phi_i and in theta in turn, none of which lowers the bound, before
    the joint search; `covariance` as for `FOCE`, from the bound. Raises MethodError for other values.

    What the search maximizes is a fit to its own points; the bound that is reported is averaged anew over 2000 independent draws
    per subject, with its Monte Carlo error (0 where q_i is the posterior itself). Where it is lower by more than 0.1 per
    subject (and 1 in all), the q_i are fitted to the points rather than to the posteriors: the search goes on with four times as
    many, or, where `draws` is given or 1024 did not suffice, the status says so.
    """

    family: AbstractFamily = DEFAULT
    draws: int | None = None
    weighted: int = 1
    alternating: bool = False
    covariance: Covariance = "sandwich"

    def __post_init__(self) -> None:
        check_covariance(self.covariance)
        check_truth("alternating", self.alternating)
        if not isinstance(self.family, AbstractFamily):
            raise MethodError(f"family must be nm.FullRank(), nm.MeanField() or nm.TriangularFlow(...), got {self.family!r}.")
        draws = self._draws
        if isinstance(draws, bool) or not isinstance(draws, int) or draws < 4 or draws % 2:
            raise MethodError(f"draws must be an even whole number from 4 up, or None, got {self.draws!r}.")
        if isinstance(self.weighted, bool) or not isinstance(self.weighted, int) or not 1 <= self.weighted <= FRESH // 2:
            raise MethodError(f"weighted must be a whole number from 1 to {FRESH // 2}, got {self.weighted!r}.")

    @property
    def _draws(self) -> int:
        return self.family.draws if self.draws is None else self.draws

    @property
    def name(self) -> str:
        return f"variational inference, {self.family.name}"

    @property
    def kind(self) -> Kind:
        return "bound"

    @property
    def notes(self) -> dict[str, str]:
        how = f" of {self.weighted} importance-weighted draws" if self.weighted > 1 else ""
        return {"objective": f"a lower bound of log p(y){how}; nm.log_marginal tells its gap"}

    def find(self, problem: Problem, progress: Reporter, key: Array) -> Found:
        method, (found, lost) = self, self._search(problem, progress, key)
        while self.draws is None and lost > _allowed(problem) and found.status.state == "uncertain" and 4 * method._draws <= MOST:
            method = replace(method, draws=4 * method._draws, alternating=False)
            earlier = found
            found, lost = method._search(problem.restarted(found.u), progress, key)
            found = _continued(found, earlier.history, earlier.seconds)
            found.notes = {**found.notes, "points": f"{method._draws} per subject: fewer were fitted too closely"}
        return found

    def _search(self, problem: Problem, progress: Reporter, key: Array) -> tuple[Found, float]:
        """The answer, and what its bound loses at fresh draws."""
        if not self.alternating:
            return self._valued(problem, super().find(problem, progress, key), key)
        began = time.perf_counter()
        u, bounds = alternate(problem, partial(self._points_at, problem), progress)
        steps = time.perf_counter() - began
        found, lost = self._valued(problem, super().find(problem.restarted(u), progress, key), key)
        earlier = [{"iteration": k, "objective": -2 * bound} for k, bound in enumerate(bounds)]
        return _continued(found, earlier, {"alternating steps": steps}), lost

    def _points_at(self, problem: Problem, u: np.ndarray) -> tuple[Float[np.ndarray, "K N q"], float]:
        """The points of every subject's optimal q_i at u, and the bound over them."""
        found = Objective(problem, self).contributions(u)
        xi = np.repeat(matched(self._draws, problem.q)[:, None], problem.size, axis=1)
        return Variational.of(self.family, found).mapped(xi).points, -0.5 * float(found.value.sum())

    def evaluate(self, problem: Problem, key: Array) -> Found:
        return self._valued(problem, super().evaluate(problem, key), key)[0]

    def _valued(self, problem: Problem, found: Found, key: Array) -> tuple[Found, float]:
        """The answer with the bound at fresh draws, and what that is lower by."""
        assert isinstance(found.posterior, Variational)
        drawn = found.posterior.drawn(key, FRESH - FRESH % self.weighted)
        log = joint_in_blocks(problem, found.u, drawn.points) - drawn.log_density
        grouped = log.reshape(self.weighted, -1, problem.size)
        terms = logsumexp(grouped, axis=0) - np.log(self.weighted)
        lost = -0.5 * float(np.sum(found.value)) - float(np.sum(log.mean(axis=0)))
        if not lost <= _allowed(problem) and found.status:
            said = (
                f"The bound over fresh draws is {lost:.2g} lower than over the {self._draws} points that the q_i were fitted to"
            )
            found.status = Status("uncertain", (f"{said}: give more, draws={4 * self._draws}.",))
        found.value = -2.0 * terms.mean(axis=0)
        found.error = 2.0 * terms.std(axis=0, ddof=1) / np.sqrt(len(terms))
        return found, lost

    def subject_contribution(
        self, model: AbstractLatentModel, coordinates: Coordinates, u: Array, fixed: Theta, start: Start, subject: Any
    ) -> Contributions:
        theta = coordinates.theta(u, fixed)
        sites = Sites(model, theta, model.omega(theta), subject)
        q = start.z.shape[0]
        if q == 0:
            mode = posterior_mode(sites, start)
            frame, best, points = Frame(start.z, jnp.zeros((0, 0)), jnp.zeros(())), mode, jnp.zeros((1, 0))
        else:
            mode = posterior_mode(sites, start)
            frame = self.family.frame(mode.z, mode.hessian)
            xi = jnp.asarray(matched(self._draws, q))
            best = _optimum(self.family, sites, frame, xi)
            points = _points(self.family, frame, best.z, xi)[0]

        def bound(u: Array) -> Scalar:
            theta = coordinates.theta(u, fixed)
            moved = Sites(model, theta, model.omega(theta), subject)
            return jnp.mean(jax.vmap(lambda z: log_joint(moved.taylor_expanded(z, 1), z))(points))

        slope = jax.jacfwd(bound)(u)
        mean = jnp.mean(points, axis=0)
        spread = (points - mean).T @ (points - mean) / points.shape[0]
        return Contributions(
            2.0 * best.value,
            -2.0 * slope,
            mean,
            jnp.zeros((q, u.shape[0])),
            best.value,
            jnp.linalg.inv(spread) if q else spread,
            mode.converged & best.converged,
            mode.iterations + best.iterations,
            mode.failures + best.failures,
            jnp.concatenate([frame.center, frame.scale.ravel(), best.z if q else jnp.zeros(0)]),
        )

    def posterior(self, found: Contributions) -> AbstractPosterior:
        return Variational.of(self.family, found)


def _allowed(problem: Problem) -> float:
    """What the bound may lose at fresh draws."""
    return max(OVERFITTED, OVERFITTED_EACH * problem.size)


def _continued(found: Found, history: list[dict[str, Any]], seconds: Mapping[str, float]) -> Found:
    """The answer of a search that went on from an earlier one."""
    first = 1 + max((row["iteration"] for row in history), default=-1)
    found.history = history + [row | {"iteration": row["iteration"] + first} for row in found.history]
    found.seconds = {name: seconds.get(name, 0.0) + found.seconds.get(name, 0.0) for name in {**seconds, **found.seconds}}
    return found


def _points(
    family: AbstractFamily, frame: Frame, phi: Array, xi: Float[Array, "K q"]
) -> tuple[Float[Array, "K q"], Float[Array, " K"]]:
    """z = T(xi; phi) and log|det dT/dxi|."""
    t, log_volume = jax.vmap(partial(family.transform, phi))(xi)
    return frame.center + t @ frame.scale.T, log_volume + frame.log_volume


def _optimum(family: AbstractFamily, sites: Sites, frame: Frame, xi: Float[Array, "K q"]) -> Mode:
    """phi at the largest bound (as `Mode.z`), whose negative is `Mode.value`.

    The density's value, gradient and Hessian H at each point make those of the bound: with J = dz/dphi and v = dlog|det|/dphi its
    Hessian is mean_k (J' H J - v v'), exact for maps linear in phi and Gauss and Newton's for others.
    """
    q = xi.shape[1]
    entropy = 0.5 * q * (1 + jnp.log(2 * jnp.pi))

    def expanded(phi: Array) -> tuple[Scalar, Array, Array]:
        points, log_volume = _points(family, frame, phi, xi)
        value, slope, curvature = jax.vmap(lambda z: expand(partial(log_joint, sites.taylor_expanded(z, 2)), z))(points)
        moved, widened = jax.jacfwd(partial(_points, family, frame), argnums=0)(phi, xi)
        size = xi.shape[0]
        return (
            -jnp.mean(value + log_volume) - entropy,
            -jnp.mean(widened, axis=0) - jnp.einsum("kqv,kq->v", moved, slope) / size,
            (widened.T @ widened - jnp.einsum("kqv,kqr,krw->vw", moved, curvature, moved)) / size,
        )

    start = jnp.zeros(family.size(q))
    return find_mode(lambda phi: expanded(phi)[0], start, expanded=expanded)


@final
@dataclass(frozen=True)
class Variational(AbstractPosterior):
    """The optimal q_i of each subject."""

    family: AbstractFamily
    center: Float[np.ndarray, "N q"]
    scale: Float[np.ndarray, "N q q"]
    phi: Float[np.ndarray, "N v"]
    spread: Float[np.ndarray, "N q q"]

    @classmethod
    def of(cls, family: AbstractFamily, found: Contributions) -> "Variational":
        q = found.z.shape[1]
        center, scale, phi = np.split(found.learned, [q, q + q * q], axis=1)
        return cls(family, center, scale.reshape(-1, q, q), phi, Gaussian.at_mode(found.z, found.hessian).spread)

    @property
    def covariance(self) -> Float[np.ndarray, "N q q"]:
        return self.spread

    def draws(self, key: Array, count: int) -> Float[np.ndarray, "count N q"]:
        return self.drawn(key, count).points

    def drawn(self, key: Array, count: int) -> Drawn:
        """Draws by subject with their log density."""
        return self.mapped(generator(key).standard_normal((count, *self.center.shape)))

    def mapped(self, xi: Float[np.ndarray, "K N q"]) -> Drawn:
        """z = T(xi; phi_i) with its log density, where xi are standard normal."""
        if xi.shape[-1] == 0:
            return Drawn(xi, np.zeros(xi.shape[:-1]))
        each = jax.vmap(jax.vmap(self.family.transform, in_axes=(None, 0)), in_axes=(0, 1), out_axes=1)
        t, log_volume = (np.asarray(x) for x in compiled(each)(self.phi, xi))
        log_density = standard_log_density(xi, np.inf) - log_volume - np.linalg.slogdet(self.scale)[1]
        return Drawn(self.center + np.einsum("nij,knj->kni", self.scale, t), log_density)
