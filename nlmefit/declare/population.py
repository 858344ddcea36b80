"""Population parameters by name: typical values, covariate coefficients, omegas, correlations, residual sds."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import Any, Literal

import numpy as np

from nlmefit.core.errors import ModelError
from nlmefit.declare.parameters import LogitNormal, LogNormal, Theta
from nlmefit.declare.specification import Specification
from nlmefit.declare.values import is_fixed, number

Kind = Literal["typical", "coefficient", "network", "omega", "correlation", "flow", "residual"]


@dataclass(frozen=True)
class PopulationParameter:
    """One scalar: its value on the natural scale, where it may lie, and what it is."""

    name: str
    value: float
    kind: Kind
    lower: float = -math.inf
    upper: float = math.inf
    fixed: bool = False
    unit: str = ""
    prior: Any = None

    def checked(self, value: Any) -> float:
        """`value` as a number inside the bounds, or ModelError."""
        result = number(value.item() if hasattr(value, "item") and np.ndim(value) == 0 else value, f"`{self.name}`")
        strict = not self.fixed
        if result < self.lower or result > self.upper or strict and result in (self.lower, self.upper):
            raise ModelError(f"`{self.name}` must lie in ({self.lower:g}, {self.upper:g}), got {result:g}.")
        return result


def population_parameters(spec: Specification) -> dict[str, PopulationParameter]:
    """All population parameters in the order in which tables show them."""
    found = [*_typical(spec), *_omegas(spec), *_correlations(spec), *_weights(spec), *_residuals(spec)]
    result: dict[str, PopulationParameter] = {}
    for parameter in found:
        if parameter.name in result:
            raise ModelError(
                f"Two population parameters are called `{parameter.name}`: one declared, one that follows from "
                "iiv=, covariates= or a residual model. Rename the declared one."
            )
        result[parameter.name] = parameter
    return result


def _typical(spec: Specification) -> list[PopulationParameter]:
    result = []
    for name, parameter in spec.individuals.items():
        lower, upper = -math.inf, math.inf
        if isinstance(parameter, LogNormal):
            lower = 0.0
        if isinstance(parameter, LogitNormal):
            lower, upper = parameter.lower, parameter.upper
        fixed = parameter.fixed or is_fixed(parameter.value)
        result.append(
            PopulationParameter(
                name, number(parameter.value, name), "typical", lower, upper, fixed, parameter.unit, parameter.prior
            )
        )
        for effect in parameter.covariates:
            for suffix, (start, kept) in effect.coefficients().items():
                coefficient = f"beta_{name}_{effect.column}" + (f"_{suffix}" if suffix else "")
                result.append(PopulationParameter(coefficient, number(start, coefficient), "coefficient", fixed=kept))
    weights = spec.weights
    return result + [_theta(n, theta, "network" if n in weights else "typical") for n, theta in spec.thetas.items()]


def _theta(name: str, theta: Theta, kind: Kind) -> PopulationParameter:
    lower = -math.inf if theta.lower is None else theta.lower
    upper = math.inf if theta.upper is None else theta.upper
    fixed = theta.fixed or is_fixed(theta.value)
    return PopulationParameter(name, number(theta.value, name), kind, lower, upper, fixed, theta.unit, theta.prior)


def _omegas(spec: Specification) -> list[PopulationParameter]:
    return [
        PopulationParameter(
            f"{symbol}_{name}",
            number(getattr(p, level), f"{level} of {name}"),
            "omega",
            0.0,
            fixed=is_fixed(getattr(p, level)),
            unit="" if isinstance(p, LogNormal | LogitNormal) else p.unit,
        )
        for symbol, level in (("omega", "iiv"), ("gamma", "iov"))
        for name, p in spec.individuals.items()
        if getattr(p, level) is not None
    ]


def _correlations(spec: Specification) -> list[PopulationParameter]:
    return [
        PopulationParameter(f"corr_{a}_{b}", 0.0, "correlation", -1.0, 1.0)
        for block in spec.blocks
        for a, b in combinations(block, 2)
    ]


def _weights(spec: Specification) -> list[PopulationParameter]:
    return [] if spec.flow is None else [PopulationParameter(name, 0.0, "flow") for name in spec.flow.weights()]


def correlation_matrix(block: tuple[str, ...], values: Mapping[str, float]) -> np.ndarray:
    """The block's correlation matrix from the values by name; ModelError if it is not positive definite."""
    matrix = np.eye(len(block))
    for (i, a), (j, b) in combinations(enumerate(block), 2):
        matrix[i, j] = matrix[j, i] = values[f"corr_{a}_{b}"]
    if np.linalg.eigvalsh(matrix)[0] <= 0:
        given = ", ".join(f"corr_{a}_{b} = {values[f'corr_{a}_{b}']:g}" for a, b in combinations(block, 2))
        raise ModelError(
            f"no random effects have these correlations together: {given} (their matrix is not positive definite). "
            "Bring them closer to 0."
        )
    return matrix


def _residuals(spec: Specification) -> list[PopulationParameter]:
    return [
        PopulationParameter(
            f"{endpoint}_{part}",
            number(start, f"{endpoint}_{part}"),
            "residual",
            0.0,
            fixed=is_fixed(start),
            unit=residual.unit if part == "additive" else "",
        )
        for endpoint, residual in spec.residuals.items()
        for part, start in residual.parameters().items()
    ]
