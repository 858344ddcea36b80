"""Subjects in batches of one shape, evaluated side by side on the machine's cores.

XLA runs a program of this kind on one core; batches run in as many threads as there are cores, which also keeps each within the
cache. A batch's subjects go through their searches in lockstep, so that those with alike numbers of observations stand together.
"""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import Any

import jax
import numpy as np
from jaxtyping import Bool, Float, Int

CHEAP, COSTLY = 64, 16
"""Subjects in a batch where a subject's model is cheap, and where it is solved step by step."""


class Batches:
    """All subjects of a data set, in batches of equal size (the last filled up with its first subject)."""

    def __init__(self, subjects: Any, size: int, costly: bool):
        self.size = size
        width = min(COSTLY if costly else CHEAP, size)
        observed = sum(np.asarray(mask).sum(axis=1) for mask in subjects.mask.values())
        order = np.argsort(-observed, kind="stable") if costly else np.arange(size)
        self._members = [order[i : i + width] for i in range(0, size, width)]
        self._places = [np.resize(np.r_[own, np.repeat(own[:1], width - len(own))], width) for own in self._members]
        self._subjects = [jax.device_put(jax.tree.map(lambda x, at=at: np.asarray(x)[at], subjects)) for at in self._places]

    def evaluate(
        self,
        function: Callable[[Float[np.ndarray, "b q"], Any], Sequence[Any]],
        starts: Float[np.ndarray, "N q"],
        only: Bool[np.ndarray, "N"] | None = None,
    ) -> list[np.ndarray]:
        """`function(starts, subjects)` of every batch, put together by subject (N, ...). With `only`, batches without any of
        those subjects are left out, and their entries are 0."""
        chosen = [i for i, own in enumerate(self._members) if only is None or only[own].any()]

        def one(i: int) -> list[np.ndarray]:
            return [np.asarray(x) for x in function(starts[self._places[i]], self._subjects[i])]

        found = list(_threads().map(one, chosen)) if len(chosen) > 1 else [one(i) for i in chosen]
        return [self._together(parts, chosen) for parts in zip(*found, strict=True)]

    def _together(self, parts: Sequence[np.ndarray], chosen: Sequence[int]) -> np.ndarray:
        result = np.zeros((self.size, *parts[0].shape[1:]), parts[0].dtype)
        for part, i in zip(parts, chosen, strict=True):
            own: Int[np.ndarray, " b"] = self._members[i]
            result[own] = part[: len(own)]
        return result


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@lru_cache(maxsize=1)
def _threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(cores(), thread_name_prefix="nlmefit")
