"""`nm.fit` and `nm.evaluate`: one verb, methods as values."""

import time
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import pandas as pd

from nlmefit.data.subjects import Subjects
from nlmefit.errors import DataError, MethodError, ModelError
from nlmefit.estimate.density import is_gaussian
from nlmefit.estimate.method import AbstractMarginalMethod
from nlmefit.estimate.objective import Contributions, Objective
from nlmefit.estimate.optimize import Point, Search, minimize
from nlmefit.estimate.standard_errors import Uncertainty, covariance
from nlmefit.estimate.status import Status, collapsed, judge, lost
from nlmefit.latent import AbstractLatentModel
from nlmefit.model import Model
from nlmefit.population import PopulationModel
from nlmefit.progress import Progress
from nlmefit.results import Fit

Data = pd.DataFrame | Subjects | np.ndarray | jax.Array


def fit(
    model: Model | AbstractLatentModel,
    data: Data,
    method: AbstractMarginalMethod,
    *,
    start: Mapping[str, float] | Fit | None = None,
    progress: bool = True,
) -> Fit:
    """Fit `model` to `data` by `method`.

    **Everyday arguments:** `model` an instance of your `nm.Model` (or a generative latent model); `data` a DataFrame in NONMEM's
    columns (or `nm.Subjects`, or a matrix for generative models); `method` `nm.FO()`, `nm.FOCE(interaction=True)`, `nm.Laplace()`
    or `nm.Quadrature(nodes=7)`.

    **Others:** `start` other values to start from, by name, or an earlier fit; `progress` a line of progress on standard error
    while a fit takes longer than two seconds.

    Returns a `Fit`; its `status` says whether to trust it. Ctrl-C ends the search and returns the best values so far.

    Raises DataError for unusable data (all findings listed), ModelError for names and values, MethodError where the method
    cannot honour what the model declares.
    """
    began = time.perf_counter()
    latent, dataset = bind(_started(model, start), data)
    _check_method(latent, method, dataset)
    objective = Objective(latent, dataset.subjects, len(dataset.ids), method)
    with Progress(progress, method.name) as line:
        first = _point(objective, objective.coordinates.start())
        _check_start(first, latent, objective, dataset)
        compiled = time.perf_counter()
        search, elsewhere = _search_modes_too(objective, first, line)
        searched = time.perf_counter()
    found = search.point.extra
    status = judge(
        search,
        objective.coordinates,
        objective.final(search.point.u, found.z).theta,
        failing=_labels(dataset, ~found.converged),
        multimodal=_labels(dataset, elsewhere),
    )
    uncertainty = _uncertainty(objective, search, method)
    seconds = {"prepare and compile": compiled - began, "fit": searched - compiled}
    return _result(objective, dataset, search.point, status, uncertainty, search, seconds, began)


def evaluate(model: Model | AbstractLatentModel | Fit, data: Data, method: AbstractMarginalMethod) -> Fit:
    """A `Fit` at the model's own values (NONMEM's MAXEVAL=0): objective, contributions, random effects; no standard errors.

    Raises as `fit` does.
    """
    began = time.perf_counter()
    model = model.model if isinstance(model, Fit) else model
    latent, dataset = bind(model, data)
    _check_method(latent, method, dataset)
    objective = Objective(latent, dataset.subjects, len(dataset.ids), method)
    point = _point(objective, objective.coordinates.start())
    _check_start(point, latent, objective, dataset)
    failing = _labels(dataset, ~point.extra.converged)
    status = Status("evaluated", (lost(failing) if failing else "at the given values, nothing estimated.",))
    return _result(objective, dataset, point, status, None, None, {}, began)


def bind(model: Any, data: Data) -> tuple[AbstractLatentModel, Any]:
    """The latent model and the laid-out data set of a declared or generative model."""
    if isinstance(model, type) and issubclass(model, Model):
        raise ModelError(f"{model.__name__} is a class; pass an instance: {model.__name__}().")
    if isinstance(model, Model):
        subjects = Subjects.of(data, model)
        return PopulationModel.of(model, subjects), subjects
    if isinstance(model, AbstractLatentModel) and hasattr(model, "bind"):
        return model.bind(data)
    raise ModelError(f"model must be an instance of an nm.Model class or of a latent model, got {type(model).__name__}.")


def _started(model: Any, start: Mapping[str, float] | Fit | None) -> Any:
    if start is None:
        return model
    if not isinstance(model, Model):
        raise ModelError("start= needs a model with named values (an nm.Model).")
    fixed = [name for name, p in model.population().items() if p.fixed]
    if isinstance(start, Fit):  # a fixed value is the model's, whatever an earlier fit says
        return model.at({name: value for name, value in start.parameters_at().items() if name not in fixed})
    given = [name for name in start if name in fixed]
    if given:
        raise ModelError(f"start= gives {', '.join(given)}, which the model fixes; use model.at(...) to fix another value.")
    return model.at(start)


