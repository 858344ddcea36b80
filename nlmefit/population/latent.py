"""A declared Model and a solver as a latent model."""

from collections.abc import Callable, Hashable, Mapping
from dataclasses import replace
from itertools import combinations
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Bool, Float
from numpyro import distributions as dist
from numpyro.distributions import Distribution

from nlmefit.core.backend import check_process, compiled
from nlmefit.core.errors import DataError
from nlmefit.core.typing import Theta
from nlmefit.data.findings import raise_errors
from nlmefit.data.subjects import Subjects
from nlmefit.declare.dosing import Dosing
from nlmefit.declare.model import AbstractModel
from nlmefit.declare.solver import (
    AbstractSolver,
    AbstractStepping,
    Automatic,
    ClosedForm,
    MatrixExponential,
    Rosenbrock,
    RungeKutta,
)
from nlmefit.latent.censored import CensoredNormal
from nlmefit.latent.distribution import of_records
from nlmefit.latent.model import AbstractLatentModel, Parameter
from nlmefit.population.priors import between, block_name, latent_block, latent_parameter, off_the_boundary
from nlmefit.population.random_effects import flowed
from nlmefit.population.record_wise import by_record, every_record
from nlmefit.population.solver import goes_in_steps, solver_of, unsolvable
from nlmefit.solve.amounts import Kinetics, expanded_amounts, steps
from nlmefit.solve.amounts import amounts as solve
from nlmefit.solve.choice import automatic, check_solver
from nlmefit.solve.epochs import chosen
from nlmefit.solve.jets import Jet
from nlmefit.solve.taylor import Expansion, by_forward_mode, expansion


