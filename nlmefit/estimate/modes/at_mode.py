"""Methods that approximate the marginal likelihood at the mode of p(z | y_i, theta): FO, FOCE, Laplace, quadrature.

A method says, for one subject at given theta, which function of z its inner problem minimizes and what it then takes for
-2 log p(y_i | theta). The rest is written once. With mode z*(u), where g(u, z*) = d inner / dz = 0, and contribution F(u, z):

    dF/du = F_u - F_z  (g_z)^-1  g_u

Nothing differentiates through the inner search.
"""

import abc
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from nlmefit.core.typing import Scalar, Theta
from nlmefit.estimate.coordinates import Coordinates
from nlmefit.estimate.density import Sites
from nlmefit.estimate.factor import factorize, solve
from nlmefit.estimate.method import Found, Reporter
from nlmefit.estimate.modes import exact as closed_form
from nlmefit.estimate.modes.empirical_bayes import Mode, Start, find_mode, find_mode_by_expansion
from nlmefit.estimate.modes.marginal_likelihood import AbstractMarginalLikelihood
from nlmefit.estimate.modes.objective import Contributions
from nlmefit.estimate.problem import Problem
from nlmefit.latent.model import AbstractExact, AbstractLatentModel


class LocalSites(NamedTuple):
    """The sites of a subject at given theta where a method looks at them."""

    mode: Sites
    """For z at and around the mode."""
    zero: Sites
    """For z at and around 0."""


SitesAt = Callable[[Array], LocalSites]
"""They as a function of u."""


class AbstractAtMode(AbstractMarginalLikelihood):
    """-2 log L_i = contribution_i(theta, mode_i(theta))."""

    @property
    @abc.abstractmethod
    def order(self) -> int:
        """The order of the polynomials that search and contribution work with where the model solves differential equations."""

    @property
    def at_origin(self) -> bool:
        """Whether the method looks at the model at z = 0 besides the mode."""
        return False

    def find(self, problem: Problem, progress: Reporter, key: Array) -> Found:
        """By a search; without one where the model is linear and normal, which all these methods are exact for."""
        if isinstance(problem.model, AbstractExact):
            return closed_form.maximize(problem, self)
        return super().find(problem, progress, key)

    @abc.abstractmethod
    def inner(self, sites: LocalSites, z: Float[Array, "q"]) -> Scalar:
        """What the inner problem minimizes: -log p(y, z | theta), or the method's version of it."""

    @abc.abstractmethod
    def contribution(self, sites_at: SitesAt, u: Array, mode: Mode) -> tuple[Scalar, Array, Array]:
        """-2 log p(y | theta) as the method approximates it, n log(2 pi) included; its gradient in u; and dz*/du (q, p)."""

    def subject_contribution(
        self, model: AbstractLatentModel, coordinates: Coordinates, u: Array, fixed: Theta, start: Start, subject: Any
    ) -> Contributions:
        def sites_at(u: Array, at_mode: AbstractLatentModel = model, at_zero: AbstractLatentModel = model) -> LocalSites:
            theta = coordinates.theta(u, fixed)
            root = model.omega(theta)
            return LocalSites(Sites(at_mode, theta, root, subject), Sites(at_zero, theta, root, subject))

        here, local, zero = sites_at(u).mode, model, model
        if model.solves_ode and self.at_origin:
            zero = here.taylor_expanded(jnp.zeros_like(start.z), self.order).model
        if model.solves_ode and start.z.shape[0] > 0:
            mode, local = find_mode_by_expansion(
                lambda z, order: here.taylor_expanded(z, order).model,
                lambda local, z: self.inner(sites_at(u, local, zero), z),
                start,
                self.order if self.has_modes else 1,
            )
        else:
            if model.solves_ode:
                local = here.taylor_expanded(start.z, self.order).model
            mode = find_mode(lambda z: self.inner(sites_at(u, model, zero), z), start.z)
        value, gradient, moves = self.contribution(lambda u: sites_at(u, local, zero), u, mode)
        return Contributions.at_mode(mode, value, gradient, moves)


def implicitly(
    approximation: Callable[[LocalSites, Array], tuple[Array, Array]], sites_at: SitesAt, u: Array, z: Float[Array, "q"]
) -> tuple[Scalar, Array, Array]:
    """F, dF/du and dz/du from a function that gives F and g at (u, z), which have their evaluation of the model in common."""
    p = u.shape[0]

    def both(w: Array) -> tuple[tuple[Array, Array], Array]:
        value, slope = approximation(sites_at(w[:p]), w[p:])
        return (value, slope), value

    (change, curvature), value = jax.jacfwd(both, has_aux=True)(jnp.concatenate([u, z]))
    moves = -solve(factorize(curvature[:, p:]), curvature[:, :p])
    return value, change[:p] + change[p:] @ moves, moves


def two_log_integral(value: Scalar, log_determinant: Scalar, q: int) -> Scalar:
    """-2 log of Laplace's integral of exp(-value(z)) with Hessian H: 2 value + log|H| - q log(2 pi)."""
    return 2.0 * value + log_determinant - q * jnp.log(2 * jnp.pi)
