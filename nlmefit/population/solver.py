"""How a model's amounts are solved for on a data set: which solver, whether from event to event, and what it cannot follow."""

from functools import partial
from typing import Any

from nlmefit.data.findings import Finding
from nlmefit.data.subjects import Subjects
from nlmefit.declare.model import AbstractModel
from nlmefit.declare.solver import AbstractSolver, Automatic, ClosedForm, MatrixExponential
from nlmefit.solve.choice import automatic, depending, has_transit


def solver_of(model: AbstractModel, data: Subjects) -> AbstractSolver:
    """The solver that the model asks for, or the automatic choice for its dynamics and covariates."""
    spec = model.specification
    if spec.dynamics is None or not isinstance(spec.solver, Automatic):
        return spec.solver
    course = data.subjects.course
    running = course is not None and any(_entering(model, tuple(course.values)).values())
    return automatic(spec.dynamics, model.dynamics_reads, running)


def goes_in_steps(model: AbstractModel, data: Subjects) -> bool:
    """Whether amounts have to go from event to event: parameters change, or a closed form is more than a sum over doses."""
    subjects, spec = data.subjects, model.specification
    if spec.dynamics is None:
        return False
    changing = any(_entering(model, tuple(subjects.varying)).values()) or (subjects.occasion is not None)
    doses = subjects.doses
    if changing or model.has_initial or doses is None or doses.steady is None:
        return changing or model.has_initial
    stretched = doses.rate is not None and any(field == "bioavailability" for _, field in model.dosing_fields)
    return doses.overlap > 1 or stretched or bool(model.routed_durations)


def unsolvable(model: AbstractModel, data: Subjects) -> list[Finding]:
    """What the data asks for that the model's solver cannot follow."""
    spec, course = model.specification, data.subjects.course
    if spec.dynamics is None:
        return []
    found = []
    if (
        data.subjects.doses is not None
        and data.subjects.doses.steady is not None
        and has_transit(spec.dynamics, model.dynamics_reads)
    ):
        what = (
            "SS asks for the steady state of doses that arrive through transit compartments of a number that is no whole number."
        )
        found.append(Finding("E131", what, "Write the doses out (ADDL), or use nm.Transit(compartments=...)."))
    if not isinstance(spec.solver, ClosedForm | MatrixExponential) or course is None:
        return found
    for column, hit in _entering(model, tuple(course.values)).items():
        if hit:
            what = (
                f"covariate {column} runs linearly between records and enters {', '.join(hit)}, which "
                f"nm.{type(spec.solver).__name__}() holds constant between records."
            )
            found.append(Finding("E136", what, 'Leave out `solver`, or use covariates="nocb" or "locf".'))
    return found


def _entering(model: AbstractModel, columns: tuple[str, ...]) -> dict[str, list[str]]:
    """By covariate: what of the dynamics depends on it, read off the traced computation."""
    theta = {name: p.value for name, p in model.population().items()}
    x = dict.fromkeys(model.covariates, 1.0)
    effects = dict.fromkeys(model.specification.effects, 0.0)

    def entering(column: str, value: Any) -> dict[str, Any]:
        changed = {**x, column: value}
        p = {**changed, **model.parameters_of(theta, effects, changed)}
        return {name: p[name] for name in model.dynamics_reads}

    return {column: depending(partial(entering, column), 1.0) for column in columns}
