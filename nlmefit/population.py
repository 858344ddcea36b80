"""A declared Model and its closed-form solver as a latent model."""

from collections.abc import Hashable, Mapping
from itertools import combinations
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from numpyro import distributions as dist
from numpyro.distributions import Distribution, constraints

from nlmefit.data.findings import Finding, raise_errors
from nlmefit.data.subjects import Subjects
from nlmefit.declare.model import AbstractModel
from nlmefit.declare.population import PopulationParameter, correlation_matrix
from nlmefit.latent import AbstractLatentModel, Parameter
from nlmefit.solve import superposition
from nlmefit.typing import Theta


class PopulationModel(AbstractLatentModel):
    """A declared model as a latent model: individual parameters, amounts, predictions, residual distributions."""

    model: AbstractModel = eqx.field(static=True)

    def parameters(self) -> dict[str, Parameter]:
        """Scalars by name; each block of correlated etas is one Cholesky factor of its correlation matrix."""
        population = self.model.population()
        result = {p.name: _parameter(p) for p in population.values() if p.kind != "correlation"}
        for block in self.model.specification.blocks:
            result[_block_name(block)] = _block(block, population)
        return result

    def eta_names(self) -> tuple[str, ...]:
        return self.model.specification.etas

    def structure(self) -> Hashable:
        return self.model.structure()

    def omega(self, theta: Theta) -> Float[Array, "q q"]:
        """Omega = diag(sd) R diag(sd): the Cholesky factor is diag(sd) times R's."""
        names = self.eta_names()
        if not names:
            return jnp.zeros((0, 0))
        root = jnp.eye(len(names))
        for block in self.model.specification.blocks:
            place = np.array([names.index(name) for name in block])
            root = root.at[np.ix_(place, place)].set(theta[_block_name(block)])
        return jnp.stack([theta[f"omega_{name}"] for name in names])[:, None] * root

    def observe(self, theta: Theta, eta: Float[Array, "q"], subject: Any) -> dict[str, Distribution]:
        predicted = self.predict(theta, eta, subject, self.model.amounts_read)[0]
        return {
            name: value if isinstance(value, Distribution) else self._residual(theta, name, value, subject)
            for name, value in predicted.items()
        }

    def predict(
        self, theta: Theta, eta: Float[Array, "q"], subject: Any, wanted: tuple[str, ...]
    ) -> tuple[dict[str, Any], dict[str, Float[Array, "n"]]]:
        """Predictions by endpoint and amounts by compartment (those wanted), at the subject's rows."""
        spec = self.model.specification
        effects = dict(zip(self.eta_names(), eta, strict=True))
        at_start = self.model.parameters_of(theta, effects, subject.covariates)
        amounts: dict[str, Any] = {}
        if spec.dynamics is not None:
            dosing = self.model.dosing_of({**subject.covariates, **at_start})
            amounts = superposition.amounts(spec.dynamics, at_start, dosing, subject, wanted)
        x = {**subject.covariates, **subject.varying}
        p = self.model.parameters_of(theta, effects, x) if subject.varying else at_start
        predicted = self.model.predictions(subject.time, amounts, {**x, **p})
        shape = subject.time.shape
        rows = {
            name: value.expand(shape)
            if isinstance(value, Distribution) and value.batch_shape != shape
            else value
            if isinstance(value, Distribution)
            else jnp.broadcast_to(value, shape)
            for name, value in predicted.items()
        }
        return rows, amounts

    def report(self, theta: Theta) -> dict[str, Array]:
        result = {}
        for name, parameter in self.model.population().items():
            if parameter.kind != "correlation":
                result[name] = theta[name]
                continue
            for block in self.model.specification.blocks:
                root = theta[_block_name(block)]
                correlation = root @ root.T
                for (i, a), (j, b) in combinations(enumerate(block), 2):
                    if name == f"corr_{a}_{b}":
                        result[name] = correlation[i, j]
        return result

    def individual(self, theta: Theta, eta: Float[Array, "q"], subject: Any) -> dict[str, Array]:
        effects = dict(zip(self.eta_names(), eta, strict=True))
        return {n: jnp.asarray(v, float) for n, v in self.model.parameters_of(theta, effects, subject.covariates).items()}

    def at(self, theta: Mapping[str, np.ndarray]) -> AbstractModel:
        population = self.model.population()
        theta = {name: np.asarray(value) for name, value in theta.items()}
        for block in self.model.specification.blocks:
            theta[_block_name(block)] = _inside(theta[_block_name(block)])
        return self.model.at(
            {n: _between(float(v), population[n]) for n, v in self.report(theta).items() if not population[n].fixed}
        )

    def conventions(self) -> dict[str, str]:
        dynamics = self.model.specification.dynamics
        lines = {"records": "at equal times the file's order decides"}
        if dynamics is not None:
            lines["amounts"] = "closed form, individual parameters constant in time"
        return lines

    def _residual(self, theta: Theta, name: str, f: Any, subject: Any) -> Distribution:
        """Normal(f, sd(f)); rows of other endpoints get a harmless prediction, so that their gradients stay finite."""
        residual = self.model.specification.residuals[name]
        safe = jnp.where(subject.mask[name], f, 1.0)
        values = {part: theta[f"{name}_{part}"] for part in residual.parameters()}
        return dist.Normal(safe, jnp.sqrt(residual.variance(safe, values)), validate_args=False)


