"""Adaptive Gauss-Hermite quadrature (Pinheiro and Bates 1995).

    L_i = |H|^-1/2 sum_k w_k exp(x_k' x_k / 2) p(y_i, z* + L^-T x_k) (2 pi)^(q/2),   H = L L' = l_i''(z*)

over the product grid of `nodes` points per random effect. One node is Laplace's approximation.
"""

from dataclasses import dataclass
from itertools import product
from typing import final

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from nlmefit.core.errors import MethodError
from nlmefit.core.options import check_truth, check_whole
from nlmefit.core.typing import Scalar
from nlmefit.estimate.density import log_joint
from nlmefit.estimate.factor import factorize, log_determinant, solve_upper
from nlmefit.estimate.modes.at_mode import AbstractAtMode, LocalSites, SitesAt, implicitly
from nlmefit.estimate.modes.empirical_bayes import Mode, expand
from nlmefit.estimate.modes.marginal_likelihood import check_covariance
from nlmefit.estimate.standard_errors import Covariance

LARGEST_GRID = 100_000
BLOCK = 512


@final
@dataclass(frozen=True)
class Quadrature(AbstractAtMode):
    """Adaptive Gauss-Hermite quadrature with `nodes` points per random effect (nodes^q in all).

    `covariance` and `all_modes` as for `FOCE`.
    """

    nodes: int = 7
    covariance: Covariance = "sandwich"
    all_modes: bool = False

    def __post_init__(self) -> None:
        check_covariance(self.covariance)
        check_whole("nodes", self.nodes, 1)
        check_truth("all_modes", self.all_modes)

    @property
    def order(self) -> int:
        return 3

    @property
    def name(self) -> str:
        return f"adaptive Gauss-Hermite quadrature, {self.nodes} nodes"

    def inner(self, sites: LocalSites, z: Float[Array, "q"]) -> Scalar:
        return -log_joint(sites.mode, z)

    def contribution(self, sites_at: SitesAt, u: Array, mode: Mode) -> tuple[Scalar, Array, Array]:
        return implicitly(self._by_rule, sites_at, u, mode.z)

    def _by_rule(self, sites: LocalSites, z: Float[Array, "q"]) -> tuple[Scalar, Float[Array, "q"]]:
        """-2 log L_i, and the gradient of `inner`."""
        q = z.shape[0]
        points, log_weights = grid(self.nodes, q)
        _, gradient, hessian = expand(lambda z: -log_joint(sites.mode, z), z)
        factor = factorize(hessian)
        # H = L D L': z* + L'^-1 D^-1/2 x
        offsets = solve_upper(factor, points.T / jnp.sqrt(factor.pivots)[:, None]).T

        def at(offset: Array) -> Scalar:
            node = z + offset
            return log_joint(sites.mode.taylor_expanded(node, 1), node)

        # All points of a large grid at once, with their tangents, would not fit in memory.
        joint = jax.vmap(at)(offsets) if len(points) <= BLOCK else jax.lax.map(at, offsets, batch_size=BLOCK)
        total = jax.scipy.special.logsumexp(joint + log_weights)
        return -2.0 * total + log_determinant(factor), gradient


def grid(nodes: int, q: int) -> tuple[Float[Array, "k q"], Float[Array, "k"]]:
    """Points x_k of the product rule for weight 1 (not exp(-x^2/2)), and log(w_k exp(x_k'x_k/2)), (k = nodes^q)."""
    if nodes**q > LARGEST_GRID:
        raise MethodError(
            f"{nodes} nodes for {q} random effects are {nodes**q} points per subject, over {LARGEST_GRID}. "
            "Use fewer nodes or nm.Laplace()."
        )
    x, w = np.polynomial.hermite_e.hermegauss(nodes)
    log_w = np.log(w) + 0.5 * x**2
    points = np.array(list(product(x, repeat=q))).reshape(nodes**q, q)
    weights = np.array([sum(c) for c in product(log_w, repeat=q)])
    return jnp.asarray(points), jnp.asarray(weights)
