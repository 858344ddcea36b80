"""A fit as ArviZ reads it: draws of parameters and random effects, their log-likelihoods, the data."""

import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from nlmefit.core.backend import compiled
from nlmefit.core.errors import MethodError, ModelError, NlmefitError
from nlmefit.core.keys import jax_key
from nlmefit.core.typing import Theta
from nlmefit.core.versions import VERSIONED, package_version
from nlmefit.estimate import random_numbers
from nlmefit.estimate.coordinates import Coordinates
from nlmefit.estimate.problem import Problem
from nlmefit.estimate.referee.importance import sample
from nlmefit.latent.model import AbstractLatentModel
from nlmefit.latent.program import observed_sites
from nlmefit.latent.programs import program
from nlmefit.results.joint_draws import Sample, approximated, of_chains, proposals_at
from nlmefit.results.record import FitRecord

try:
    with warnings.catch_warnings():  # ArviZ announces its refactoring on every import
        warnings.simplefilter("ignore", FutureWarning)
        import arviz as az
        import xarray as xr
except ImportError as error:
    raise NlmefitError(f"to_arviz needs ArviZ, which could not be imported ({error}): pip install arviz.") from error

DRAWS = 1000
"""Of a method that has an approximation to draw from."""
ROWS, ODE_ROWS = 1 << 18, 1 << 14
"""Observation rows (draws x subjects x rows) evaluated at once: bounds the memory."""
CHAIN = ("chain", "draw")


def to_arviz(fit: FitRecord, draws: int | None = None, *, key: Any = 0, inner: int = 50) -> Any:
    """A fit as `arviz.InferenceData` or `xarray.DataTree`; see `Fit.to_arviz`, which states the arguments.

    - `posterior`: estimated parameters by name, natural scale; `eta` (chain, draw, ID, effect), NaN where a subject has not the
      effect. Its attributes say what it is draws of.
    - `log_likelihood`: by endpoint log p(y_ij | theta, eta_i) along `<endpoint>_observation`, coordinates `<endpoint>_ID` and
      (panel data) `<endpoint>_TIME`; and `subject`, log p(y_i | theta) along ID.
    - `sample_stats`: NUTS's energy, steps, acceptance and divergences.
    - `observed_data` by endpoint; `constant_data`: covariates at the first record by ID, and fixed parameters.

    Raises NlmefitError of a fit without its data, MethodError for `draws` and `inner` out of range, ModelError where an endpoint
    or a parameter has the name of something else in its group.
    """
    problem = _problem(fit)
    _check_whole("draws", draws if draws is not None else DRAWS, 1)
    _check_whole("inner", inner, 0)
    seed = jax_key(key)
    drawn = of_chains(problem, fit, draws) or approximated(problem, fit, DRAWS if draws is None else draws, seed)
    report, eta, terms = _evaluated(problem, drawn)
    attributes = _attributes(fit, drawn, seed)
    rows = {name: np.asarray(mask, bool) for name, mask in problem.subjects.mask.items()}
    likelihood = {name: ((*CHAIN, f"{name}_observation"), values) for name, values in terms.items()}
    coordinates = _chain(drawn) | {"ID": _labels(problem.ids)}
    if inner:
        _check_names(likelihood, {"subject"}, "endpoint")
        likelihood["subject"] = ((*CHAIN, "ID"), _marginal(problem, drawn, inner, seed))
    observed = {
        name: ((f"{name}_observation",), np.asarray(problem.subjects.observed[name])[real]) for name, real in rows.items()
    }
    along = {key: value for name, real in rows.items() for key, value in _along(problem, name, real).items()}
    used = set(likelihood) & {"ID", *CHAIN, *along}
    _check_names(likelihood, used, "endpoint")
    groups: dict[str, Any] = {
        "posterior": _posterior(problem, fit, drawn, report, eta, attributes),
        "log_likelihood": xr.Dataset(likelihood, coordinates | along, attributes),
        "observed_data": xr.Dataset(observed, along),
        "constant_data": _constant(problem, fit),
        "sample_stats": _statistics(fit, drawn),
    }
    return _together({name: group for name, group in groups.items() if group is not None})


def _together(groups: Mapping[str, xr.Dataset]) -> Any:
    """As the installed ArviZ holds groups: up to 0.23 in a class of its own, since 1.0 in xarray's."""
    own = vars(az).get("InferenceData")  # not by getattr, of which 1.0 warns
    return xr.DataTree.from_dict(groups) if own is None else own(**groups)


def _problem(fit: FitRecord) -> Problem:
    if fit.latent is None or fit.data is None or fit.found is None:
        raise NlmefitError("this fit has no data (it was loaded from a file); call to_arviz on what nm.fit returned.")
    return Problem(fit.latent, fit.data)


