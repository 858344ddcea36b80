"""Predictions between the records, for curves."""

from typing import Any

import jax
import numpy as np
import pandas as pd
from jaxtyping import Array, Float

from nlmefit.core.backend import compiled
from nlmefit.core.typing import Theta
from nlmefit.data.records import event_types
from nlmefit.data.subjects import Subjects
from nlmefit.estimate.stiff_fallback import with_stiff_fallback
from nlmefit.latent.distribution import mean_of
from nlmefit.latent.model import AbstractLatentModel
from nlmefit.latent.programs import program
from nlmefit.population.latent import PopulationModel
from nlmefit.population.model import Model

POINTS = 200
"""Along a subject's records."""
BEFORE = 1e-9
"""How long before a repeated dose its jump begins, relative to the time from the first record to the last."""


def dense(model: Model, data: Subjects, eta: pd.DataFrame) -> pd.DataFrame:
    """By record and at points between them: ID, TIME, and for each endpoint its prediction at eta = 0 and at `eta`, in columns
    (endpoint, "PRED") and (endpoint, "IPRED"). Covariates run between the records by the data's rule."""
    subjects = Subjects.from_frame(_filled(data), model, covariates=data.rule, every_record=True)
    latent = PopulationModel.of(model, subjects)
    theta = {name: np.asarray(p.start, float) for name, p in latent.parameters().items()}
    effects = np.nan_to_num(eta.loc[list(subjects.ids)].to_numpy(float))
    real = subjects.rows >= 0
    table: dict[Any, np.ndarray] = {
        "ID": subjects.ids[np.nonzero(real)[0]],
        "TIME": np.asarray(subjects.subjects.time)[real],
    }
    for kind, at in (("PRED", np.zeros_like(effects)), ("IPRED", effects)):

        def computed(model: AbstractLatentModel, at: np.ndarray = at) -> Any:
            return _predictions(model)(theta, at, subjects.subjects)

        found = with_stiff_fallback(latent, computed)
        table |= {(name, kind): values[real] for name, values in found.items()}
    return pd.DataFrame(table)


@program
def _predictions(latent: Any) -> Any:

    def one(theta: Theta, eta: Array, subject: Any) -> dict[str, Any]:
        predicted = latent.predict(theta, eta, subject, latent.model.amounts_read)[0]
        return {n: mean_of(v) for n, v in predicted.items()}

    return compiled(jax.vmap(one, in_axes=(None, 0, 0)))


def _filled(data: Subjects) -> pd.DataFrame:
    """The records, with others of EVID 2 between them."""
    records = data.records.frame.assign(EVID=event_types(data.records)).drop(
        columns=["DV", "MDV", "CENS", "LIMIT"], errors="ignore"
    )
    times, pieces = data.records.frame["TIME"].to_numpy(), []
    repeated = _repeated(data)
    for i, places in enumerate(records.groupby("ID", sort=False).indices.values()):
        pieces.append(_between(records.iloc[places], _grid(times[places], repeated[i]), data))
    return pd.concat(pieces, ignore_index=True)


def _repeated(data: Subjects) -> list[Float[np.ndarray, " d"]]:
    """By subject, the times of the doses that ADDL made."""
    doses = data.subjects.doses
    if doses is None:
        return [np.zeros(0)] * len(data)
    return [np.asarray(t)[(np.asarray(s) >= 0) & (np.asarray(o) < 0)] for t, s, o in zip(doses.time, doses.segment, doses.order)]


def _grid(times: Float[np.ndarray, " r"], repeated: Float[np.ndarray, " d"]) -> Float[np.ndarray, " g"]:
    first, last = times.min(), times.max()
    inside = repeated[(repeated > first) & (repeated < last)]
    return np.unique(np.r_[np.linspace(first, last, POINTS), inside, inside - BEFORE * (last - first)])


def _between(records: pd.DataFrame, grid: Float[np.ndarray, " g"], data: Subjects) -> pd.DataFrame:
    """One subject's records with the points of the grid between each and the next, and one just before each dose or reset."""
    times, evid = records["TIME"].to_numpy(), records["EVID"].to_numpy()
    earlier, point = np.nonzero((grid > times[:-1, None]) & (grid < times[1:, None]))
    jumps = np.flatnonzero(np.isin(evid[1:], (1, 3, 4)) & (np.diff(times) >= 0))
    before, at = np.r_[earlier, jumps], np.r_[grid[point], times[jumps + 1]]
    added = records.take(before if data.rule == "locf" else before + 1).assign(TIME=at, EVID=2.0)
    for name in {"AMT", "RATE", "DUR", "II", "ADDL", "SS"} & {*added}:
        added[name] = 0.0
    if data.rule == "linear":
        for name in data.needs.covariates:
            known = records[name].notna().to_numpy()
            added[name] = np.interp(at, times[known], records[name].to_numpy(float)[known])
    place = np.r_[np.arange(len(times)), before + 0.5]
    joined = pd.concat([records, added])
    return joined.iloc[np.lexsort((joined["TIME"].to_numpy(), place))]
