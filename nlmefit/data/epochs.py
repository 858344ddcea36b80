"""Epochs: the stretches of a subject's records over which covariates and occasion stay the same."""

from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd

Rule = Literal["nocb", "locf", "linear"]
"""How a covariate runs between records: next observation carried backward (NONMEM), last carried forward, or linearly."""


class Epochs(NamedTuple):
    """Epochs by subject: E of them, the same number for all (those that a subject lacks repeat its last)."""

    of_record: np.ndarray
    """(records,): which epoch of its subject a record lies in."""
    boundary: np.ndarray
    """(N, E - 1): when an epoch ends, inf where a subject has no further one."""
    segment: np.ndarray
    """(N, E - 1): how many resets come before that."""
    values: dict[str, np.ndarray]
    """(N, E): the covariates that vary, by epoch."""
    occasion: np.ndarray | None
    """(N, E): the number of the occasion among the subject's own, from 0; None where the model has none."""


def epochs(
    time: np.ndarray, codes: np.ndarray, segment: np.ndarray, varying: pd.DataFrame, occasion: pd.Series | None, rule: Rule
) -> Epochs | None:
    """The epochs of all subjects, from values by record; None where nothing changes within any subject."""
    numbers = None if occasion is None else _numbered(occasion, codes)
    table = varying if numbers is None else varying.assign(**{"\0occasion": numbers})
    if table.shape[1] == 0:
        return None
    values = table.to_numpy(float)
    same_subject = np.r_[False, codes[1:] == codes[:-1]]
    changes = same_subject & np.r_[False, (values[1:] != values[:-1]).any(axis=1)]
    of_record = pd.Series(changes.astype(int)).groupby(codes).cumsum().to_numpy()
    size, count = int(codes.max()) + 1, int(of_record.max()) + 1
    last = np.flatnonzero(np.r_[(codes[1:] != codes[:-1]) | changes[1:], True])
    by_epoch = np.full((size, count), -1)
    by_epoch[codes[last], of_record[last]] = last
    by_epoch = np.maximum.accumulate(by_epoch, axis=1)  # -1 only after a subject's last epoch
    at = np.where(rule == "locf", np.minimum(by_epoch[:, :-1] + 1, len(time) - 1), by_epoch[:, :-1])
    real = by_epoch[:, 1:] > by_epoch[:, :-1]
    columns: dict[Any, np.ndarray] = {name: table[name].to_numpy(float)[by_epoch] for name in table}
    own = columns.pop("\0occasion", None)
    return Epochs(
        of_record,
        np.where(real, time[at], np.inf),
        np.where(real, segment[at], np.inf),
        columns,
        None if own is None else own.astype(int),
    )


class Course(NamedTuple):
    """Covariates that run linearly between a subject's records (N, m), padded by the last."""

    knots: np.ndarray
    values: dict[str, np.ndarray]


def course(time: np.ndarray, codes: np.ndarray, varying: pd.DataFrame) -> Course | None:
    """The course of the covariates that vary, from values by record."""
    if varying.shape[1] == 0:
        return None
    first = np.searchsorted(codes, np.arange(int(codes.max()) + 1))
    count = np.bincount(codes)
    index = first[:, None] + np.minimum(np.arange(count.max()), count[:, None] - 1)
    return Course(time[index], {str(name): varying[name].to_numpy(float)[index] for name in varying})


def _numbered(occasion: pd.Series, codes: np.ndarray) -> np.ndarray:
    """Occasions numbered from 0 within each subject, in the order in which they first come."""
    frame = pd.DataFrame({"who": codes, "what": occasion.to_numpy()})
    first = frame.drop_duplicates()
    number = first.groupby("who").cumcount().rename("number")
    return frame.merge(first.assign(number=number), on=["who", "what"], how="left")["number"].to_numpy()
