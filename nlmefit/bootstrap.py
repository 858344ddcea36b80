"""`nm.bootstrap`: the estimates' sampling distribution from refits to resampled subjects (Efron 1979)."""

import warnings
from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any

import jax
import pandas as pd

from nlmefit.data.subjects import Subjects
from nlmefit.errors import MethodError
from nlmefit.estimate.draws import generator
from nlmefit.estimate.options import check_count
from nlmefit.fit import fit as refit
from nlmefit.keys import Key, jax_key
from nlmefit.progress import Progress
from nlmefit.results import Fit


def bootstrap(fit: Fit, samples: int = 200, *, key: Key = 0, progress: bool = True) -> pd.DataFrame:
    """The estimates of `samples` refits, each to as many subjects drawn with replacement from the fit's data.

    A row per refit: the parameters by name; `.attrs["converged"]` says which converged, row by row. Feed it to `nm.simulate(...,
    uncertainty=...)`, or take quantiles for percentile intervals. Refits start at the fit's estimates and leave out standard
    errors. Ctrl-C returns the refits made so far.

    Raises MethodError for a fit without its data, and for a number of samples that is none.
    """
    check_count("samples", samples, 2)
    if not isinstance(fit.data, Subjects):
        raise MethodError("bootstrap needs the fit's own data, of an nm.Model; a loaded fit has none.")
    method = _without_errors(fit.method)
    rows: list[Mapping[str, float]] = []
    converged: list[bool] = []
    with Progress(progress, "bootstrap") as line:
        try:
            for k, own in enumerate(jax.random.split(jax_key(key), samples)):
                again = refit(fit.model, _resampled(fit.model, fit.data, own), method, key=own, progress=False)
                rows.append(again.parameters_at())
                converged.append(bool(again.status))
                line.stage(f"refit {k + 1} of {samples}")
        except KeyboardInterrupt:
            if len(rows) < 2:
                raise
            warnings.warn(f"interrupted: these are {len(rows)} of {samples} refits.", stacklevel=2)
    table = pd.DataFrame(rows)
    table.attrs["converged"] = converged
    if not all(converged):
        failed = len(rows) - sum(converged)
        warnings.warn(f"{failed} of {len(rows)} refits did not converge; .attrs['converged'] says which.", stacklevel=2)
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