class PopulationModel(AbstractLatentModel):
    """A declared model as a latent model: individual parameters, amounts, predictions, residual distributions.

    The random effects are the etas, then those of the 1st, 2nd, ... occasion (`kappa_CL_1`); a subject with fewer occasions
    than others leaves the rest unused, which adds nothing to its likelihood.
    """

    model: AbstractModel = eqx.field(static=True)
    occasions: int = eqx.field(static=True, default=1)
    """The largest number of occasions in any subject."""
    solver: AbstractSolver = eqx.field(static=True, default=Automatic())
    in_steps: bool = eqx.field(static=True, default=False)
    """Whether amounts go from event to event, since parameters change in time or a closed form is more than a sum over doses."""
    written: Hashable = eqx.field(static=True, default=None)
    """The model's structure as it was when bound."""
    expansion: Expansion | None = None
    """A Taylor polynomial of one subject's amounts, in place of solving for them."""

    @classmethod
    def of(cls, model: AbstractModel, data: Subjects) -> "PopulationModel":
        """The model for a data set: its number of occasions, and the solver that it asks for or that fits it.

        Raises ModelError for a solver that the dynamics do not allow, DataError where the data has what it cannot follow.
        """
        check_process()
        model = model.snapshot().with_levels(data.needs.levels)
        check_solver(model)
        raise_errors(unsolvable(model, data))
        occasion = data.subjects.occasion
        occasions = 1 if occasion is None else int(occasion.max()) + 1
        bound = cls(model, occasions, solver_of(model, data), goes_in_steps(model, data), model.structure())
        if isinstance(model.specification.solver, Automatic) and isinstance(bound.solver, RungeKutta) and bound._is_stiff(data):
            return replace(bound, solver=Rosenbrock())
        return bound

    def parameters(self) -> dict[str, Parameter]:
        """Scalars by name; each block of correlated etas is one Cholesky factor of its correlation matrix."""
        population = self.model.population()
        result = {p.name: latent_parameter(p) for p in population.values() if p.kind != "correlation"}
        for block in self.model.specification.blocks:
            result[block_name(block)] = latent_block(block, population)
        return result

    def eta_names(self) -> tuple[str, ...]:
        spec = self.model.specification
        kappas = (f"kappa_{name}_{k}" for k in range(1, self.occasions + 1) for name in spec.occasion_effects)
        return (*spec.etas, *kappas)

    def used(self, subjects: Any, size: int) -> Bool[np.ndarray, "N q"]:
        spec = self.model.specification
        last = np.zeros(size) if subjects.occasion is None else subjects.occasion.max(axis=1)
        occasions = np.repeat(np.arange(self.occasions), len(spec.occasion_effects))
        return np.concatenate([np.ones((size, len(spec.etas)), bool), occasions <= last[:, None]], axis=1)

    def structure(self) -> Hashable:
        written = self.model.structure() if self.written is None else self.written
        return written, self.occasions, self.solver, self.in_steps

    def omega(self, theta: Theta) -> Float[Array, "q q"]:
        """Omega = diag(sd) R diag(sd): the Cholesky factor is diag(sd) times R's. All occasions have the same sds; etas that a
        flow makes random effects of are normal scores, of sd 1."""
        spec, names = self.model.specification, self.eta_names()
        if not names:
            return jnp.zeros((0, 0))
        root = jnp.eye(len(names))
        for block in spec.blocks:
            place = np.array([names.index(name) for name in block])
            root = root.at[np.ix_(place, place)].set(theta[block_name(block)])
        sds = [jnp.ones(()) if name in self.scores() else theta[f"omega_{name}"] for name in spec.etas]
        sds += [theta[f"gamma_{name}"] for name in spec.occasion_effects] * self.occasions
        return jnp.stack(sds)[:, None] * root

    def observe(self, theta: Theta, eta: Float[Array, "q"], subject: Any) -> dict[str, Distribution]:
        predicted = self.predict(theta, eta, subject, self.model.amounts_read)[0]
        return {
            name: _own(name, value, subject) if isinstance(value, Distribution) else self._residual(theta, name, value, subject)
            for name, value in predicted.items()
            if name in self.model.endpoints
        }

    def taylor_expanded(self, theta: Theta, eta: Float[Array, "q"], subject: Any, order: int) -> "PopulationModel":
        if not self.solves_ode:
            return self
        inputs = self._inputs(theta, eta, subject)
        center, rebuild = _flat(inputs)
        found = expansion(lambda x, n: self._expanded(rebuild, x, subject, self.model.amounts_read, n), center, order)
        return replace(self, expansion=found)

    @property
    def solves_ode(self) -> bool:
        """Whether amounts are computed by more than adding up responses in closed form."""
        return bool(self.model.amounts_read) and (self.in_steps or not isinstance(self._solver, ClosedForm))

    def predict(
        self, theta: Theta, eta: Float[Array, "q"], subject: Any, wanted: tuple[str, ...]
    ) -> tuple[dict[str, Any], dict[str, Float[Array, "n"]]]:
        """Predictions by endpoint and amounts by compartment (those wanted), at the subject's rows."""
        spec = self.model.specification
        amounts: dict[str, Any] = {}
        if spec.dynamics is not None and wanted:
            inputs = self._inputs(theta, eta, subject)
            if self.expansion is not None:
                found = self.expansion(_flat(inputs)[0])
            elif self.solves_ode:
                center, rebuild = _flat(inputs)
                found = by_forward_mode(
                    lambda x, s: self._amounts(rebuild(x), s, wanted), lambda x, s: self._expanded(rebuild, x, s, wanted, 1)
                )(center, subject)
            else:
                found = self._amounts(inputs, subject, wanted)
            amounts = {name: found[:, place] for place, name in enumerate(wanted)}
        p = self._individual(theta, eta, subject, subject.time, subject.epoch)
        if self.model.joint:
            return self._apart(self.model.predictions(subject.time, amounts, p), subject.time.shape), amounts
        rows = {"t": subject.time}
        predicted = every_record(lambda at, A, p: self.model.predictions(at["t"], A, p), len(subject.time), rows, amounts, p)
        return {name: predicted[name] for name in self.model.outputs}, amounts

    def _apart(self, predicted: dict[str, Any], shape: tuple[int, ...]) -> dict[str, Any]:
        """Of a model that writes distributions of all records at once: a distribution for each."""
        return {
            name: of_records(type(self.model).__name__, name, value, shape)
            if isinstance(value, Distribution)
            else jnp.broadcast_to(value, shape)
            for name, value in predicted.items()
        }

    # ---- from parameters to amounts ------------------------------------------------------------------------------

    def _individual(self, theta: Theta, eta: Float[Array, "q"], subject: Any, time: Any, epoch: Any) -> dict[str, Any]:
        """Individual parameters and covariates at the given times, or by epoch where `time` is None: numbers, or vectors."""
        x = {**subject.covariates, **subject.varying}
        effects = self._effects(theta, eta, subject)
        if epoch is not None:
            x, effects = chosen(x, epoch), chosen(effects, epoch)
        if subject.course is not None and time is not None:
            x |= {name: jnp.interp(time, subject.course.knots, v) for name, v in subject.course.values.items()}
        return {**x, **self._parameters_of(theta, effects, x)}

    def _parameters_of(self, theta: Theta, effects: dict[str, Any], x: dict[str, Any]) -> dict[str, Any]:
        """Individual parameters of effects and covariates that may be vectors; the declared form is elementwise as it is."""
        if not self.model.has_individual:
            return self.model.parameters_of(theta, effects, x)
        both = {("eta", name): v for name, v in effects.items()} | {("x", name): v for name, v in x.items()}

        def one(both: dict[tuple[str, str], Any]) -> dict[str, Any]:
            eta, x = ({name: v for (kind, name), v in both.items() if kind == wanted} for wanted in ("eta", "x"))
            return self.model.parameters_of(theta, eta, x)

        return by_record(one, both)

    def _effects(self, theta: Theta, eta: Float[Array, "q"], subject: Any) -> dict[str, Any]:
        """Random effects by parameter: numbers, or vectors by epoch where they change with the occasion."""
        spec = self.model.specification
        effects = self._of_subjects(theta, eta)
        kappas = eta[len(spec.etas) :].reshape(self.occasions, len(spec.occasion_effects))
        for place, name in enumerate(spec.occasion_effects):
            kappa = kappas[0, place] if subject.occasion is None else kappas[subject.occasion, place]
            effects[name] = effects.get(name, 0.0) + kappa
        return effects

    def _of_subjects(self, theta: Theta, eta: Float[Array, "q"]) -> dict[str, Any]:
        """Random effects by parameter, without the occasions' part."""
        spec = self.model.specification
        effects: dict[str, Any] = dict(zip(spec.etas, eta[: len(spec.etas)], strict=True))
        return effects if spec.flow is None else effects | flowed(spec.flow, theta, effects)

    def _inputs(self, theta: Theta, eta: Float[Array, "q"], subject: Any) -> Any:
        """What the amounts are computed from: individual parameters and doses' properties, or, where those change so often
        that they are more numbers, population parameters and random effects."""
        made = self._made(theta, eta, subject)
        kinds = {name: p.kind for name, p in self.model.population().items()}
        read = {"typical", "coefficient", "network"} | (set() if self.model.specification.flow is None else {"flow", "omega"})
        population = {n: v for n, v in theta.items() if kinds.get(n) in read}
        original = (population, eta)
        running = subject.course is not None
        return original if running or _size(original) < _size(made) else made

    def _made(self, theta: Theta, eta: Float[Array, "q"], subject: Any) -> dict[str, Any]:
        p = self._individual(theta, eta, subject, None, None)
        made: dict[str, Any] = {"p": {name: jnp.asarray(p[name], float) for name in self.model.dynamics_reads}}
        doses = subject.doses
        if doses is not None:
            at_doses = p if subject.course is None else self._individual(theta, eta, subject, doses.time, doses.epoch)
            made["dosing"] = by_record(self._dosing, at_doses)
        return made

    def _dosing(self, p: dict[str, Any]) -> dict[str, dict[str, Any]]:
        """The properties of doses that the model gives, by compartment and property."""
        return {
            place: {field: jnp.asarray(value, float) for field, value in vars(dosing).items() if value is not None}
            for place, dosing in self.model.dosing_of(p).items()
        }

    def _amounts(self, inputs: Any, subject: Any, wanted: tuple[str, ...]) -> Float[Array, "n w"]:
        return solve(self._kinetics(inputs, subject), self._solver, wanted)

    def _expanded(
        self, rebuild: Callable[[Array], Any], x: Float[Array, " k"], subject: Any, wanted: tuple[str, ...], order: int
    ) -> Jet:
        return expanded_amounts(lambda x: self._kinetics(rebuild(x), subject), x, self._solver, wanted, order)

    def _kinetics(self, inputs: Any, subject: Any) -> Kinetics:
        along = None
        doses = subject.doses
        if isinstance(inputs, tuple):
            theta, eta = inputs
            inputs = self._made(theta, eta, subject)
            if subject.course is not None:

                def along(t: Any, epoch: Any) -> dict[str, Any]:
                    return self._individual(theta, eta, subject, t, epoch)

                if doses is not None:  # the properties of doses are by dose
                    doses = eqx.tree_at(lambda d: d.epoch, doses, jnp.arange(doses.time.shape[0]), is_leaf=lambda x: x is None)
        dynamics, p = self.model.specification.dynamics, inputs["p"]
        assert dynamics is not None
        return Kinetics(
            dynamics,
            p,
            {place: Dosing(**fields) for place, fields in inputs.get("dosing", {}).items()},
            self.model.initial_of({name: v[0] if jnp.ndim(v) else v for name, v in p.items()}),
            eqx.tree_at(lambda s: s.doses, subject, doses, is_leaf=lambda x: x is None),
            along,
        )

    def centre(self, theta: Theta, subject: Any) -> Float[Array, "q"]:
        spec = self.model.specification
        free = self.model.mu_referenced
        mu = [self.model.mu_of(n, theta, subject.covariates) if n in free else jnp.zeros(()) for n in spec.etas]
        kappas = [jnp.zeros(())] * (self.occasions * len(spec.occasion_effects))
        return jnp.stack([*mu, *kappas]) if mu or kappas else jnp.zeros(0)

    def centred(self, subjects: Any) -> tuple[str, ...]:
        spec = self.model.specification
        changing = {*subjects.varying, *(subjects.course.values if subjects.course is not None else ())}
        found = [f"omega_{n}" for n in spec.etas if n not in self.scores()] + [f"gamma_{n}" for n in spec.occasion_effects]
        found += [block_name(block) for block in spec.blocks]
        for name, columns in self.model.mu_referenced.items():
            if not changing & {*columns}:
                found += [name, *(coefficient for names in columns.values() for coefficient in names)]
        return tuple(found)

    def scores(self) -> tuple[str, ...]:
        return self.model.specification.scores

    def stiff_fallback(self) -> "PopulationModel | None":
        if isinstance(self.model.specification.solver, Automatic) and isinstance(self.solver, RungeKutta):
            return replace(self, solver=Rosenbrock())
        return None

    def reasons(self, theta: Theta, eta: Float[Array, "q"], subject: Any) -> str:
        made = {} if self.model.specification.dynamics is None else self._made(theta, eta, subject).get("dosing", {})
        least = {(place, field): np.min(value) for place, fields in made.items() for field, value in fields.items()}
        wrong = {where: value for where, value in least.items() if not value >= 0}
        if wrong:
            return "".join(f"; `dosing` gives doses into `{at}` a {field} of {value:.3g}" for (at, field), value in wrong.items())
        if not isinstance(self._solver, AbstractStepping):
            return ""
        return (
            f"; or the solver needs more than its max_steps={self._solver.max_steps}: give the model "
            "solver = nm.Rosenbrock(max_steps=...)"
        )

    def _is_stiff(self, data: Subjects) -> bool:
        """Whether, at the start values and eta = 0, explicit steps do not suffice for a subject, or are so many that implicit
        ones are cheaper."""
        explicit = self._steps(data)
        if explicit.max(initial=0) < MANY_STEPS:
            return False
        if explicit.max() >= self.solver.max_steps:  # type: ignore[attr-defined]
            return True
        implicit = replace(self, solver=Rosenbrock())._steps(data)
        return bool(implicit.sum() * COST_OF_IMPLICIT < explicit.sum())

    def _steps(self, data: Subjects) -> np.ndarray:
        """Steps by subject (N,), at the start values and eta = 0."""
        run = _steps_of(self)
        theta = {name: p.start for name, p in self.parameters().items()}
        return np.asarray(run(theta, data.subjects))

    @property
    def _solver(self) -> AbstractSolver:
        if not isinstance(self.solver, Automatic) or self.model.specification.dynamics is None:
            return self.solver
        return automatic(self.model.specification.dynamics, self.model.dynamics_reads)

    # ---- results ---------------------------------------------------------------------------------------------------

    def report(self, theta: Theta) -> dict[str, Array]:
        result = {}
        for name, parameter in self.model.population().items():
            if parameter.kind != "correlation":
                result[name] = theta[name]
                continue
            for block in self.model.specification.blocks:
                root = theta[block_name(block)]
                correlation = root @ root.T
                for (i, a), (j, b) in combinations(enumerate(block), 2):
                    if name == f"corr_{a}_{b}":
                        result[name] = correlation[i, j]
        return result

    def individual(self, theta: Theta, eta: Float[Array, "q"], subject: Any) -> dict[str, Array]:
        """At the subject's first record, without the occasions' part."""
        spec = self.model.specification
        effects = dict.fromkeys(spec.effects, 0.0) | self._of_subjects(theta, eta)
        found, weights = self.model.parameters_of(theta, effects, subject.covariates), spec.weights
        return {name: jnp.asarray(value, float) for name, value in found.items() if name not in weights}

    def at(self, theta: Mapping[str, np.ndarray]) -> AbstractModel:
        population = self.model.population()
        theta = {name: np.asarray(value) for name, value in theta.items()}
        for block in self.model.specification.blocks:
            theta[block_name(block)] = off_the_boundary(theta[block_name(block)])
        report = self.report({name: jnp.asarray(value) for name, value in theta.items()})
        return self.model.at({n: between(float(v), population[n]) for n, v in report.items() if not population[n].fixed})

    def conventions(self) -> dict[str, str]:
        lines = {"records": "at equal times the file's order decides"}
        if self.model.specification.dynamics is not None:
            lines["amounts"] = _in_words(self._solver)
        return lines

    def _residual(self, theta: Theta, name: str, f: Any, subject: Any) -> Distribution:
        """Normal(f, sd(f)); rows of other endpoints get a harmless prediction, so that their gradients stay finite."""
        residual = self.model.specification.residuals[name]
        safe = jnp.where(subject.mask[name], f, 1.0)
        values = {part: theta[f"{name}_{part}"] for part in residual.parameters()}
        sd = jnp.sqrt(residual.variance(safe, values))
        if name in subject.censoring:
            return CensoredNormal(safe, sd, subject.censoring[name])
        return dist.Normal(safe, sd, validate_args=False)


