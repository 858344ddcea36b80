"""`nm.fit` and `nm.evaluate`: one verb, methods as values."""

import time
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
import pandas as pd

from nlmefit.core.backend import check_process
from nlmefit.core.errors import DataError, MethodError, ModelError
from nlmefit.core.keys import Key, jax_key
from nlmefit.core.options import brief
from nlmefit.core.progress import Progress
from nlmefit.data.needs import needs_of
from nlmefit.data.reading import Reading
from nlmefit.data.subjects import Subjects
from nlmefit.estimate.method import AbstractMethod, Found
from nlmefit.estimate.problem import Problem
from nlmefit.generative.capability import AbstractGenerative
from nlmefit.generative.rows import Samples
from nlmefit.generative.trainer import AbstractTrainer, GenerativeFit, methods_of
from nlmefit.latent.model import AbstractLatentModel
from nlmefit.population.latent import PopulationModel
from nlmefit.population.model import Model
from nlmefit.results.fit import Fit

Data = pd.DataFrame | Subjects | np.ndarray | jax.Array | tuple[Any, Any]


def fit(
    model: Model | AbstractLatentModel | AbstractGenerative,
    data: Data,
    method: AbstractMethod | AbstractTrainer,
    *,
    key: Key = 0,
    start: Mapping[str, float] | Fit | None = None,
    progress: bool = True,
) -> Any:
    """Fit `model` to `data` by `method`.

    **Everyday arguments:** `model` an instance of your `nm.Model` (or a generative latent model); `data` a DataFrame in NONMEM's
    columns (or `nm.Subjects`, or a matrix for generative models); `method` a value such as `nm.FOCE(interaction=True)`.

    **Others:** `key` a number (or a JAX key) that decides every random draw: the same call gives the same answer; `start` other
    values to start from, by name, or an earlier fit, by whatever method; `progress` a line of progress on standard error while a
    fit takes longer than two seconds.

    Returns a `Fit` (of generative models with networks a `gen.GenerativeFit`); its `status` says whether to trust it. Ctrl-C ends
    the search and returns the best values so far.

    Raises DataError for unusable data (all findings listed), ModelError for names and values, MethodError where the method
    cannot honour what the model declares.
    """
    began = time.perf_counter()
    check_process()
    random = jax_key(key)
    if isinstance(model, AbstractGenerative) and not (
        isinstance(model, AbstractLatentModel) and isinstance(method, AbstractMethod)
    ):
        return _trained(model, data, method, start, random, progress, began)
    problem = _problem(_started(model, start, data), data, method)
    assert isinstance(method, AbstractMethod)  # checked above
    with Progress(progress, method.name) as line:
        found = method.find(problem, line, random)
    return _assembled(problem, method, found, random, began)


def _trained(
    model: AbstractGenerative, data: Data, method: Any, start: Any, key: jax.Array, progress: bool, began: float
) -> GenerativeFit:
    """Networks are trained rather than estimated."""
    check_process()
    if isinstance(method, type):
        raise MethodError(f"{method.__name__} is a class; pass a value: {method.__name__}().")
    if not isinstance(method, AbstractTrainer):
        known = isinstance(method, AbstractMethod)
        name = f"{method.name}, which needs log p(y, eta)" if known else brief(method)
        raise MethodError(f"{type(model).__name__} is fitted by {methods_of(model)}, not by {name}.")
    if start is not None:
        raise MethodError("start= is for named parameters; to go on with a trained model, fit that: nm.fit(earlier.model, ...).")
    method.check(model)
    samples = Samples.of(data)
    build, run = jax.random.split(key)
    with Progress(progress, method.name) as line:
        trained = method.train(model.started(samples, build), samples, line, run)
    seconds = time.perf_counter() - began
    return GenerativeFit.of(method, trained, samples, seconds, np.asarray(jax.random.key_data(key)))


def evaluate(model: Model | AbstractLatentModel | Fit, data: Data | None, method: AbstractMethod, *, key: Key = 0) -> Fit:
    """A `Fit` at the model's own values (NONMEM's MAXEVAL=0): objective, contributions, random effects; no standard errors.

    At a fit, `data` in a DataFrame are read by the fit's own rules (columns, covariates, BLQ); pass `nm.Subjects` for others,
    None for the fit's own data. Raises as `fit` does.
    """
    began = time.perf_counter()
    problem = _problem(model, data, method)
    random = jax_key(key)
    return _assembled(problem, method, method.evaluate(problem, random), random, began)


def _problem(model: Any, data: Data | None, method: Any) -> Problem:
    _check_method(method)
    latent, dataset = bind(model, data)
    _check_priors(latent, method)
    return Problem(latent, dataset)


