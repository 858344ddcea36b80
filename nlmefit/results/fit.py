"""What `nm.fit` returns."""

import importlib
import os
from dataclasses import dataclass
from typing import Any, final

import pandas as pd

from nlmefit.core import archive
from nlmefit.core.errors import NlmefitError
from nlmefit.core.shown import html
from nlmefit.results import printed, tables
from nlmefit.results.record import FitRecord
from nlmefit.results.saved import Traits, traits
from nlmefit.results.stored import content


@final
@dataclass(frozen=True, repr=False)
class Fit(FitRecord):
    """A fitted (or evaluated) model. Everything is named as in the model.

    `ofv` is NONMEM's objective: -2 log L without n log(2 pi) of normal observations (NaN where the method has but a bound).
    `log_likelihood` is log p(y | theta) as the method has it; `kind` says what that is.
    """

    @property
    def covariance(self) -> pd.DataFrame:
        """Covariance matrix of the estimates, natural scale (NaN where it was not asked for or could not be made)."""
        return tables.covariance(self)

    @property
    def correlation(self) -> pd.DataFrame:
        """Correlation matrix of the estimates that are not fixed."""
        return tables.correlation(self)

    @property
    def standard_errors(self) -> pd.Series:
        """Standard errors by name, natural scale; NaN for fixed parameters."""
        return tables.standard_errors(self)

    def summary(self) -> pd.DataFrame:
        """Estimate, unit, se, relative se (%), 95 % interval and shrinkage by parameter.

        The interval is Wald's, on the log scale for parameters with one bound, the logit scale for those with two
        (Fisher's z for correlations), the natural scale for others. Of a NUTS fit it goes from the 2.5 % to the 97.5 % quantile
        of the draws, and there are their mean, median, R-hat and effective number (ESS), too; `se` is their sd.
        """
        return tables.summary(self)

    @property
    def shrinkage(self) -> pd.Series:
        """Eta shrinkage in percent: 100 (1 - sd(eta modes) / omega)."""
        return tables.shrinkage(self)

    def omega_table(self) -> pd.DataFrame:
        """Random effects: variance, sd, CV % (log-normal: sqrt(exp(variance) - 1)), shrinkage %; `kappa` are the occasions'.

        Of a parameter with a flow: omega's, and the shrinkage of its normal scores."""
        return tables.omega_table(self)

    @property
    def observations(self) -> int:
        """Number of observations."""
        return tables.observations(self)

    @property
    def aic(self) -> float:
        """-2 log L + 2 (number of estimated parameters). Of maximum likelihood: NUTS has no maximum, and its print no AIC."""
        return tables.aic(self)

    @property
    def bic(self) -> float:
        """-2 log L + log(number of observations) (number of estimated parameters)."""
        return tables.bic(self)

    @property
    def by_draws(self) -> bool:
        """Whether the parameters have draws from their posterior (NUTS) rather than a maximum."""
        return bool(tables.drawn(self))

    @property
    def traits(self) -> Traits:
        """What tables need to know of the model."""
        return traits(self.model)

    def __str__(self) -> str:
        return printed.text(self)

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return html(self)

    def parameters_at(self) -> dict[str, float]:
        """The estimates as a plain dictionary, for `model.at(...)`."""
        return {str(name): float(value) for name, value in self.estimates.items()}

    def subject(self, label: Any) -> pd.Series:
        """One subject's contribution and random effects. Raises NlmefitError where there is no such subject."""
        if isinstance(label, bool) or label.__hash__ is None or label not in self.contributions.index:
            first = ", ".join(map(str, self.contributions.index[:5]))
            raise NlmefitError(f"there is no subject {label!r}; the first are {first}.")
        return pd.concat([self.contributions.loc[label], self.eta.loc[label]])

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write everything that the tables and the print need to one file, for `nm.load`: numbers and text, no code, no data.

        An older file is replaced at the end, in one step. Raises NlmefitError where `path` is a folder, lies in none, or cannot
        be written.
        """
        archive.write(path, content(self))

    def to_arviz(self, draws: int | None = None, *, key: Any = 0, inner: int = 50) -> Any:
        """The fit as ArviZ reads it: draws of parameters and random effects, and their log-likelihoods.

        **Arguments:** `draws` how many (None: all those of NUTS, 1000 of another method's normal approximation); `key` decides
        them; `inner` the importance samples per draw and subject for log p(y_i | theta), 0 to leave that out.

        An `arviz.InferenceData`, or since ArviZ 1.0 an `xarray.DataTree`, of the same groups: `posterior` (parameters by name;
        `eta` by ID and effect), `log_likelihood` (by endpoint and observation; `subject`, with the random effects integrated
        out), `observed_data`, `constant_data`. The attributes of `posterior` say which approximation it is. Raises NlmefitError
        without arviz, and of a loaded fit, which has no data.
        """
        # Through importlib: a heavy library above this layer, which only this call needs.
        return importlib.import_module("nlmefit.interop.arviz").to_arviz(self, draws, key=key, inner=inner)
