"""What every method that trains networks is, and the fit that it gives."""

import abc
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import pandas as pd
from jaxtyping import Array

from nlmefit.core import archive
from nlmefit.core.errors import MethodError
from nlmefit.core.shown import html
from nlmefit.core.typing import Scalar
from nlmefit.core.versions import versions
from nlmefit.estimate.method import Reporter
from nlmefit.estimate.status import Status
from nlmefit.generative.capability import AbstractGenerative
from nlmefit.generative.rows import Samples
from nlmefit.generative.serialization import content, restored
from nlmefit.generative.training import Trained, Training, train
from nlmefit.latent.model import AbstractLatentModel

NAMED = ("model", "method", "status")
"""Fields of a fit that a file holds by the names of their classes and fields."""
AS_THEY_ARE = ("loss", "history", "rows", "seconds", "key", "provenance")


def methods_of(model: Any) -> str:
    """The methods that fit a model, in words."""
    own = [f"gen.{name}()" for name in getattr(model, "fitted_by", ())]
    latent = ["nm.Laplace()", "nm.VI()", "nm.ImportanceEM()"] if isinstance(model, AbstractLatentModel) else []
    return ", ".join(own + latent) or "none: it is made of a model that has been fitted"


class AbstractTrainer(abc.ABC):
    """A way to train a generative model; a hashable value, made of its options."""

    training: Training | None
    needs: ClassVar[type]
    """The capability that a model must have."""
    ability: ClassVar[str]
    """That, in words: "log p(x)"."""
    objective: ClassVar[str]
    """What is minimized, in words."""

    @property
    @abc.abstractmethod
    def name(self) -> str:
        """As users read it."""

    @abc.abstractmethod
    def loss(self, model: Any, x: Array, given: Array, key: Array) -> Scalar:
        """What is minimized: a mean over rows x (B, D) with their conditions (B, C)."""

    def train(self, model: Any, data: Samples, progress: Reporter, key: Array) -> Trained:
        """The model with trained weights."""
        return train(self.loss, model, data, self.training or Training(), progress, key)

    def check(self, model: Any) -> None:
        """MethodError where the model cannot compute what the method needs."""
        if not isinstance(model, self.needs):
            raise MethodError(
                f"{self.name} needs a model that can compute {self.ability}, which {type(model).__name__} cannot. "
                f"{type(model).__name__} is fitted by {methods_of(model)}."
            )


@dataclass(frozen=True)
class GenerativeFit:
    """A trained generative model; `print` it for what was minimized, how far, and whether to trust it."""

    model: AbstractGenerative
    """With its trained weights: `.sample`, `.log_prob`, `.elbo` ... as it can."""
    method: AbstractTrainer
    status: Status
    loss: float
    """Mean over the last tenth of the steps, or the least over the rows held out."""
    history: pd.DataFrame
    """The loss by step, and what else the method records; `held_out` where it was looked at."""
    rows: int
    seconds: Mapping[str, float]
    key: np.ndarray = field(repr=False)
    provenance: Mapping[str, Any] = field(repr=False)
    """The versions of the packages that it was made with, and the SHA-256 of the data."""

    @classmethod
    def of(cls, method: AbstractTrainer, trained: Trained, data: Samples, seconds: float, key: np.ndarray) -> "GenerativeFit":
        history = pd.DataFrame({"step": np.arange(1, len(trained.losses) + 1), "loss": trained.losses, **trained.record})
        last = trained.losses[-max(1, len(trained.losses) // 10) :]
        loss = float(np.mean(last)) if len(last) else np.nan
        if trained.held_out:
            history = history.merge(pd.DataFrame(trained.held_out, columns=["step", "held_out"]), on="step", how="left")
            loss = min(value for _, value in trained.held_out)
        provenance = {"versions": versions(), "data": {"sha256": data.sha256, "rows": len(data)}}
        spent = {**trained.seconds, "total": seconds}
        return cls(trained.model, method, trained.status(), loss, history, len(data), spent, key, provenance)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the fit to one file, for `nm.load`: weights, numbers and text, no code, no data.

        An older file is replaced at the end, in one step. Raises NlmefitError where `path` is a folder, lies in none, or cannot
        be written, ModelError for a model or a method that holds what is no array, no number and no module.
        """
        named = {name: content(getattr(self, name), name) for name in NAMED}
        archive.write(path, {"generative": {**named, **{name: getattr(self, name) for name in AS_THEY_ARE}}})

    @classmethod
    def restored(cls, saved: Mapping[str, Any], own: Mapping[str, Any]) -> "GenerativeFit":
        """From what `save` wrote; `own` are the user's classes and functions by name. NlmefitError for others."""
        named = {name: restored(saved[name], own) for name in NAMED}
        return cls(**named, **{name: saved[name] for name in AS_THEY_ARE})

    def __str__(self) -> str:
        where = "on rows held out" if "held_out" in self.history else "over the last tenth of the steps"
        spent = ", ".join(f"{name} {value:.1f}" for name, value in self.seconds.items())
        return "\n".join(
            [
                f"{type(self.model).__name__} by {self.method.name}",
                f"Status     {self.status}",
                f"Data       {self.rows} rows, {self.model.dimension} columns"
                + (f", {self.model.conditions} condition(s)" if self.model.conditions else ""),
                f"Objective  {self.loss:.6g} {where}: {self.method.objective}",
                f"Seconds    {spent}",
            ]
        )

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return html(self)
