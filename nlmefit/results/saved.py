"""What stands for the model and the method of a loaded fit, and what is asked of a model, loaded or not."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, NamedTuple, final

from nlmefit.core.errors import ModelError
from nlmefit.declare.model import AbstractModel
from nlmefit.declare.parameters import LogNormal
from nlmefit.declare.variant import declared
from nlmefit.latent.model import AbstractLatentModel


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

    bind = parameters = omega = observe = taylor_expanded = used = _missing  # type: ignore[assignment]
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
