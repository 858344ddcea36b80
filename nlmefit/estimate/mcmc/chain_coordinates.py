"""The coordinates in which Markov chains move, and the posterior's energy there.

Population parameters v: logs of positive ones and so on. Random effects, either of

    non-centred   z_i, where eta_i = L(theta) z_i
    centred       w_i, where eta_i = m_i + B_i (v - v0) + C_i w_i

m_i is the mode of p(eta_i | y_i, theta) at the start values v0, C_i C_i' the inverse Hessian H_i there, and B_i = -H_i^-1 g_v the
way the mode goes with theta. With rich data w_i is about N(0, I) whatever theta, and a chain needs few steps; with poor data the
funnel between eta and its omega favours z (Betancourt and Girolami 2015). The map is affine: its Jacobian is a constant.
"""

from collections.abc import Callable
from functools import cached_property
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from numpyro.distributions import biject_to, constraints
from numpyro.infer.util import log_density

from nlmefit.core.backend import compiled
from nlmefit.core.typing import Scalar
from nlmefit.estimate.prior import within_prior
from nlmefit.estimate.problem import Problem
from nlmefit.latent.program import log_joint, population_program

EFFECTS = "random effects"
"""The chains' coordinates of the subjects, beside those of the parameters by name."""
RICH = 0.5
"""Random effects are centred where the data take away this part of each one's variance, on average over subjects."""

Position = dict[str, Any]


class Frame(NamedTuple):
    """eta_i = center_i + slope_i (v - origin) + root_i w_i."""

    origin: Float[np.ndarray, " p"]
    center: Float[np.ndarray, "N q"]
    slope: Float[np.ndarray, "N q p"]
    root: Float[np.ndarray, "N q q"]

    def eta(self, v: Any, w: Any) -> Any:
        return self.center + self.slope @ (v - self.origin) + jnp.einsum("nij,nj->ni", self.root, w)


class ChainPoint(NamedTuple):
    """Where a chain is, in the model's terms."""

    theta: dict[str, Any]
    root: Any
    z: Any
    log_jacobian: Any