def _check_whole(name: str, value: Any, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
        raise MethodError(f"{name} must be a whole number from {least} up, got {value!r}.")


def _check_names(names: Any, used: set[str], what: str) -> None:
    for name in names:
        if name in used:
            raise ModelError(f"the {what} `{name}` has a name that ArviZ's groups use themselves there; rename it in the model.")


def _evaluated(problem: Problem, drawn: Sample) -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]:
    """Of every draw: the named parameters (c, d, k), eta (c, d, N, q), and by endpoint the log density of every observation."""
    run = _program(problem.model)
    masks = {name: np.asarray(mask, bool) for name, mask in problem.subjects.mask.items()}
    width = max(1, (ODE_ROWS if problem.model.solves_ode else ROWS) // max(1, sum(mask.size for mask in masks.values())))
    subjects = jax.device_put(problem.subjects)
    shape, kept = drawn.u.shape[:2], []
    u, z = _by_draw(drawn.u), _by_draw(drawn.z)
    for own, places in _chunks(len(u), width):
        report, eta, terms = run(u[places], problem.fixed, z[places], subjects)
        rows = [np.asarray(terms[name])[:own, real] for name, real in masks.items()]
        kept.append((np.asarray(report)[:own], np.asarray(eta)[:own], *rows))
    report, eta, *rows = (np.concatenate(part).reshape(*shape, *part[0].shape[1:]) for part in zip(*kept, strict=True))
    return report, eta, dict(zip(masks, rows, strict=True))


def _by_draw(x: np.ndarray) -> np.ndarray:
    """All chains' draws along one axis."""
    return x.reshape(x.shape[0] * x.shape[1], *x.shape[2:])


def _chunks(size: int, width: int) -> Iterator[tuple[int, np.ndarray]]:
    """Positions in chunks of one width, so that one program does them all, and how many of each count."""
    width = min(width, size)
    for start in range(0, size, width):
        yield min(width, size - start), np.minimum(np.arange(start, start + width), size - 1)


@program
def _program(model: AbstractLatentModel) -> Any:
    coordinates = Coordinates(model.parameters())

    def one(u: Array, fixed: Theta, z: Array, subjects: Any) -> tuple[Array, Array, dict[str, Array]]:
        theta = coordinates.theta(u, fixed)
        root = model.omega(theta)

        def terms(z: Array, subject: Any) -> dict[str, Array]:
            sites = observed_sites(model, theta, root, z, subject)
            return {name: jnp.broadcast_to(s.distribution.log_prob(s.value), s.mask.shape) for name, s in sites.items()}

        return model.reported(theta), z @ root.T, jax.vmap(terms)(z, subjects)

    return compiled(jax.vmap(one, in_axes=(0, None, 0, None)))


def _marginal(problem: Problem, drawn: Sample, inner: int, key: Array) -> Float[np.ndarray, "c d N"]:
    """log p(y_i | theta) of every draw, by importance sampling around the modes at that theta."""
    rng = random_numbers.generator(key)
    u = _by_draw(drawn.u)
    proposals = proposals_at(problem, u) if drawn.proposals is None else drawn.proposals
    found = [sample(problem, at, p, rng, inner).log_likelihood for at, p in zip(u, proposals, strict=True)]
    return np.stack(found).reshape(*drawn.u.shape[:2], problem.size)


# ---- groups ----------------------------------------------------------------------------------------------------------


def _chain(drawn: Sample) -> dict[str, Any]:
    chains, draws = drawn.u.shape[:2]
    return {"chain": np.arange(chains), "draw": np.arange(draws)}


def _labels(values: Any) -> np.ndarray:
    """Labels as numbers or text, which netCDF can hold."""
    values = list(values)
    return np.array(values if len({type(v) for v in values}) == 1 else [str(v) for v in values])


def _along(problem: Problem, name: str, real: np.ndarray) -> dict[str, Any]:
    """Whose each observation of an endpoint is, and when."""
    dimension = f"{name}_observation"
    found = {f"{name}_ID": (dimension, _labels(problem.ids)[np.nonzero(real)[0]])}
    time = getattr(problem.subjects, "time", None)
    return found if time is None else found | {f"{name}_TIME": (dimension, np.asarray(time)[real])}


def _posterior(
    problem: Problem, fit: FitRecord, drawn: Sample, report: np.ndarray, eta: np.ndarray, attributes: Mapping[str, str]
) -> xr.Dataset:
    names = [str(name) for name in fit.estimates.index]
    _check_names(names, {"eta", "ID", "effect", *CHAIN}, "parameter")
    found: dict[str, Any] = {name: (CHAIN, report[..., k]) for k, name in enumerate(names) if name not in fit.fixed}
    coordinates = _chain(drawn)
    if problem.q:
        used = problem.model.used(problem.subjects, problem.size)
        found["eta"] = ((*CHAIN, "ID", "effect"), np.where(used, eta, np.nan))
        coordinates |= {"ID": _labels(problem.ids), "effect": list(problem.model.eta_names())}
    return xr.Dataset(found, coordinates, attributes)


def _constant(problem: Problem, fit: FitRecord) -> xr.Dataset | None:
    covariates = getattr(problem.subjects, "covariates", {})
    found: dict[str, Any] = {name: (("ID",), np.asarray(values)) for name, values in covariates.items()}
    found |= {name: ((), float(fit.estimates[name])) for name in fit.fixed}
    return xr.Dataset(found, {"ID": _labels(problem.ids)}) if found else None


def _statistics(fit: FitRecord, drawn: Sample) -> xr.Dataset | None:
    """The sampler's own record, under ArviZ's names; None of a method without chains, and of thinned ones."""
    names = {"energy": "energy", "steps": "n_steps", "acceptance": "acceptance_rate", "diverging": "diverging"}
    shape = drawn.u.shape[:2]
    if "chain" not in fit.history or len(fit.history) != shape[0] * shape[1]:
        return None
    found = {names[n]: (CHAIN, fit.history[n].to_numpy().reshape(shape)) for n in names if n in fit.history}
    return xr.Dataset(found, _chain(drawn))


def _attributes(fit: FitRecord, drawn: Sample, key: Array) -> dict[str, str]:
    versions = {f"{name}_version": package_version(name) for name in VERSIONED}
    return {
        "inference_library": "nlmefit",
        "method": fit.method.name,
        "approximation": drawn.approximation,
        "key": " ".join(map(str, np.asarray(jax.random.key_data(key)).ravel())),
        **versions,
    }
