"""What a file holds of a fit: plain content, to it and back."""

import hashlib
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any

import jax
import numpy as np

from nlmefit.core.versions import versions
from nlmefit.data.subjects import Subjects
from nlmefit.declare.model import AbstractModel
from nlmefit.estimate.method import AbstractMethod, Found
from nlmefit.estimate.standard_errors import Uncertainty
from nlmefit.estimate.status import Status
from nlmefit.generative import serialization
from nlmefit.generative.capability import AbstractGenerative
from nlmefit.results.record import FitRecord
from nlmefit.results.saved import SavedMethod, SavedModel, model_name, model_title, traits
from nlmefit.results.saved_posterior import posterior_content, restored_posterior

AS_THEY_ARE = (
    "log_likelihood",
    "ofv",
    "kind",
    "mc_se",
    "estimates",
    "units",
    "contributions",
    "eta",
    "eta_covariance",
    "individual",
    "omega",
    "history",
    "conventions",
    "seconds",
    "occasions",
    "key",
)
CONVERTED = ("fixed", "status", "findings", "uncertainty", "model", "method", "found", "provenance")
LEFT_OUT = ("latent", "data")
"""Fields of a fit that a file does not hold: the user's data, and the model bound to them."""


# ---- to content ------------------------------------------------------------------------------------------------------


def content(fit: FitRecord) -> dict[str, Any]:
    """A fit as text, numbers, arrays and tables."""
    return {
        **{name: getattr(fit, name) for name in AS_THEY_ARE},
        "fixed": list(fit.fixed),
        "status": {"state": fit.status.state, "reasons": list(fit.status.reasons)},
        "findings": [str(finding) for finding in fit.findings],
        "uncertainty": None if fit.uncertainty is None else _parts(fit.uncertainty),
        "model": _model(fit),
        "method": _method(fit.method),
        "found": _found(fit.found),
        "provenance": fit.provenance or _provenance(fit),
    }


def _parts(value: Any) -> dict[str, Any]:
    return {field.name: getattr(value, field.name) for field in fields(value)}


def _model(fit: FitRecord) -> dict[str, Any]:
    model = fit.model
    if isinstance(model, SavedModel):
        return dict(model.description)
    of_class = isinstance(model, AbstractModel)
    population = model.population() if of_class else {}
    return {
        "name": model_name(model),
        "title": model_title(model),
        "declared": of_class,
        "text": model.equations() if of_class else repr(model),
        "values": model.values if of_class else {name: float(value) for name, value in fit.estimates.items()},
        "bounds": {name: [p.lower, p.upper] for name, p in population.items()},
        "fixed": [name for name, p in population.items() if p.fixed],
        "traits": traits(model)._asdict(),
        "effects": list(map(str, fit.eta.columns)),
        "levels": {c.column: list(c.found) for c in model.specification.categories if c.found} if of_class else {},
        "theta": {} if of_class else {name: np.asarray(p.start) for name, p in model.parameters().items()},
        "generative": serialization.content(model, "model") if isinstance(model, AbstractGenerative) else None,
    }


def _method(method: Any) -> dict[str, Any]:
    if isinstance(method, SavedMethod):
        return _parts(method)
    return {"name": method.name, "text": repr(method), **_options(method)}


def _options(method: Any) -> dict[str, Any]:
    """A method's class and its options."""
    given = _parts(method) if is_dataclass(method) else {}
    return {"options": {name: _option(value) for name, value in given.items()}, "kind": type(method).__name__}


def _option(value: Any) -> Any:
    if isinstance(value, AbstractMethod):
        return _options(value)
    return value if isinstance(value, bool | int | float | str | None) else repr(value)


def _found(found: Found | None) -> dict[str, Any] | None:
    """The answer on the method's own scale; None where its posterior is of a kind that does not come back."""
    posterior = None if found is None else posterior_content(found.posterior)
    if found is None or posterior is None:
        return None
    arrays = {name: getattr(found, name) for name in ("u", "z", "value", "error", "converged", "iterations")}
    return {name: v if v is None else np.asarray(v) for name, v in arrays.items()} | {"posterior": posterior}


def _provenance(fit: FitRecord) -> dict[str, Any]:
    frame = getattr(fit.data, "frame", None)
    rows = len(fit.contributions) if frame is None else len(frame)
    return {"versions": versions(), "data": {"sha256": data_hash(fit.data), "rows": rows, "reading": reading(fit.data)}}


def data_hash(data: Any) -> str:
    """SHA-256 of a data set: of the user's records as text, or of a matrix' numbers."""
    frame = getattr(data, "frame", None)
    if frame is not None:
        return hashlib.sha256(frame.to_csv(index=False).encode()).hexdigest()
    parts = [np.ascontiguousarray(x).tobytes() for x in jax.tree.leaves(getattr(data, "subjects", None))]
    return hashlib.sha256(b"".join(parts)).hexdigest()


def reading(data: Any) -> dict[str, Any]:
    """By what rules records were read: how covariates run between them, what counts below a limit, what the columns mean."""
    if not isinstance(data, Subjects):
        return {}
    return {"covariates": data.rule, "blq": data.blq, "columns": {str(k): str(v) for k, v in data.columns.items()}}


def same_data(fit: FitRecord, data: Any) -> bool:
    """Whether these are the fit's own data, record by record, read by the same rules."""
    known = fit.provenance.get("data") if fit.provenance else _provenance(fit)["data"]
    assert known is not None
    return bool(known["sha256"] == data_hash(data) and known.get("reading", reading(data)) == reading(data))  # old files: none


# ---- and back --------------------------------------------------------------------------------------------------------


def restored(saved: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a fit, from `content`. Raises KeyError, TypeError or ValueError where it is not the content of one."""
    status = Status(saved["status"]["state"], tuple(saved["status"]["reasons"]))
    uncertainty = None if saved["uncertainty"] is None else Uncertainty(**saved["uncertainty"])
    found = saved["found"]
    if found is not None:
        posterior = restored_posterior(found.pop("posterior"))
        found = Found(**found, posterior=posterior, status=status, kind=saved["kind"], uncertainty=uncertainty)
    return {
        **{name: saved[name] for name in AS_THEY_ARE},
        "fixed": tuple(saved["fixed"]),
        "status": status,
        "findings": tuple(saved["findings"]),
        "uncertainty": uncertainty,
        "model": SavedModel(dict(saved["model"])),
        "method": SavedMethod(**saved["method"]),
        "found": found,
        "provenance": saved["provenance"],
    }
