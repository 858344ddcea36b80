"""Encoders: networks that read a subject's whole record and answer with a normal distribution of its random effects.

    q(z | y_i) = N(m_i, S_i S_i'),    (m_i, S_i) = encoder(record of i)

A record is a set: one element per observation and per dose. The set encoder treats it as one (Zaheer, Kottur, Ravanbakhsh,
Poczos, Salakhutdinov and Smola 2017): the same network reads every element, the results are pooled by mean and by maximum, and
a second network makes of that and of what belongs to the whole record the mean and the scale.

What is read of a subject, where it is there (n rows, d doses, E epochs):

    observed[site], mask[site]                      (n,), always
    time, segment, epoch                            (n,); without `time` a subject is a row of numbers, read as a vector
    covariates[name]; varying[name], occasion       numbers; (E,), looked up by `epoch`
    doses.time .amount .compartment .segment        (d,), with segment -1 where padded
    doses.duration .rate .steady .interval .epoch   (d,) or None
"""

import abc
from dataclasses import dataclass
from typing import Any, NamedTuple, final

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from nlmefit.core.options import check_whole


class Record(NamedTuple):
    """One subject's record: elements of a set, which of them are real, of what kind (a site, a compartment that is dosed), and
    numbers of the whole."""

    elements: Float[Array, "r f"]
    real: Bool[Array, "r"]
    kind: Int[Array, "r"]
    whole: Float[Array, "c"]


