"""Random effects that a caller gives: by subject, or several draws of each, which stay with their subjects."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from nlmefit.analysis.eta_tables import at_occasions, by_id
from nlmefit.analysis.posterior import Posterior
from nlmefit.core.errors import DataError, MethodError, unknown
from nlmefit.data.frames import if_table
from nlmefit.estimate.problem import Problem
from nlmefit.results.fit import Fit


def given_effects(eta: Any, problem: Problem) -> Any:
    """The random effects of a table, by draw and subject (D, N, q); a word as it is. Raises DataError for a table that lacks a
    subject or a random effect, or holds what is no number; MethodError for what is neither table nor word."""
    if isinstance(eta, str):
        return eta
    if isinstance(eta, Posterior):
        eta = _moved(eta.draws, getattr(eta.problem.data, "occasions", None), problem)
    if isinstance(eta, Fit):
        return of_fit(eta, problem)
    if isinstance(eta, Mapping) and eta and all(isinstance(row, Mapping) for row in eta.values()):
        eta = pd.DataFrame.from_dict(dict(eta), orient="index")
    eta = if_table(eta)
    if not isinstance(eta, pd.DataFrame):
        raise MethodError(
            f"eta must be one of the words for a kind, or a table with a row per ID (or the .draws of nm.posterior), got {eta!r}."
        )
    names = list(problem.model.eta_names())
    return _by_subject(_checked(by_id(eta, problem.ids, "eta="), names), problem, "eta=")


def of_fit(fit: Fit, problem: Problem) -> Float[np.ndarray, "1 N q"]:
    """A fit's modes; 0 for the effects of occasions that its subjects did not have. DataError where a mode is not known."""
    return _by_subject(_moved(fit.eta, fit.occasions, problem), problem, "the fit's eta")


def _moved(eta: pd.DataFrame, occasions: Any, problem: Problem) -> pd.DataFrame:
    """Random effects of some data set for the occasions of the problem's."""
    wanted = getattr(problem.data, "occasions", None)
    return at_occasions(eta, occasions, wanted, problem.model.eta_names())


def known(eta: Float[np.ndarray, "... N q"], problem: Problem, where: str) -> Float[np.ndarray, "... N q"]:
    """With 0 for the effects that a subject has not got; DataError where one that it has is not known."""
    has = problem.model.used(problem.subjects, problem.size)
    unknown_ones = np.argwhere(has & ~np.isfinite(eta).reshape(-1, *has.shape).all(axis=0))
    if len(unknown_ones):
        who, which = unknown_ones[0]
        raise DataError(
            f"{where} of subject {problem.ids[who]} has no number for {problem.model.eta_names()[which]}; give one, or leave the "
            "subject out by subjects=."
        )
    return np.where(has, eta, 0.0)


def _checked(table: pd.DataFrame, names: list[str]) -> pd.DataFrame:
    for name in table:
        if name not in names:
            raise DataError("eta=: " + unknown("random effect", str(name), names))
        if table[name].dtype.kind not in "iuf":
            raise DataError(f"eta=: {name} must be numbers, got {table[name].iloc[0] if len(table) else 'none'!r}.")
    if table.index.nlevels > 2:
        raise DataError(f"eta= has an index of {table.index.nlevels} levels; it must be ID, or ID and draw.")
    if table.index.has_duplicates:
        twice = table.index[table.index.duplicated()][0]
        raise DataError(
            f"eta= has two rows for subject {twice}; several draws of a subject are told apart by an index of ID and draw, as "
            "nm.posterior(...).draws has it."
        )
    return table


def _by_subject(table: pd.DataFrame, problem: Problem, where: str) -> Float[np.ndarray, "D N q"]:
    names = list(problem.model.eta_names())
    ids = table.index.get_level_values(0)
    lacking = [n for n in names if n not in table]
    missing = [who for who in problem.ids if who not in ids]
    if lacking or missing:
        what = f"random effect {lacking[0]}" if lacking else f"subject {missing[0]}"
        raise DataError(f"{where} has no {what}; it needs a row per ID and the columns {', '.join(names)}.")
    places: dict[Any, list[int]] = {}
    for place, who in enumerate(ids):
        places.setdefault(who, []).append(place)
    values = table[names].to_numpy(float)
    parts = [values[places[who]] for who in problem.ids]
    counts = [len(part) for part in parts]
    if len(set(counts)) > 1:
        odd = int(np.argmax(np.array(counts) != counts[0]))
        raise DataError(
            f"{where} has {counts[0]} draws of subject {problem.ids[0]} and {counts[odd]} of subject {problem.ids[odd]}; give as "
            "many of each."
        )
    return known(np.stack(parts, axis=1), problem, where)