class ChainCoordinates:
    """The map from a chain's position to theta and z. `centred` None: as the data at the start values suggest."""

    def __init__(self, problem: Problem, centred: bool | None, modes: Float[np.ndarray, "N q"]):
        self.problem, self.model = problem, problem.model
        parameters = problem.model.parameters()
        self.names = tuple(parameters)
        self.fixed = {name: jnp.asarray(p.start, float) for name, p in parameters.items() if p.fixed}
        self.parameters = {name: within_prior(p) for name, p in parameters.items() if not p.fixed}
        self._transforms = {name: biject_to(p.support) for name, p in self.parameters.items()}
        self.start = {n: np.asarray(t.inv(jnp.asarray(parameters[n].start, float))) for n, t in self._transforms.items()}
        self.size = sum(x.size for x in self.start.values())
        self.frame: Frame | None = None
        if centred is not False and problem.q > 0:
            frame, left = self._framed(modes)
            if centred or np.all(left < 1 - RICH):
                self.frame = frame

    @property
    def centred(self) -> bool:
        return self.frame is not None

    def near_start(self, offset: Float[np.ndarray, " k"]) -> Position:
        """The start moved by `offset`: in logs, logits and whitened random effects, or relative to itself where a parameter has
        no bounds."""
        result, place = {}, 0
        for name, x in self.start.items():
            scale = np.maximum(np.abs(x), 0.1) if self.parameters[name].support is constraints.real else 1.0
            result[name] = x + scale * offset[place : place + x.size].reshape(x.shape)
            place += x.size
        return result | {EFFECTS: offset[place:].reshape(self.problem.size, self.problem.q)}

    def point(self, position: Position) -> ChainPoint:
        """theta, Omega's root, z (N, q) and the log Jacobian of (theta, z) in the position (but for a constant)."""
        theta, jacobian = self._theta(position)
        root = self.model.omega(theta)
        if self.frame is None:
            return ChainPoint(theta, root, position[EFFECTS], jacobian)
        eta = self.frame.eta(self._vector(position), position[EFFECTS])
        jacobian -= self.problem.size * jnp.sum(jnp.log(jnp.diagonal(root)))  # of z = L^-1 eta
        return ChainPoint(theta, root, jax.scipy.linalg.solve_triangular(root, eta.T, lower=True).T, jacobian)

    @cached_property
    def reported(self) -> tuple[str, ...]:
        """Names of the model's reported scalars."""
        return tuple(self.model.report(self._theta(self.start)[0]))

    @cached_property
    def described(self) -> Callable[[Position], tuple[dict[str, Any], Any, Any, Any]]:
        """theta, the reported scalars, eta and z of positions (chains, draws, ...)."""

        def one(position: Position) -> tuple[dict[str, Any], Any, Any, Any]:
            at = self.point(position)
            return at.theta, self.model.reported(at.theta), at.z @ at.root.T, at.z

        return compiled(jax.vmap(jax.vmap(one)))

    def energy(self, subjects: Any) -> Any:
        """-log p(theta, eta, y) of the population program as a function of the position, Jacobian included."""
        program = population_program(self.model, subjects, self.problem.size)

        def at(position: Position) -> Scalar:
            found = self.point(position)
            sites = {name: found.theta[name] for name in self.parameters} | {"eta_base": found.z}
            return -(log_density(program, (), {}, sites)[0] + found.log_jacobian)

        return at

    def _theta(self, position: Position) -> tuple[dict[str, Any], Scalar]:
        theta, jacobian = dict(self.fixed), jnp.zeros(())
        for name, transform in self._transforms.items():
            theta[name] = transform(position[name])
            jacobian += jnp.sum(transform.log_abs_det_jacobian(position[name], theta[name]))
        return {name: theta[name] for name in self.names}, jacobian

    def _vector(self, position: Position) -> Any:
        return jnp.concatenate([jnp.zeros(0), *(jnp.ravel(position[name]) for name in self.parameters)])

    def _position(self, v: Array) -> Position:
        result, place = {}, 0
        for name, x in self.start.items():
            result[name] = v[place : place + x.size].reshape(x.shape)
            place += x.size
        return result

    def _framed(self, modes: Float[np.ndarray, "N q"]) -> tuple[Frame, Float[np.ndarray, " q"]]:
        """The frame around the modes at the start, and the part of each random effect's variance that the data leave. A subject
        whose Hessian is not positive definite there keeps Omega's root."""
        origin, p = np.asarray(self._vector(self.start)), self.size
        theta0 = self._theta(self.start)[0]
        root0 = self.model.omega(theta0)

        def derivatives(z: Array, subject: Any) -> tuple[Array, Array]:
            local = self.model.taylor_expanded(theta0, root0 @ z, subject, 2)

            def joint(x: Array) -> Scalar:
                theta = self._theta(self._position(x[:p]))[0]
                root = self.model.omega(theta)
                whitened = jax.scipy.linalg.solve_triangular(root, x[p:], lower=True)
                return -log_joint(local, theta, root, whitened, subject)

            second = jax.jacfwd(jax.grad(joint))(jnp.concatenate([origin, root0 @ z]))
            return second[p:, :p], second[p:, p:]

        cross, hessian = self.problem.batches.map(compiled(jax.vmap(derivatives)), modes)
        omega_root = np.asarray(root0)
        usable = np.all(np.isfinite(hessian), axis=(1, 2)) & np.all(np.isfinite(cross), axis=(1, 2))
        usable &= np.linalg.eigvalsh(np.where(usable[:, None, None], hessian, 0.0))[:, 0] > 0
        inverse = np.linalg.inv(np.where(usable[:, None, None], hessian, np.eye(self.problem.q)))
        slope = np.where(usable[:, None, None], -inverse @ cross, 0.0)
        inverse = np.where(usable[:, None, None], inverse, omega_root @ omega_root.T)
        used = self.model.used(self.problem.subjects, self.problem.size)
        kept = np.diagonal(inverse, axis1=1, axis2=2) / np.diag(omega_root @ omega_root.T)
        left = np.sum(np.where(used, kept, 0.0), axis=0) / np.maximum(used.sum(axis=0), 1)
        return Frame(origin, modes @ omega_root.T, slope, np.linalg.cholesky(inverse)), left