def _own(name: str, distribution: Distribution, subject: Any) -> Distribution:
    """A distribution that the modeller wrote; DataError where its observations are censored."""
    if name in subject.censoring:
        raise DataError(
            f"CENS marks observations of `{name}`, for which `observe` gives a distribution of its own; only endpoints with a "
            "residual model (nm.Additive and others) know limits. Write their probability in the distribution's log_prob and "
            "leave CENS out."
        )
    return distribution


MANY_STEPS = 1000
"""Steps of a subject from which on it is worth looking whether the system is stiff."""
COST_OF_IMPLICIT = 4
"""What a Rosenbrock step costs, in explicit steps."""


def _steps_of(model: PopulationModel) -> Callable[..., Any]:
    def one(theta: Theta, subject: Any) -> Any:
        inputs = model._inputs(theta, jnp.zeros(len(model.eta_names())), subject)
        return steps(model._kinetics(inputs, subject), model.solver)  # type: ignore[arg-type]

    return compiled(jax.vmap(one, in_axes=(None, 0)))


def _in_words(solver: AbstractSolver) -> str:
    if isinstance(solver, ClosedForm):
        return "closed form"
    if isinstance(solver, MatrixExponential):
        return "matrix exponential (the dynamics are linear)"
    assert isinstance(solver, AbstractStepping)
    how = {"RungeKutta": "explicit Runge-Kutta steps", "Rosenbrock": "Rosenbrock steps (stiff)", "Diffrax": "diffrax"}
    return f"{how[type(solver).__name__]}, rtol {solver.rtol:g}, atol {solver.atol:g} of the largest amount"


def _flat(inputs: Any) -> tuple[Float[Array, " k"], Callable[[Array], Any]]:
    return ravel_pytree(inputs)


def _size(inputs: Any) -> int:
    return sum(jnp.size(leaf) for leaf in jax.tree.leaves(inputs))