def _check_method(latent: AbstractLatentModel, method: Any, dataset: Any) -> None:
    if isinstance(method, type):
        raise MethodError(f"{method.__name__} is a class; pass a value: nm.{method.__name__}().")
    if not isinstance(method, AbstractMarginalMethod):
        raise MethodError(f"method must be nm.FO(), nm.FOCE(...), nm.Laplace(...) or nm.Quadrature(...), got {method!r}.")
    with_prior = [name for name, p in latent.parameters().items() if p.declared_prior]
    if with_prior:
        raise MethodError(
            f"{method.name} maximizes the likelihood and would ignore the prior of {', '.join(with_prior)}; "
            "leave prior= out, or use model.program(data) with NumPyro."
        )


def _point(objective: Objective, u: np.ndarray) -> Point:
    found = objective.contributions(u)
    return Point(u, float(np.sum(found.value)), np.sum(found.gradient, axis=0), found.gradient, found)


def _search_modes_too(objective: Objective, first: Point, progress: Progress) -> tuple[Search, np.ndarray]:
    """A search, and which subjects (N,) have a better mode than the one found. Where some have, the search goes on with every
    subject's mode sought from all starts."""
    search = _search(objective, first, progress)
    nobody = np.zeros(objective.size, bool)
    if search.stopped or not objective.method.has_modes:
        return search, nobody
    try:
        progress.stage("looking for other modes")
        elsewhere = objective.other_modes(search.point.u, search.point.extra)
        if elsewhere.any():
            objective.search_widely()
            search = _search(objective, _point(objective, search.point.u), progress)
            elsewhere = objective.other_modes(search.point.u, search.point.extra)
        return search, elsewhere
    except KeyboardInterrupt:
        search.stopped = "interrupted"
        return search, nobody


def _search(objective: Objective, first: Point, progress: Progress) -> Search:
    """Minimize from `first`; where an omega collapses to 0 on the way, once more from there with that omega as it started."""
    search = _descend(objective, first, progress)
    gone = collapsed(objective.coordinates, search.point.u)
    if search.stopped or not gone.any():
        return search
    try:
        again = _point(objective, np.where(gone, first.u, search.point.u))
        second = _descend(objective, again, progress) if again.finite else search
    except KeyboardInterrupt:
        search.stopped = "interrupted"
        return search
    if second.point.value < search.point.value - 1e-6:
        return second
    search.stopped = second.stopped
    return search


def _descend(objective: Objective, first: Point, progress: Progress) -> Search:
    coordinates = objective.coordinates
    curvature = 0.5 * np.sum(first.by_subject**2, axis=0)
    spread = np.sqrt(2.0 / np.where(curvature > 0, curvature, 2.0))  # about a standard error
    large = np.where(coordinates.transformed, 1.0, np.maximum(np.abs(first.u), 10 * spread))

    def evaluate(u: np.ndarray) -> Point:
        progress.tick()
        return _point(objective, u)

    return minimize(evaluate, first, large, progress)


def _check_start(point: Point, latent: AbstractLatentModel, objective: Objective, dataset: Any) -> None:
    """DataError that names the subjects and rows where the objective cannot be evaluated at the start."""
    _check_support(objective, dataset, point.u)
    bad = ~np.isfinite(point.extra.value)
    if not bad.any() and point.finite:
        return
    if not bad.any():
        bad = ~np.all(np.isfinite(point.by_subject), axis=1)
    who = _labels(dataset, bad)
    raise DataError(
        f"the objective is not a number at the start for {len(who)} subject(s): {', '.join(map(str, who[:8]))}."
        + _why(latent, objective, dataset, int(np.flatnonzero(bad)[0]))
    )


def _check_support(objective: Objective, dataset: Any, u: np.ndarray) -> None:
    """DataError where a DV cannot come from the distribution that `observe` gives it (a negative or broken count)."""
    for name, (kind, outside) in objective.outside_support(u).items():
        if not outside.any():
            continue
        i, j = np.argwhere(outside)[0]
        value, others = dataset.subjects.observed[name][i, j], int(outside.sum()) - 1
        raise DataError(
            f"`{name}` of subject {dataset.ids[i]} has DV {value:g}, which {kind} cannot give"
            f"{f' (and {others} more such records)' if others else ''}. Recode DV (categories count from 0), or choose "
            "another distribution in `observe`."
        )


