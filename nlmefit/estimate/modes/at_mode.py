"""Methods that approximate the marginal likelihood at the mode of p(z | y_i, theta): FO, FOCE, Laplace, quadrature.

A method says, for one subject at given theta, which function of z its inner problem minimizes and what it then takes for
-2 log p(y_i | theta). The rest is written once. With mode z*(u), where g(u, z*) = d inner / dz = 0, and contribution F(u, z):

    dF/du = F_u - F_z  (g_z)^-1  g_u

Nothing differentiates through the inner search.
"""

import abc
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from nlmefit.core.typing import Scalar, Theta
from nlmefit.estimate.coordinates import Coordinates
from nlmefit.estimate.density import Sites
from nlmefit.estimate.factor import factorize, solve
from nlmefit.estimate.method import Found, Reporter
from nlmefit.estimate.modes import exact as closed_form
from nlmefit.estimate.modes.empirical_bayes import Mode, find_mode, find_mode_by_expansion
from nlmefit.estimate.modes.marginal_likelihood import AbstractMarginalLikelihood
from nlmefit.estimate.modes.objective import Contributions
from nlmefit.estimate.problem import Problem
from nlmefit.latent.model import AbstractExact, AbstractLatentModel

SitesAt = Callable[[Array], Sites]
"""The sites of a subject as a function of u, with polynomials around its mode where the model solves differential equations."""


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
    def inner(self, sites: Sites, z: Float[Array, "q"]) -> Scalar:
        """What the inner problem minimizes: -log p(y, z | theta), or the method's version of it."""

    @abc.abstractmethod
    def contribution(self, sites_at: SitesAt, u: Array, mode: Mode) -> tuple[Scalar, Array]:
        """-2 log p(y | theta) as the method approximates it, n log(2 pi) included; and its gradient in u."""

    def subject_contribution(
        self, model: AbstractLatentModel, coordinates: Coordinates, u: Array, fixed: Theta, start: Array, subject: Any
    ) -> Contributions:
        """One subject's contribution, its gradient in u, and the mode found from `start`."""

        def sites_at(u: Array, local: Any = None, center: Any = None) -> Sites:
            theta = coordinates.theta(u, fixed)
            return Sites(model, theta, model.omega(theta), subject, local, center)

        sites, local, center = sites_at(u), None, None
        if model.solves_ode and self.at_origin:
            center = sites.taylor_expanded(jnp.zeros_like(start), self.order).local
            sites = sites_at(u, None, center)
        if model.solves_ode and start.shape[0] > 0:
            mode, local = find_mode_by_expansion(
                lambda z, order: sites.taylor_expanded(z, order).local,
                lambda local, z: self.inner(sites.by(local), z),
                start,
                self.order if self.has_modes else 1,
            )
        else:
            if model.solves_ode:
                local = sites.taylor_expanded(start, self.order).local
            mode = find_mode(lambda z: self.inner(sites, z), start)
        value, gradient = self.contribution(lambda u: sites_at(u, local, center), u, mode)
        return Contributions(
            value, gradient, mode.z, mode.value, mode.hessian, mode.converged, mode.iterations, mode.failures, jnp.zeros(0)
        )


def implicitly(
    approximation: Callable[[Sites, Array], tuple[Array, Array]], sites_at: SitesAt, u: Array, z: Float[Array, "q"]
) -> tuple[Scalar, Array]:
    """F and dF/du from a function that gives F and g at (u, z), which have their evaluation of the model in common."""
    p = u.shape[0]

    def both(w: Array) -> tuple[tuple[Array, Array], Array]:
        value, slope = approximation(sites_at(w[:p]), w[p:])
        return (value, slope), value

    (change, curvature), value = jax.jacfwd(both, has_aux=True)(jnp.concatenate([u, z]))
    return value, change[:p] - change[p:] @ solve(factorize(curvature[:, p:]), curvature[:, :p])


def two_log_integral(value: Scalar, log_determinant: Scalar, q: int) -> Scalar:
    """-2 log of Laplace's integral of exp(-value(z)) with Hessian H: 2 value + log|H| - q log(2 pi)."""
    return 2.0 * value + log_determinant - q * jnp.log(2 * jnp.pi)
