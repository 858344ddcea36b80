"""`nm.bootstrap`: the estimates' sampling distribution from refits to resampled subjects (Efron 1979)."""

import warnings
from collections import Counter
from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any

import jax
import pandas as pd

from nlmefit.analysis.fit import fit as refit
from nlmefit.core.errors import MethodError, NlmefitError
from nlmefit.core.keys import Key, jax_key
from nlmefit.core.options import check_whole
from nlmefit.core.progress import Progress
from nlmefit.data.subjects import Subjects
from nlmefit.estimate.random_numbers import generator
from nlmefit.results.fit import Fit


def bootstrap(fit: Fit, samples: int = 200, *, key: Key = 0, progress: bool = True) -> pd.DataFrame:
    """The estimates of `samples` refits, each to as many subjects drawn with replacement from the fit's data.

    A row per refit: the parameters by name; `.attrs["converged"]` says which converged, row by row, and `.attrs["reasons"]` how
    often the others ended in what way. Feed it to `nm.simulate(..., uncertainty=...)`, or take quantiles for percentile
    intervals. Refits start at the fit's estimates and leave out standard errors. A sample that cannot be fitted has no row; its
    error is among the reasons, and told. Ctrl-C returns the refits finished so far.

    Raises MethodError for a fit without its data, and for a number of samples that is none; the error of the last refit where
    fewer than two samples could be fitted.
    """
    check_whole("samples", samples, 2)
    if not isinstance(fit, Fit):
        raise MethodError(f"bootstrap is of a fit, what nm.fit returned; got {type(fit).__name__}.")
    if not isinstance(fit.data, Subjects):
        raise MethodError("bootstrap needs the fit's own data, of an nm.Model; a loaded fit has none.")
    found = _Refits(fit, _without_errors(fit.method), samples)
    with Progress(progress, "bootstrap") as line:
        found.run(jax.random.split(jax_key(key), samples), line)
    return found.table()


class _Refits:
    """The refits finished so far, and what became of the others."""

    def __init__(self, fit: Fit, method: Any, samples: int):
        self.fit, self.method, self.samples = fit, method, samples
        self.rows: list[Mapping[str, float]] = []
        self.converged: list[bool] = []
        self.reasons: Counter[str] = Counter()
        self.error: NlmefitError | None = None

    def run(self, keys: jax.Array, line: Progress) -> None:
        try:
            for k, own in enumerate(keys):
                resampling, fitting = jax.random.split(own)
                self._keep(_resampled(self.fit.model, self.fit.data, resampling), fitting)
                line.stage(f"refit {k + 1} of {self.samples}")
        except KeyboardInterrupt:
            if len(self.rows) < 2:
                raise
            warnings.warn(f"interrupted: these are {len(self.rows)} of {self.samples} refits.", stacklevel=4)

    def _keep(self, sample: Subjects, key: jax.Array) -> None:
        try:
            again = refit(self.fit.model, sample, self.method, key=key, progress=False)
        except NlmefitError as error:  # of this sample; the others may do
            self.error = error
            self.reasons[f"{type(error).__name__}: {error}"] += 1
            return
        if any(reason.startswith("Interrupted") for reason in again.status.reasons):
            raise KeyboardInterrupt  # the search kept it for itself; what it had found is no refit
        self.rows.append(again.parameters_at())
        self.converged.append(bool(again.status))
        if not again.status:
            self.reasons[str(again.status)] += 1

    def table(self) -> pd.DataFrame:
        if len(self.rows) < 2 and self.error is not None:
            raise self.error
        table = pd.DataFrame(self.rows)
        table.attrs |= {"converged": self.converged, "reasons": dict(self.reasons)}
        lost = self.reasons.total() - (len(self.rows) - sum(self.converged))
        if not all(self.converged):
            failed = len(self.rows) - sum(self.converged)
            warnings.warn(
                f"{failed} of {len(self.rows)} refits did not converge; .attrs['converged'] says which, .attrs['reasons'] why.",
                stacklevel=3,
            )
        if lost:
            warnings.warn(f"{lost} samples could not be fitted and have no row; the last: {self.error}", stacklevel=3)
        return table


def _without_errors(method: Any) -> Any:
    return replace(method, covariance="none") if any(f.name == "covariance" for f in fields(method)) else method


def _resampled(model: Any, data: Subjects, key: jax.Array) -> Subjects:
    """As many subjects, drawn with replacement, each under an ID of its own."""
    frame = data.frame
    label = data.records.source["ID"]
    parts = [records for _, records in frame.groupby(label, sort=False)]
    chosen = generator(key).integers(len(data.ids), size=len(data.ids))
    drawn = [parts[i].assign(**{label: k + 1}) for k, i in enumerate(chosen)]
    table = pd.concat(drawn, ignore_index=True)
    return Subjects.from_frame(table, model, data.columns, covariates=data.rule, blq=data.blq)
