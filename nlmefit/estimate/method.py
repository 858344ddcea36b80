"""What every estimation method is, and what it returns."""

import abc
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import numpy as np
from jaxtyping import Array, Float

from nlmefit.estimate.posterior import AbstractPosterior
from nlmefit.estimate.problem import Problem
from nlmefit.estimate.standard_errors import Uncertainty
from nlmefit.estimate.status import Status

Kind = Literal["exact", "approximation", "estimate", "bound"]
"""What a number says of log p(y | theta): it is that; it is near it, with an error that is not known; it is the log of
an unbiased estimate of p(y | theta), with a known Monte Carlo error; it is below it."""


class Reporter(Protocol):
    """Where a method says how far it is."""

    def __call__(self, iteration: int, point: Any) -> None:
        """A new iterate, `point.value` its objective."""

    def stage(self, text: str) -> None: ...

    def tick(self) -> None: ...


@dataclass
class Found:
    """A method's answer for a problem of N subjects, q random effects and p free coordinates."""

    u: Float[np.ndarray, " p"]
    z: Float[np.ndarray, "N q"]
    """Whitened random effects by subject: modes, or means of p(z | y, theta)."""
    posterior: AbstractPosterior
    """p(z | y_i, theta) as the method knows it."""
    value: Float[np.ndarray, " N"]
    """-2 log p(y_i | theta) as the method has it."""
    status: Status
    kind: Kind = "approximation"
    error: Float[np.ndarray, " N"] | None = None
    """Monte Carlo standard error of `value`, None where there is none."""
    converged: np.ndarray | None = None
    iterations: np.ndarray | None = None
    uncertainty: Uncertainty | None = None
    history: list[dict[str, Any]] = field(default_factory=list)
    seconds: Mapping[str, float] = field(default_factory=dict)
    notes: Mapping[str, str] = field(default_factory=dict)
    """What the printed fit says of the method's own ways."""


class AbstractMethod(abc.ABC):
    """A way to estimate the parameters of a latent model; a hashable value, made of its options."""

    @property
    @abc.abstractmethod
    def name(self) -> str:
        """As users read it: "FOCE with interaction"."""

    @property
    def uses_priors(self) -> bool:
        """Whether priors declared in the model count."""
        return False

    @abc.abstractmethod
    def find(self, problem: Problem, progress: Reporter, key: Array) -> Found:
        """The estimates. Interrupting (Ctrl-C) ends with the best so far."""

    @abc.abstractmethod
    def evaluate(self, problem: Problem, key: Array) -> Found:
        """The method's objective and random effects at the start values, nothing estimated."""
