"""Subjects in batches of one shape, evaluated side by side on the machine's cores.

XLA runs a program of this kind on one core; batches run in as many threads as there are cores, which also keeps each within the
cache. A batch's subjects go through their searches in lockstep, so that those of similar length stand together.

All batches have one shape, padded to the longest subject, unless so much of it would be padding that a few shapes, each
compiled for itself, cost less.
"""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import Any

import jax
import numpy as np
from jaxtyping import Bool, Int

from nlmefit.latent.model import AbstractLatentModel

CLOSED_FORM_WIDTH, ODE_WIDTH = 64, 16
"""Subjects in a batch where amounts have a closed form, and where they are solved for step by step."""


MOST_SHAPES = 3
WORTH_A_SHAPE = 1e5
"""Padding in an evaluation (subjects x observations x doses) that takes longer, over a fit, than compiling one more shape."""


def by_subject(model: AbstractLatentModel, function: Callable[..., Any], *arguments: Any) -> Any:
    """`function` of every subject of a batch (arguments with a leading axis), inside a compiled program: side by side where
    amounts have a closed form. Where they are solved for step by step, subjects side by side would wait at every step and search
    for the slowest of them: on a CPU, whose vectors are filled by derivatives anyway, they go one after another."""
    if model.solves_ode and jax.default_backend() == "cpu":
        return jax.lax.map(lambda x: function(*x), arguments)
    return jax.vmap(function)(*arguments)


class Batches:
    """All subjects of a data set, in batches of equal size (the last of a shape filled up with its first subject)."""

    def __init__(self, subjects: Any, size: int, solves_ode: bool):
        self.size = size
        self._members, self._places, self._subjects = [], [], []
        for group in bucketed(subjects.lengths(), solves_ode):
            shaped, width = subjects.subset(group), min(ODE_WIDTH if solves_ode else CLOSED_FORM_WIDTH, len(group))
            for start in range(0, len(group), width):
                own = np.arange(start, min(start + width, len(group)))
                places = np.r_[own, np.repeat(own[:1], width - len(own))]
                self._members.append(group[own])
                self._places.append(group[places])
                self._subjects.append(jax.device_put(jax.tree.map(lambda x, at=places: np.asarray(x)[at], shaped)))

    def map(
        self,
        function: Callable[[Any, Any], Sequence[Any]],
        starts: Any,
        only: Bool[np.ndarray, "N"] | None = None,
    ) -> list[np.ndarray]:
        """`function(starts, subjects)` of every batch, put together by subject (N, ...); `starts` is a PyTree of arrays by
        subject. With `only`, batches without any of those subjects are left out, and their entries are 0."""
        chosen = [i for i, own in enumerate(self._members) if only is None or only[own].any()]

        def one(i: int) -> list[np.ndarray]:
            return [np.asarray(x) for x in function(jax.tree.map(lambda x: x[self._places[i]], starts), self._subjects[i])]

        found = list(_threads().map(one, chosen)) if len(chosen) > 1 else [one(i) for i in chosen]
        return [self._together(parts, chosen) for parts in zip(*found, strict=True)]

    def _together(self, parts: Sequence[np.ndarray], chosen: Sequence[int]) -> np.ndarray:
        result = np.zeros((self.size, *parts[0].shape[1:]), parts[0].dtype)
        for part, i in zip(parts, chosen, strict=True):
            own: Int[np.ndarray, " b"] = self._members[i]
            result[own] = part[: len(own)]
        return result


def bucketed(lengths: Int[np.ndarray, "N k"], solves_ode: bool) -> list[Int[np.ndarray, " n"]]:
    """The subjects in groups of one padded shape each. A closed form costs the product of its shape's lengths; a solver stops
    at a subject's own end, so that there is one shape, in the order of lengths."""
    if solves_ode:
        return [np.argsort(-lengths[:, 0], kind="stable")]
    groups = [np.argsort(lengths.prod(axis=1), kind="stable")]
    while len(groups) < MOST_SHAPES:
        cuts = [_best_cut(lengths[group]) for group in groups]
        which = int(np.argmax([saved for saved, _ in cuts]))
        saved, cut = cuts[which]
        if saved < WORTH_A_SHAPE:
            break
        group = groups.pop(which)
        groups += [group[:cut], group[cut:]]
    return groups


def _best_cut(lengths: Int[np.ndarray, "n k"]) -> tuple[float, int]:
    """The padding saved by the best cut of a group in two, and where that is."""
    if len(lengths) < 2:
        return 0.0, 0
    count = np.arange(1, len(lengths))
    left = np.maximum.accumulate(lengths)[:-1].astype(float).prod(axis=1)
    right = np.maximum.accumulate(lengths[::-1])[::-1][1:].astype(float).prod(axis=1)
    whole = len(lengths) * lengths.max(axis=0).astype(float).prod()
    saved = whole - count * left - (len(lengths) - count) * right
    best = int(np.argmax(saved))
    return float(saved[best]), best + 1


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@lru_cache(maxsize=1)
def _threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(cores(), thread_name_prefix="nlmefit")