class Reader(eqx.Module):
    """Turns a subject into a `Record` of standardised numbers; mean and sd are those of the training data."""

    sites: tuple[str, ...] = eqx.field(static=True)
    covariates: tuple[str, ...] = eqx.field(static=True)
    varying: tuple[str, ...] = eqx.field(static=True)
    compartments: int = eqx.field(static=True)
    occasions: int = eqx.field(static=True)
    timed: bool = eqx.field(static=True)
    unit: Float[Array, "1+sites"]
    """Where asinh turns from a straight line to a logarithm: for times, then by site."""
    center: Float[Array, "kinds f"]
    spread: Float[Array, "kinds f"]
    whole_center: Float[Array, "c"]
    whole_spread: Float[Array, "c"]

    @classmethod
    def of(cls, subjects: Any) -> "Reader":
        """The reader for data like these (a batch of subjects)."""
        sites, timed = tuple(subjects.observed), getattr(subjects, "time", None) is not None
        doses, occasion = getattr(subjects, "doses", None), getattr(subjects, "occasion", None)
        values = [np.abs(np.asarray(subjects.observed[s]))[np.asarray(subjects.mask[s])] for s in sites]
        times = np.abs(np.asarray(subjects.time)).ravel() if timed else np.zeros(0)
        none = jnp.zeros(0)
        raw = cls(
            sites,
            tuple(getattr(subjects, "covariates", {})),
            tuple(getattr(subjects, "varying", {})),
            0 if doses is None else int(np.max(doses.compartment)) + 1,
            0 if occasion is None else int(np.max(occasion)) + 1,
            timed,
            jnp.asarray([_low(v) for v in [times, *values]]),
            none,
            none,
            none,
            none,
        )
        return raw._standardised(jax.tree.map(np.asarray, eqx.filter_jit(_raw)(raw, subjects)))

    def _standardised(self, raw: Record) -> "Reader":
        """Mean and sd over the elements of a kind, and over the subjects. What does not vary is left in its own unit."""
        kinds = len(self.sites) + self.compartments + 1
        center, spread = np.zeros((kinds, raw.elements.shape[-1])), np.ones((kinds, raw.elements.shape[-1]))
        for kind in np.unique(raw.kind[raw.real]):
            center[kind], spread[kind] = _moments(np.asarray(raw.elements[raw.real & (raw.kind == kind)]))
        whole = _moments(np.asarray(raw.whole))
        found: Reader = eqx.tree_at(
            lambda r: (r.center, r.spread, r.whole_center, r.whole_spread),
            self,
            tuple(map(jnp.asarray, (center, spread, *whole))),
        )
        return found

    def __call__(self, subject: Any) -> Record:
        raw = self.raw(subject)
        whole = jnp.nan_to_num((raw.whole - self.whole_center) / self.whole_spread)
        if not self.timed:
            return raw._replace(whole=whole)
        elements = (raw.elements - self.center[raw.kind]) / self.spread[raw.kind]
        flags = jax.nn.one_hot(raw.kind, self.center.shape[0])
        return Record(jnp.concatenate([elements, flags], axis=1), raw.real, raw.kind, whole)

    def raw(self, subject: Any) -> Record:
        """The record before it is standardised; NaN in `whole` where a number is missing."""
        if not self.timed:
            row = [jnp.where(subject.mask[s], subject.observed[s], jnp.nan) for s in self.sites]
            return Record(jnp.zeros((0, 0)), jnp.zeros(0, bool), jnp.zeros(0, int), jnp.concatenate(row))
        blocks = [self._observations(place, site, subject) for place, site in enumerate(self.sites)]
        if getattr(subject, "doses", None) is not None:
            blocks.append(self._doses(subject))
        elements, real, kind = (jnp.concatenate(part) for part in zip(*blocks, strict=True))
        counts = jnp.sum(jax.nn.one_hot(kind, len(self.sites) + self.compartments + 1) * real[:, None], axis=0)
        covariates = [jnp.asarray(subject.covariates[name], float) for name in self.covariates]
        # pooling by mean and maximum forgets how many elements there are, on which the posterior's width depends
        return Record(elements, real, kind, jnp.concatenate([jnp.log1p(counts), jnp.stack([*covariates, jnp.zeros(())])]))

    def _observations(self, place: int, site: str, subject: Any) -> tuple[Array, Array, Array]:
        value, time = subject.observed[site], subject.time
        columns = [*self._times(time, subject), value, jnp.arcsinh(value / self.unit[1 + place])]
        none = jnp.zeros_like(time)
        columns += [none, none, none, subject.segment, *self._by_epoch(subject, subject.epoch, time)]
        return jnp.stack(columns, axis=1), subject.mask[site], jnp.full(time.shape, place)

    def _doses(self, subject: Any) -> tuple[Array, Array, Array]:
        doses = subject.doses
        none = jnp.zeros_like(doses.time)

        def given(values: Any) -> Array:
            return none if values is None else values

        columns = [*self._times(doses.time, subject), jnp.log(jnp.maximum(doses.amount, 1e-12)), jnp.arcsinh(given(doses.rate))]
        columns += [given(doses.duration), given(doses.steady), given(doses.interval), doses.segment]
        columns += self._by_epoch(subject, doses.epoch, doses.time)
        kind = len(self.sites) + jnp.minimum(doses.compartment, self.compartments)
        return jnp.stack(columns, axis=1), doses.segment >= 0, kind

    def _times(self, time: Array, subject: Any) -> list[Array]:
        """Time, and time after the last dose, each also on a logarithmic scale."""
        after, doses = time, getattr(subject, "doses", None)
        if doses is not None:
            before = (doses.time <= time[:, None]) & (doses.segment >= 0)
            last = jnp.max(jnp.where(before, doses.time, -jnp.inf), axis=1)
            after = jnp.where(jnp.isfinite(last), time - jnp.where(jnp.isfinite(last), last, 0.0), time)
        return [time, jnp.arcsinh(time / self.unit[0]), after, jnp.arcsinh(after / self.unit[0])]

    def _by_epoch(self, subject: Any, epoch: Any, like: Array) -> list[Array]:
        """Covariates and occasion at the given epochs."""

        def at(name: str) -> Array:
            if name not in subject.varying or epoch is None:
                return jnp.broadcast_to(jnp.asarray(subject.covariates[name], float), like.shape)
            return jnp.asarray(subject.varying[name][epoch], float)

        columns = [at(name) for name in self.varying]
        if self.occasions:
            number = 0 if subject.occasion is None or epoch is None else subject.occasion[epoch]
            columns += list(jnp.broadcast_to(number, like.shape) == jnp.arange(self.occasions)[:, None])
        return [jnp.asarray(column, float) for column in columns]

    def summary(self, record: Record) -> Float[Array, "s"]:
        """What two records are compared by: by kind, means and sds of the elements' numbers; the numbers of the whole."""
        if not self.timed:
            return record.whole
        numbers, kinds = record.elements[:, : self.center.shape[1]], self.center.shape[0]
        member = jax.nn.one_hot(record.kind, kinds) * record.real[:, None]
        share = member / jnp.maximum(member.sum(axis=0), 1.0)
        mean = share.T @ numbers
        sd = jnp.sqrt(jnp.maximum(share.T @ numbers**2 - mean**2, 0.0))
        return jnp.concatenate([mean.ravel(), sd.ravel(), record.whole])


def _raw(reader: Reader, subjects: Any) -> Record:
    return jax.vmap(reader.raw)(subjects)


def _low(values: np.ndarray) -> float:
    """A small value among those that are not 0."""
    values = values[np.isfinite(values) & (values > 0)]
    return float(np.quantile(values, 0.1)) if len(values) else 1.0


def _moments(values: Float[np.ndarray, "k f"]) -> tuple[np.ndarray, np.ndarray]:
    """Mean and sd by column, missing ones left out; an sd of 1 where nothing varies."""
    known = np.isfinite(values)
    count = np.maximum(known.sum(axis=0), 1)
    mean = np.where(known, values, 0.0).sum(axis=0) / count
    sd = np.sqrt(np.where(known, (values - mean) ** 2, 0.0).sum(axis=0) / count)
    return mean, np.where(sd > 1e-6 * (1e-6 + np.abs(mean)), sd, 1.0)


