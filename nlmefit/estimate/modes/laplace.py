"""Laplace's approximation (Tierney and Kadane 1986; NONMEM's LAPLACE).

    -2 log L_i = 2 l_i(z*) + log|l_i''(z*)| ,  l_i(z) = -log p(y_i, z | theta)

with the exact Hessian of l_i. Reads the density only, so that any observation with a `log_prob` will do.

The gradient needs third derivatives of l, but only along the columns c_j of a C with C C' = H^-1. With w = (u, z), and D_j the
derivative along c_j in z,

    F_w = 2 l_w + tr(H^-1 H_w) = 2 l_w + sum_j D_j D_j l_w
    dF/du = F_u - F_z H^-1 l_zu = F_u - sum_j (F_z c_j) D_j l_u

so that all is in l_w and its first two derivatives along z* + t c_j.
"""

from dataclasses import dataclass
from typing import final

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from nlmefit.core.typing import Scalar
from nlmefit.estimate.density import log_joint
from nlmefit.estimate.factor import factorize, log_determinant, solve, solve_upper
from nlmefit.estimate.modes.at_mode import LocalSites, SitesAt, two_log_integral
from nlmefit.estimate.modes.empirical_bayes import Mode
from nlmefit.estimate.modes.interaction import AbstractWithInteraction, normal_inner


@final
@dataclass(frozen=True)
class Laplace(AbstractWithInteraction):
    """Laplace's approximation. `interaction=False` takes the residual variance at eta = 0 (normal observations only).

    `covariance` and `all_modes` as for `FOCE`.
    """

    interaction: bool = True

    @property
    def name(self) -> str:
        return "Laplace" if self.interaction else "Laplace without interaction"

    def inner(self, sites: LocalSites, z: Float[Array, "q"]) -> Scalar:
        if self.interaction:
            return -log_joint(sites.mode, z)
        return normal_inner(sites, z, False, "Laplace without interaction")

    def contribution(self, sites_at: SitesAt, u: Array, mode: Mode) -> tuple[Scalar, Array, Array]:
        p, q = u.shape[0], mode.z.shape[0]
        here, found = sites_at(u).mode, factorize(mode.hessian)
        C = solve_upper(found, jnp.diag(1.0 / jnp.sqrt(found.pivots)))

        def slope(z: Array) -> Array:
            """l_w at (u, z), the model expanded there."""
            local = here.model.taylor_expanded(here.theta, here.root @ z, here.subject, 1)

            def inner(u: Array, z: Array) -> Scalar:
                sites = sites_at(u)
                return self.inner(sites._replace(mode=sites.mode.by(local)), z)

            return jnp.concatenate(jax.jacfwd(inner, argnums=(0, 1))(u, z))

        def along(c: Array) -> tuple[Array, Array, Array]:
            """l_w and its two derivatives."""

            def first(z: Array) -> tuple[Array, Array]:
                return jax.jvp(slope, (z,), (c,))

            (value, once), (_, twice) = jax.jvp(first, (mode.z,), (c,))
            return value, once, twice

        value, once, twice = jax.vmap(along, out_axes=(None, 0, 0))(C.T)
        change = 2.0 * value + jnp.sum(twice, axis=0)
        # The search's Hessian is that of a polynomial around a point close by: C' H C is I but for that.
        whitened = factorize(once[:, p:] @ C)
        logs = log_determinant(found) + log_determinant(whitened)
        moves = -C @ solve(whitened, once[:, :p])
        return two_log_integral(mode.value, logs, q), change[:p] + change[p:] @ moves, moves
