"""Probability of target attainment: how often an exposure reaches, or stays below, a threshold (Drusano et al. 2001)."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from nlmefit.core.errors import DataError
from nlmefit.core.options import check_numbers, check_word
from nlmefit.core.shown import whole
from nlmefit.data.frames import if_table

INTERVAL = (0.05, 0.95)


def target_attainment(
    exposures: pd.DataFrame,
    metric: str,
    *,
    at_least: float | Sequence[float] | None = None,
    at_most: float | Sequence[float] | None = None,
) -> pd.DataFrame:
    """The share of profiles that attain a target: a row per regimen, endpoint and threshold.

    **Arguments:** `exposures` from `nm.exposure`; `metric` one of its columns; `at_least` or `at_most` one or several thresholds;
    both together, of one length, are windows.

    `probability` is that over all subjects and draws; `lower` and `upper` are the middle 90 % of the draws' own shares (over
    their subjects), NaN with one draw. Raises DataError for a metric that is not there and thresholds that are no numbers.
    """
    exposures = if_table(exposures)
    if not isinstance(exposures, pd.DataFrame) or not {"regimen", "endpoint", "draw", "ID"} <= {*exposures}:
        raise DataError(f"exposures must be what nm.exposure returned, got {type(exposures).__name__}.")
    numbers = [str(name) for name in exposures if name not in ("regimen", "ID", "draw", "endpoint")]
    check_word("metric", metric, numbers, "column", DataError)
    if exposures[metric].isna().all():
        raise DataError(f"{metric} is missing throughout.")
    lost = exposures[exposures[metric].isna()]
    if len(lost):
        raise DataError(
            f"{metric} is missing for {len(lost)} of {len(exposures)} profiles, first under {lost['regimen'].iloc[0]}, subject "
            f"{lost['ID'].iloc[0]}: these would count as missing the target whatever it is. Leave them out, or mend them."
        )
    windows = _windows(at_least, at_most)
    rows = []
    for (regimen, endpoint), group in exposures.groupby(["regimen", "endpoint"], sort=False):
        value = group[metric].to_numpy(float)
        for low, high in windows:
            attained = pd.Series((value >= low) & (value <= high), group["draw"].to_numpy())
            by_draw = attained.groupby(level=0).mean()
            ends = by_draw.quantile(INTERVAL).to_numpy() if len(by_draw) > 1 else (np.nan, np.nan)
            rows.append((regimen, endpoint, metric, low, high, attained.mean(), *ends))
    columns = ["regimen", "endpoint", "metric", "at_least", "at_most", "probability", "lower", "upper"]
    found = whole(pd.DataFrame(rows, columns=columns))
    found.attrs |= exposures.attrs  # the units
    return found


def _windows(at_least: object, at_most: object) -> list[tuple[float, float]]:
    if at_least is None and at_most is None:
        raise DataError("give a threshold: at_least=... or at_most=....")
    low = None if at_least is None else check_numbers("at_least", at_least, kind=DataError)
    high = None if at_most is None else check_numbers("at_most", at_most, kind=DataError)
    if low is not None and high is not None and low.shape != high.shape:
        raise DataError(f"at_least has {low.size} threshold(s) and at_most {high.size}; as windows they come in pairs.")
    size = low.size if low is not None else high.size  # type: ignore[union-attr]
    low = np.full(size, -np.inf) if low is None else low
    high = np.full(size, np.inf) if high is None else high
    for a, b in zip(low, high, strict=True):
        if a > b:
            raise DataError(f"a target from {a:g} to {b:g} is none.")
    return [(float(a), float(b)) for a, b in zip(low, high, strict=True)]