class AbstractEncoder(abc.ABC):
    """An encoder that is still to be built; a hashable value, made of its options."""

    @property
    @abc.abstractmethod
    def name(self) -> str:
        """As users read it."""

    @abc.abstractmethod
    def build(self, example: Record, q: int, key: Array) -> Any:
        """An equinox module for records like the example: `Record` -> m (q,) and S (q, q) lower triangular, 0 and I at first."""


@final
@dataclass(frozen=True)
class SetEncoder(AbstractEncoder):
    """A set encoder (Zaheer et al. 2017): the order of observations and doses does not matter, nor how many there are.

        h = (mean_r f(x_r), max_r f(x_r), whole),    (m, log diag S, S below the diagonal) = g(h) + W h

    **Arguments:** `width` units in each hidden layer of f and g, `depth` hidden layers of each. Raises MethodError unless both
    are whole numbers from 1 up.
    """

    width: int = 64
    depth: int = 2

    def __post_init__(self) -> None:
        for option in ("width", "depth"):
            check_whole(option, getattr(self, option), 1)

    @property
    def name(self) -> str:
        return f"set encoder, width {self.width}, depth {self.depth}"

    def build(self, example: Record, q: int, key: Array) -> "SetNetwork":
        first, second, third = jax.random.split(key, 3)
        size = example.elements.shape[-1]
        reads = 2 * self.width * (size > 0) + example.whole.shape[-1]
        answers = 2 * q + q * (q - 1) // 2
        element = eqx.nn.MLP(size, self.width, self.width, self.depth - 1, jax.nn.silu, jax.nn.silu, key=first) if size else None
        head = eqx.nn.MLP(reads, answers, self.width, self.depth, jax.nn.silu, key=second)
        line = eqx.nn.Linear(reads, answers, use_bias=False, key=third)
        head, line = eqx.tree_at(
            lambda n: (n[0].layers[-1].weight, n[0].layers[-1].bias, n[1].weight), (head, line), replace_fn=jnp.zeros_like
        )
        return SetNetwork(element, head, line, q)


class SetNetwork(eqx.Module):
    """The networks of a `SetEncoder`."""

    element: eqx.nn.MLP | None
    head: eqx.nn.MLP
    line: eqx.nn.Linear
    q: int = eqx.field(static=True)

    def __call__(self, record: Record) -> tuple[Float[Array, "q"], Float[Array, "q q"]]:
        h = jnp.concatenate([self._pooled(record), record.whole])
        answer, q = self.head(h) + self.line(h), self.q
        below = jnp.zeros((q, q)).at[jnp.tril_indices(q, -1)].set(answer[2 * q :])
        return answer[:q], below + jnp.diag(jnp.exp(answer[q : 2 * q]))

    def _pooled(self, record: Record) -> Float[Array, " h"]:
        if self.element is None:
            return jnp.zeros(0)
        read, real = jax.vmap(self.element)(record.elements), record.real[:, None]
        mean = jnp.sum(jnp.where(real, read, 0.0), axis=0) / jnp.maximum(real.sum(), 1)
        largest = jnp.max(jnp.where(real, read, -jnp.inf), axis=0)
        return jnp.concatenate([mean, jnp.where(jnp.any(real), largest, 0.0)])

    def content(self) -> dict[str, Any]:
        """The weights and what they are weights of, as arrays and numbers."""
        element = 0 if self.element is None else int(self.element.layers[0].weight.shape[1])
        sizes = {"q": self.q, "width": self.head.width_size, "depth": self.head.depth, "element": element}
        weights = [np.asarray(w) for w in jax.tree.leaves(eqx.filter(self, eqx.is_array))]
        return {**sizes, "whole": self.line.weight.shape[1] - 2 * self.head.width_size * (element > 0), "weights": weights}

    @classmethod
    def restored(cls, q: int, width: int, depth: int, element: int, whole: int, weights: list[np.ndarray]) -> "SetNetwork":
        """The network of that content. Raises ValueError where the weights are not those of such a network."""
        shapes: list[Any] = [jax.ShapeDtypeStruct(shape, float) for shape in ((1, element), (1,), (1,), (whole,))]
        empty = SetEncoder(width, depth).build(Record(*shapes), q, jax.random.key(0))
        own, rest = eqx.partition(empty, eqx.is_array)
        leaves, tree = jax.tree.flatten(own)
        if [x.shape for x in leaves] != [x.shape for x in weights]:
            raise ValueError("weights of other shapes than the network's")
        found: SetNetwork = eqx.combine(jax.tree.unflatten(tree, map(jnp.asarray, weights)), rest)
        return found
