"""Parameters of a population model: individual parameters with random effects, and fixed effects.

An individual parameter is h(mu(x) + eta) with eta ~ N(0, omega^2): the typical value and the covariates
make mu, the distribution's name fixes h (Lavielle 2014, ch. 3).
"""

import abc
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, final

import jax.numpy as jnp

from nlmefit.core.errors import ModelError
from nlmefit.declare.covariates import AbstractEffect
from nlmefit.declare.values import check_fixed, check_unit, is_fixed, number, real


class AbstractIndividual(abc.ABC):
    """What LogNormal, Normal and LogitNormal share: fields, checks, and the place of h.

    Subclasses give `check_value`, `transform` (h as a function of typical value, effects and eta) and the
    texts of the equation.
    """

    value: Any
    iiv: Any
    iov: Any
    covariates: Sequence[AbstractEffect]
    unit: str
    prior: Any
    fixed: bool

    @abc.abstractmethod
    def individual(self, typical: Any, log_factor: Any, eta: Any) -> Any:
        """The individual parameter from the typical value, the covariates' log factor and eta."""

    @abc.abstractmethod
    def mu(self, typical: Any, log_factor: Any) -> Any:
        """mu, where the individual parameter is h(mu + eta)."""


def _check(parameter: Any, kind: str) -> None:
    number(parameter.value, f"{kind}'s typical value")
    for name, of in (("iiv", "eta"), ("iov", "the occasion's eta")):
        given = getattr(parameter, name)
        sd = None if given is None else number(given, f"{kind}'s {name} (sd of {of})")
        if sd is not None and sd <= 0:
            raise ModelError(f"{kind}'s {name} (sd of {of}) must be above 0, got {sd}; leave it out for none.")
    check_prior(parameter.prior, kind)
    effects = parameter.covariates
    if isinstance(effects, AbstractEffect) or not isinstance(effects, Sequence):
        raise ModelError(f"{kind}'s covariates must be a list, for example [nm.Power('WT', reference=70)].")
    for effect in effects:
        if not isinstance(effect, AbstractEffect):
            raise ModelError(
                f"{kind}'s covariates must be nm.Power, nm.Exponential, nm.Linear, nm.Category or nm.Effect, got {effect!r}."
            )
    object.__setattr__(parameter, "covariates", tuple(effects))
    names = [effect.column for effect in effects]
    if len(set(names)) < len(names):
        raise ModelError(f"{kind} has two effects of the same covariate: {', '.join(names)}. Combine them in one nm.Effect.")


def check_prior(prior: Any, kind: str) -> None:
    if prior is not None and not hasattr(prior, "log_prob"):
        raise ModelError(f"{kind}'s prior must be a NumPyro distribution, got {prior!r}.")


@final
@dataclass(frozen=True)
class LogNormal(AbstractIndividual):
    """P_i = value * exp(sum of covariate effects + eta_i + kappa_ik),  eta_i ~ N(0, iiv^2),  kappa_ik ~ N(0, iov^2).

    **Arguments:** `value` typical value (natural scale, > 0); `iiv` sd of eta (about the CV), None for no random
    effect; `iov` sd of the part that is new on each occasion k (the model names their column: `occasion = "OCC"`);
    `covariates` list of effects; `unit` for tables; `prior` a distribution of the typical value (Bayesian
    methods); `fixed` keeps the typical value. `nm.Fixed(x)` fixes any single number.

    Raises ModelError if the value is not positive and finite or iiv is not above 0.
    """

    value: Any
    iiv: Any = None
    iov: Any = None
    covariates: Sequence[AbstractEffect] = ()
    unit: str = ""
    prior: Any = None
    fixed: bool = False

    def __post_init__(self) -> None:
        check_fixed(self)
        check_unit(self)
        _check(self, "LogNormal")
        value = number(self.value, "value")
        if value <= 0:
            raise ModelError(f"LogNormal's typical value must be above 0, got {value}.")

    def individual(self, typical: Any, log_factor: Any, eta: Any) -> Any:
        return typical * jnp.exp(log_factor + eta)

    def mu(self, typical: Any, log_factor: Any) -> Any:
        return jnp.log(typical) + log_factor


@final
@dataclass(frozen=True)
class Normal(AbstractIndividual):
    """P_i = value * exp(sum of covariate effects) + eta_i,  eta_i ~ N(0, iiv^2).

    Arguments as for `LogNormal`; `iiv` is in the parameter's unit.
    """

    value: Any
    iiv: Any = None
    iov: Any = None
    covariates: Sequence[AbstractEffect] = ()
    unit: str = ""
    prior: Any = None
    fixed: bool = False

    def __post_init__(self) -> None:
        check_fixed(self)
        check_unit(self)
        _check(self, "Normal")

    def individual(self, typical: Any, log_factor: Any, eta: Any) -> Any:
        return typical * jnp.exp(log_factor) + eta

    def mu(self, typical: Any, log_factor: Any) -> Any:
        return typical * jnp.exp(log_factor)


@final
@dataclass(frozen=True)
class LogitNormal(AbstractIndividual):
    """logit(P_i) = logit(value) + sum of covariate effects + eta_i on (lower, upper),  eta_i ~ N(0, iiv^2).

    logit(v) = log((v - lower) / (upper - v)). Arguments as for `LogNormal`, and the interval's ends.
    """

    value: Any
    iiv: Any = None
    iov: Any = None
    lower: float = 0.0
    upper: float = 1.0
    covariates: Sequence[AbstractEffect] = ()
    unit: str = ""
    prior: Any = None
    fixed: bool = False

    def __post_init__(self) -> None:
        check_fixed(self)
        check_unit(self)
        _check(self, "LogitNormal")
        lower, upper = number(self.lower, "LogitNormal's lower"), number(self.upper, "LogitNormal's upper")
        if lower >= upper:
            raise ModelError(f"LogitNormal's lower bound {lower} must be below its upper bound {upper}.")
        value = number(self.value, "value")
        if not lower < value < upper:
            raise ModelError(f"LogitNormal's typical value must lie in ({lower}, {upper}), got {value}.")

    def individual(self, typical: Any, log_factor: Any, eta: Any) -> Any:
        logit = self.mu(typical, log_factor) + eta
        return self.lower + (self.upper - self.lower) / (1.0 + jnp.exp(-logit))

    def mu(self, typical: Any, log_factor: Any) -> Any:
        return jnp.log(typical - self.lower) - jnp.log(self.upper - typical) + log_factor


@final
@dataclass(frozen=True)
class Theta:
    """A population parameter without random effect, in [lower, upper] where given.

    Raises ModelError if the value is not finite or not strictly inside its bounds.
    """

    value: Any
    lower: float | None = None
    upper: float | None = None
    unit: str = ""
    prior: Any = None
    fixed: bool = field(default=False)

    def __post_init__(self) -> None:
        check_fixed(self)
        check_unit(self)
        value = number(self.value, "Theta's value")
        low = -math.inf if self.lower is None else real(self.lower, "Theta's lower bound")
        high = math.inf if self.upper is None else real(self.upper, "Theta's upper bound")
        if low >= high:
            raise ModelError(f"Theta's lower bound {low} must be below its upper bound {high}.")
        inside = low <= value <= high if self.fixed or is_fixed(self.value) else low < value < high
        if not inside:
            raise ModelError(f"Theta's value {value} must lie strictly inside its bounds ({low}, {high}).")
        check_prior(self.prior, "Theta")