def check_constant_dynamics(model: AbstractModel, data: Subjects) -> None:
    """DataError when a covariate that changes in time enters what a closed-form model holds constant."""
    raise_errors(changing_dynamics(model, data))


def changing_dynamics(model: AbstractModel, data: Subjects) -> list[Finding]:
    """A finding for each covariate that changes in time and enters the dynamics' parameters or the model's dosing."""
    spec, frame = model.specification, data.records.frame
    if spec.dynamics is None:
        return []
    found = []
    for column, hit in _dependent(model, spec.dynamics.parameters, tuple(data.subjects.varying)).items():
        if hit:
            who = (frame.groupby("ID", sort=False)[column].nunique() > 1).idxmax()
            what = (
                f"covariate {column} changes in time (first in subject {who}) and enters {', '.join(hit)}, which the closed form "
                f"of {type(spec.dynamics).__name__} holds constant."
            )
            fix = f"Use one value per subject, for example df.groupby('ID')['{column}'].transform('first')."
            found.append(Finding("E136", what, fix, subject=who))
    return found


def _dependent(model: AbstractModel, needed: tuple[str, ...], columns: tuple[str, ...]) -> dict[str, list[str]]:
    """Which of the needed parameters and properties of doses depend on each covariate, read off the traced computation."""
    theta = {name: p.value for name, p in model.population().items()}
    x = dict.fromkeys(model.covariates, 1.0)

    def constants(x: dict[str, Any]) -> dict[str, Any]:
        p = model.parameters_of(theta, dict.fromkeys(model.specification.etas, 0.0), x)
        dosing = model.dosing_of({**x, **p})
        result = {name: p[name] for name in needed}
        return result | {
            f"the {field} of doses into {place}": getattr(dosing[place], field) for place, field in sorted(model.dosing_fields)
        }

    names = list(constants(x))
    result = {}
    for column in columns:
        jaxpr = jax.make_jaxpr(lambda v, c=column: [jnp.asarray(value) for value in constants({**x, c: v}).values()])(1.0)
        result[column] = [name for name, used in zip(names, _reached(jaxpr.jaxpr), strict=True) if used]
    return result


def _reached(jaxpr: Any) -> list[bool]:
    """Which outputs depend on the inputs; an equation passes dependence from any input to all its outputs."""
    tainted = {id(v) for v in jaxpr.invars}
    for equation in jaxpr.eqns:
        if any(id(v) in tainted for v in equation.invars):
            tainted |= {id(v) for v in equation.outvars}
    return [id(v) in tainted for v in jaxpr.outvars]


def _block_name(block: tuple[str, ...]) -> str:
    return "corr_" + "_".join(block)


def _parameter(p: PopulationParameter) -> Parameter:
    support = _support(p)
    return Parameter(
        p.name,
        support,
        np.asarray(p.value),
        p.prior if p.prior is not None else default_prior(p),
        p.prior is not None,
        p.fixed,
        p.unit,
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
    around the start, sd 10 max(1, |start|); coefficients: N(start, 2^2); omega and residual sds: half-normal, scale
    max(1, 2 start) and 3 start.
    """
    if p.kind == "omega":
        return dist.HalfNormal(max(1.0, 2 * p.value))
    if p.kind == "residual":
        return dist.HalfNormal(3 * p.value if p.value > 0 else 1.0)
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


def _block(block: tuple[str, ...], population: Mapping[str, PopulationParameter]) -> Parameter:
    root = np.linalg.cholesky(correlation_matrix(block, {name: p.value for name, p in population.items()}))
    return Parameter(_block_name(block), constraints.corr_cholesky, root, dist.LKJCholesky(len(block), 2.0))


def _inside(root: np.ndarray) -> np.ndarray:
    """The Cholesky factor of a correlation matrix, moved off the boundary by 1e-9, where rounding makes it singular."""
    matrix = root @ root.T
    if np.linalg.eigvalsh(matrix)[0] > 1e-12:
        return root
    return np.linalg.cholesky((matrix + 1e-9 * np.eye(len(matrix))) / (1 + 1e-9))


def _between(value: float, p: PopulationParameter) -> float:
    """A value that rounding has put on its bound, moved inside by one unit in the last place."""
    return float(np.clip(value, np.nextafter(p.lower, np.inf), np.nextafter(p.upper, -np.inf)))
