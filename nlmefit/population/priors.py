"""The population parameters of a declared model as those of a latent model: support, start and prior."""

from collections.abc import Mapping

import numpy as np
from numpyro import distributions as dist
from numpyro.distributions import Distribution, constraints

from nlmefit.declare.population import PopulationParameter, correlation_matrix
from nlmefit.latent.model import Parameter


def block_name(block: tuple[str, ...]) -> str:
    return "corr_" + "_".join(block)


def latent_parameter(p: PopulationParameter) -> Parameter:
    support = _support(p)
    return Parameter(
        p.name,
        support,
        np.asarray(p.value),
        p.prior if p.prior is not None else default_prior(p),
        p.prior is not None,
        p.fixed,
        p.unit,
        "omega" if p.kind == "omega" else "theta",
    )


def _support(p: PopulationParameter) -> constraints.Constraint:
    if np.isfinite(p.lower) and np.isfinite(p.upper):
        return constraints.interval(p.lower, p.upper)
    if np.isfinite(p.lower):
        return constraints.positive if p.lower == 0 else constraints.greater_than(p.lower)
    if np.isfinite(p.upper):
        return constraints.less_than(p.upper)
    return constraints.real


def default_prior(p: PopulationParameter) -> Distribution:
    """The weakly informative prior of a parameter that declares none.

    Positive typical values: log-normal around the start, sd 1.5 on the log scale; bounded ones: uniform; others: normal
    around the start, sd 10 max(1, |start|); coefficients: N(start, 2^2); weights of networks and flows: N(0, 1);
    omega and residual sds: half-normal, scale max(1, 2 start) and 3 start.
    """
    if p.kind == "omega":
        return dist.HalfNormal(max(1.0, 2 * p.value))
    if p.kind == "residual":
        return dist.HalfNormal(3 * p.value if p.value > 0 else 1.0)
    if p.kind in ("flow", "network"):
        return dist.Normal(0.0, 1.0)
    if p.kind == "coefficient":
        return dist.Normal(p.value, 2.0)
    if np.isfinite(p.lower) and np.isfinite(p.upper):
        return dist.Uniform(p.lower, p.upper)
    if np.isfinite(p.lower):
        shifted = dist.LogNormal(np.log(max(p.value - p.lower, 1e-12)), 1.5)
        if p.lower == 0:
            return shifted
        return dist.TransformedDistribution(shifted, dist.transforms.AffineTransform(p.lower, 1.0, constraints.positive))
    if np.isfinite(p.upper):
        shifted = dist.LogNormal(np.log(max(p.upper - p.value, 1e-12)), 1.5)
        return dist.TransformedDistribution(shifted, dist.transforms.AffineTransform(p.upper, -1.0, constraints.positive))
    return dist.Normal(p.value, 10 * max(1.0, abs(p.value)))


def latent_block(block: tuple[str, ...], population: Mapping[str, PopulationParameter]) -> Parameter:
    root = np.linalg.cholesky(correlation_matrix(block, {name: p.value for name, p in population.items()}))
    return Parameter(block_name(block), constraints.corr_cholesky, root, dist.LKJCholesky(len(block), 2.0), kind="correlation")


def off_the_boundary(root: np.ndarray) -> np.ndarray:
    """The Cholesky factor of a correlation matrix, moved off the boundary by 1e-9, where rounding makes it singular."""
    matrix = root @ root.T
    if np.linalg.eigvalsh(matrix)[0] > 1e-12:
        return root
    return np.linalg.cholesky((matrix + 1e-9 * np.eye(len(matrix))) / (1 + 1e-9))


def between(value: float, p: PopulationParameter) -> float:
    """A value that rounding has put on its bound, moved inside by one unit in the last place."""
    return float(np.clip(value, np.nextafter(p.lower, np.inf), np.nextafter(p.upper, -np.inf)))
