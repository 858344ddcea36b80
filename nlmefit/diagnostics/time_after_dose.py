"""When, after the last dose, an observation was made."""

import numpy as np
from jaxtyping import Float, Int

from nlmefit.core.errors import DataError
from nlmefit.data.subjects import Subjects


def time_after_dose(data: Subjects, who: Int[np.ndarray, " m"], row: Int[np.ndarray, " m"]) -> Float[np.ndarray, " m"]:
    """Of the rows `row` of the subjects `who`: the time since the last dose, those of ADDL among them; before the first one the
    time to it, negative. A dose of the same time counts where its record comes first. DataError for a subject without doses."""
    time, order = (np.asarray(x)[who, row] for x in (data.subjects.time, data.subjects.order))
    doses = data.subjects.doses
    found = np.full(len(time), np.nan)
    if doses is not None:
        given = np.where(np.asarray(doses.segment) >= 0, np.asarray(doses.time, float), np.nan)
        before = (given[who] < time[:, None]) | ((given[who] == time[:, None]) & (np.asarray(doses.order)[who] < order[:, None]))
        last = np.where(before, given[who], -np.inf).max(axis=1, initial=-np.inf)
        first = np.where(np.isnan(given), np.inf, given).min(axis=1, initial=np.inf)[who]
        found = np.where(np.isfinite(last), time - last, time - first)
    if not np.all(np.isfinite(found)):
        subject = data.ids[who[int(np.flatnonzero(~np.isfinite(found))[0])]]
        raise DataError(f"after_dose=True needs doses, and subject {subject} has none; show the time itself, or leave it out.")
    return found
