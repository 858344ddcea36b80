"""A fit as plain content for an archive and back, and what stands for the model and the method of a loaded one."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, NamedTuple, final

import jax
import numpy as np

from nlmefit.core.errors import ModelError
from nlmefit.core.versions import versions
from nlmefit.data.subjects import Subjects
from nlmefit.declare.model import AbstractModel
from nlmefit.declare.parameters import LogNormal
from nlmefit.declare.variant import declared
from nlmefit.estimate.method import AbstractMethod, Found
from nlmefit.estimate.standard_errors import Uncertainty
from nlmefit.estimate.status import Status
from nlmefit.generative import serialization
from nlmefit.generative.capability import AbstractGenerative
from nlmefit.latent.model import AbstractLatentModel
from nlmefit.results.saved_posterior import posterior_content, restored_posterior

if TYPE_CHECKING:
    from nlmefit.results.fit import Fit

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
    "key",
)
CONVERTED = ("fixed", "status", "findings", "uncertainty", "model", "method", "found", "provenance")
LEFT_OUT = ("latent", "data")
"""Fields of a fit that a file does not hold: the user's data, and the model bound to them."""


@final
class SavedModel(AbstractLatentModel):
    """What a file holds of a model: its name, equations and values, as text and numbers.

    It takes a latent model's place, and tells whoever would compute with it what is missing: ModelError on every other use.
    """

    description: Mapping[str, Any]

    @property
    def name(self) -> str:
        """Of the class that the model was an instance of."""
        return str(self.description["name"])

    @property
    def values(self) -> dict[str, float]:
        """The population parameters by name, on their natural scale."""
        return dict(self.description["values"])

    def equations(self) -> str:
        """The model as equations, in plain text."""
        return str(self.description["text"])

    def population(self) -> dict[str, SimpleNamespace]:
        """The bounds by population parameter."""
        return {name: SimpleNamespace(lower=a, upper=b) for name, (a, b) in self.description["bounds"].items()}

    def __repr__(self) -> str:
        return f"{self.equations()}\n\n(As saved: text and values. {self._remedy()})"

    def _remedy(self) -> str:
        return f"Pass the model to compute with it: nm.load(path, model={self.name}(...))."

    def _missing(self, *arguments: Any) -> Any:
        raise ModelError(f"this fit was loaded without its model, only with its equations as text. {self._remedy()}")

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):  # Python's and the notebooks' own questions
            raise AttributeError(name)
        return self._missing()

    bind = parameters = omega = observe = near = used = _missing  # type: ignore[assignment]
    eta_names = structure = report = individual = at = conventions = _missing  # type: ignore[assignment]


@final
@dataclass(frozen=True)
class SavedMethod:
    """What a file holds of a method: its name, how it prints, its options, and of which class it was."""

    name: str
    text: str
    options: Mapping[str, Any]
    """Numbers, words, truth values; of an option that is a method itself (nm.MAP's), its `kind` and `options`."""
    kind: str = ""
    """Empty in files of older versions."""

    def __repr__(self) -> str:
        return self.text


def model_name(model: Any) -> str:
    """The name of a model's class."""
    return model.name if isinstance(model, SavedModel) else type(model).__name__


def model_title(model: Any) -> str:
    """The name of a model's class, and what a variant declares otherwise."""
    if isinstance(model, SavedModel):
        return str(model.description.get("title", model.name))  # files of older versions have none
    return " ".join(filter(None, [model_name(model), declared(model) if isinstance(model, AbstractModel) else ""]))


class Traits(NamedTuple):
    """What tables need to know of a declared model."""

    log_normal: list[str]
    """The individual parameters that are log-normal."""
    scores: list[str]
    """The random effects that a flow is made of."""
    networks: dict[str, list[str]]
    """The names of the weights by network."""


def traits(model: Any) -> Traits:
    """Those of a declared model, also of a saved one; nothing of another model."""
    if isinstance(model, SavedModel):
        return Traits(**model.description["traits"])
    if not isinstance(model, AbstractModel):
        return Traits([], [], {})
    spec = model.specification
    normal = [name for name, p in spec.individuals.items() if isinstance(p, LogNormal)]
    return Traits(normal, list(spec.scores), {name: list(network.weights(name)) for name, network in spec.networks.items()})


# ---- to content ------------------------------------------------------------------------------------------------------


def content(fit: "Fit") -> dict[str, Any]:
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


def _model(fit: "Fit") -> dict[str, Any]:
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


def _provenance(fit: "Fit") -> dict[str, Any]:
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


def same_data(fit: "Fit", data: Any) -> bool:
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