def bind(model: Any, data: Data | None, design: bool = False) -> tuple[AbstractLatentModel, Any]:
    """The latent model and the laid-out data set of a declared or generative model, or of a fit of one, by whose rules the data
    are then read; None for the fit's own. With `design`, a table without any DV will do."""
    check_process()
    data = own_data(model) if data is None else data
    reading = model.reading.of(data) if isinstance(model, Fit) else Reading()
    model = model.model if isinstance(model, Fit) else model
    if isinstance(model, type) and issubclass(model, Model | AbstractGenerative):
        example = f"{model.__name__}()" if issubclass(model, Model) else f"gen.{model.__name__}(...)"
        raise ModelError(f"{model.__name__} is a class; pass an instance: {example}.")
    if isinstance(model, Model):
        subjects = Subjects.of(data, model, reading, every_record=design and reading.is_design(data))
        return PopulationModel.of(model, subjects), subjects
    if isinstance(model, AbstractLatentModel) and hasattr(model, "bind"):
        return model.bind(data)
    raise ModelError(f"model must be an instance of an nm.Model class or of a latent model, got {type(model).__name__}.")


def own_data(model: Any) -> Any:
    """The data that a fit is of. DataError where there are none: of a model, of a loaded fit."""
    if isinstance(model, Fit) and isinstance(model.data, Subjects):
        return model.data
    kind = "a fit that was loaded, or of a model that is no nm.Model," if isinstance(model, Fit) else "a model"
    raise DataError(f"data= is needed: {kind} holds no data of its own.")


def _started(model: Any, start: Mapping[str, float] | Fit | None, data: Data) -> Any:
    if start is None:
        return model
    if not isinstance(start, Mapping | Fit):
        raise ModelError(f"start= takes values by name, {{'CL': 0.14}}, or an earlier fit, got {start!r}.")
    if not isinstance(model, Model):
        raise ModelError("start= needs a model with named values (an nm.Model).")
    if needs_of(model).references:  # categories whose coefficients are named by the data's levels
        model = model.with_levels(Subjects.of(data, model).needs.levels)
    fixed = [name for name, p in model.population().items() if p.fixed]
    if isinstance(start, Fit):  # a fixed value is the model's, whatever an earlier fit says
        return model.at({name: value for name, value in start.parameters_at().items() if name not in fixed})
    given = [name for name in start if name in fixed]
    if given:
        raise ModelError(f"start= gives {', '.join(given)}, which the model fixes; use model.at(...) to fix another value.")
    return model.at(start)


def _check_method(method: Any) -> None:
    if isinstance(method, type):
        raise MethodError(f"{method.__name__} is a class; pass a value: nm.{method.__name__}().")
    if not isinstance(method, AbstractMethod):
        raise MethodError(f"method must be a value such as nm.FOCE(interaction=True) or nm.Laplace(), got {method!r}.")


def _check_priors(latent: AbstractLatentModel, method: AbstractMethod) -> None:
    with_prior = [name for name, p in latent.parameters().items() if p.declared_prior]
    if with_prior and not method.uses_priors:
        raise MethodError(
            f"{method.name} maximizes the likelihood and would ignore the prior of {', '.join(with_prior)}; "
            "leave prior= out, or use nm.NUTS() or nm.MAP(...)."
        )


def _assembled(problem: Problem, method: AbstractMethod, found: Found, key: jax.Array, began: float) -> Fit:
    latent, ids = problem.model, pd.Index(problem.ids, name="ID")
    final = problem.final(found.u, found.z)
    etas = list(latent.eta_names())
    parameters = latent.parameters()
    ofv = found.value - problem.gaussian_observations() * np.log(2 * np.pi)
    ofv = np.full_like(ofv, np.nan) if found.kind == "bound" else ofv
    contributions = pd.DataFrame(
        {
            "ofv": ofv,
            "log_likelihood": -0.5 * found.value,
            "observations": problem.data.observations,
            **({} if found.error is None else {"mc_se": 0.5 * found.error}),
            **({} if found.converged is None else {"converged": found.converged}),
            **({} if found.iterations is None else {"iterations": found.iterations}),
        },
        ids,
    )
    return Fit(
        model=latent.at(final.theta),
        method=method,
        status=found.status,
        log_likelihood=float(-0.5 * np.sum(found.value)),
        mc_se=0.0 if found.error is None else float(0.5 * np.sqrt(np.sum(found.error**2))),
        kind=found.kind,
        ofv=float(np.sum(ofv)),
        estimates=pd.Series(final.report, final.names, name="estimate"),
        units={name: p.unit for name, p in parameters.items() if p.unit},
        fixed=tuple(name for name in final.names if name in parameters and parameters[name].fixed),
        uncertainty=found.uncertainty,
        contributions=contributions,
        eta=pd.DataFrame(np.where(latent.used(problem.subjects, len(ids)), found.z @ final.root.T, np.nan), ids, etas),
        eta_covariance=final.root @ found.posterior.covariance @ final.root.T,
        individual=pd.DataFrame(final.individual, ids),
        omega=pd.DataFrame(final.root @ final.root.T, etas, etas),
        history=pd.DataFrame(found.history),
        conventions={**latent.conventions(), **getattr(problem.data, "conventions", {}), **found.notes},
        seconds={**found.seconds, "total": time.perf_counter() - began},
        findings=tuple(getattr(problem.data, "findings", ())),
        occasions=getattr(problem.data, "occasions", None),
        latent=latent,
        data=problem.data,
        found=found,
        key=np.asarray(jax.random.key_data(key)),
    )