def _why(latent: AbstractLatentModel, objective: Objective, dataset: Any, position: int) -> str:
    """The rows of one subject whose prediction or variance spoils the likelihood at eta = 0, in words."""
    subject = jax.tree.map(lambda x: x[position], dataset.subjects)
    theta = objective.coordinates.theta(jnp.asarray(objective.coordinates.start()), objective.fixed)
    with numpyro.validation_enabled(False):  # a distribution with invalid parameters is what is looked for here
        sites = latent.observe(theta, jnp.zeros(objective.q), subject)
    for name, distribution in sites.items():
        if not is_gaussian(distribution):
            continue
        mean, variance = (np.broadcast_to(x, subject.mask[name].shape) for x in (distribution.mean, distribution.variance))
        for rows, what, fix in (
            (subject.mask[name] & ~np.isfinite(mean), "has no finite prediction", "Check the start values and the covariates."),
            (
                subject.mask[name] & (variance <= 0),
                "is predicted as 0 and has residual variance 0",
                "Add an additive part to the residual model, or leave those records out (MDV 1).",
            ),
        ):
            if np.any(rows):
                times = ", ".join(f"{t:g}" for t in np.asarray(getattr(subject, "time", np.arange(len(rows))))[rows][:5])
                return f" `{name}` of subject {dataset.ids[position]} at TIME {times} {what}. {fix}"
    return " Try other start values."


def _labels(dataset: Any, mask: np.ndarray) -> tuple[Any, ...]:
    return tuple(np.asarray(dataset.ids)[np.asarray(mask, bool)])


def _uncertainty(objective: Objective, search: Search, method: AbstractMarginalMethod) -> Uncertainty | None:
    if method.covariance == "none" or objective.coordinates.size == 0:
        return None
    slope = objective.final(search.point.u, search.point.extra.z).slope
    return covariance(method.covariance, search.hessian, search.point.by_subject, slope, objective.coordinates.names)


def _result(
    objective: Objective,
    dataset: Any,
    point: Point,
    status: Status,
    uncertainty: Uncertainty | None,
    search: Search | None,
    seconds: dict[str, float],
    began: float,
) -> Fit:
    found: Contributions = point.extra
    latent, ids = objective.model, pd.Index(dataset.ids, name="ID")
    final = objective.final(point.u, found.z)
    estimates = pd.Series(final.report, final.names, name="estimate")
    etas = list(latent.eta_names())
    parameters = latent.parameters()
    ofv = found.value - objective.gaussian_observations() * np.log(2 * np.pi)
    contributions = pd.DataFrame(
        {
            "ofv": ofv,
            "log_likelihood": -0.5 * found.value,
            "observations": dataset.observations,
            "converged": found.converged,
            "iterations": found.iterations,
        },
        ids,
    )
    return Fit(
        model=latent.at(final.theta),
        method=objective.method,
        status=status,
        log_likelihood=float(-0.5 * np.sum(found.value)),
        ofv=float(np.sum(ofv)),
        estimates=estimates,
        units={name: p.unit for name, p in parameters.items() if p.unit},
        fixed=tuple(name for name in final.names if name in parameters and parameters[name].fixed),
        uncertainty=uncertainty,
        contributions=contributions,
        eta=pd.DataFrame(np.where(latent.used(dataset.subjects, len(ids)), found.z @ final.root.T, np.nan), ids, etas),
        eta_covariance=_posterior(final.root, found.hessian),
        individual=pd.DataFrame(final.individual, ids),
        omega=pd.DataFrame(final.root @ final.root.T, etas, etas),
        history=pd.DataFrame(search.history if search is not None else []),
        conventions=_conventions(latent, objective.method) | _passed_over(objective),
        seconds={**seconds, "total": time.perf_counter() - began},
        findings=tuple(getattr(dataset, "findings", ())),
        latent=latent,
        data=dataset,
    )


def _passed_over(objective: Objective) -> dict[str, str]:
    """What could not be solved on the way, in words; nothing where all could."""
    said = {}
    if objective.failures:
        said["not solved"] = f"{objective.failures} trial points of random effects, which were passed over"
    if objective.rescued:
        said["solved again"] = f"{objective.rescued} searches for a mode, by the stiff solver"
    return said


def _posterior(root: np.ndarray, hessian: np.ndarray) -> np.ndarray:
    """L H^-1 L' by subject; NaN where H is singular."""
    q = root.shape[0]
    if q == 0:
        return np.zeros((len(hessian), 0, 0))
    usable = np.all(np.isfinite(hessian), axis=(1, 2))
    safe = np.where(usable[:, None, None], hessian, np.eye(q))
    usable &= np.linalg.eigvalsh(safe)[:, 0] > 0
    inverse = np.linalg.inv(np.where(usable[:, None, None], safe, np.eye(q)))
    return np.where(usable[:, None, None], root @ inverse @ root.T, np.nan)


def _conventions(latent: AbstractLatentModel, method: AbstractMarginalMethod) -> dict[str, str]:
    interaction = getattr(method, "interaction", None)
    if interaction is None:
        return latent.conventions()
    where = "the individual prediction" if interaction else "eta = 0, in the inner and the outer problem"
    return {**latent.conventions(), "interaction": f"residual variance at {where}"}
