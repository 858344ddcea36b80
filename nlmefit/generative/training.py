"""Training of networks by stochastic gradients: one loop for every model and every loss.

    weights <- weights - rate_t * Adam(mean over a batch of d loss / d weights)

What is trained are a model's JAX arrays; its NumPy arrays are constants.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, final, get_args

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int

from nlmefit.core.backend import compiled_module
from nlmefit.core.errors import DataError, MethodError
from nlmefit.core.options import check_whole
from nlmefit.core.typing import Scalar
from nlmefit.estimate.method import Reporter
from nlmefit.estimate.status import Status
from nlmefit.generative.arguments import check_kinds
from nlmefit.generative.rows import Samples

Precision = Literal["float32", "float64"]
Loss = Callable[[Any, Array, Array, Array], Scalar]
"""(model, rows of x (B, D), their conditions (B, C), key): what is minimized, a mean over the rows."""

LOOKS = 40
"""Signs of life in a training, and held-out losses."""
CLIP = 100.0
"""Norm of a gradient beyond which it is scaled down."""


@final
@dataclass(frozen=True)
class Training:
    """How networks are trained: Adam (Kingma and Ba 2015) on random batches, the rate falling by a half cosine to nothing.

    **Everyday arguments:** `steps`; `batch` rows in a step; `rate` of learning at its highest, after the first 2 % of the steps.

    **Others:** `average` the decay of an exponential average of the weights that the result is made of, 0 for the last weights;
    `decay` of weights (AdamW; Loshchilov and Hutter 2019); `held_out` a share of the rows that is not trained on: the weights
    with the least loss there are kept; `precision` of the networks while they are trained, "float32" or "float64" (results
    are computed in float64 either way); `betas` of Adam's averages of gradients and of their squares.

    Raises MethodError for values out of range.
    """

    steps: int = 5000
    batch: int = 256
    rate: float = 1e-3
    average: float = 0.0
    decay: float = 0.0
    held_out: float = 0.0
    precision: Precision = "float64"
    betas: tuple[float, float] = (0.9, 0.999)

    def __post_init__(self) -> None:
        check_kinds(self)
        check_whole("steps", self.steps, 1)
        check_whole("batch", self.batch, 1)
        for option, most in (("rate", 10.0), ("average", 1.0), ("decay", 10.0), ("held_out", 0.9)):
            value = getattr(self, option)
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < most:
                raise MethodError(f"{option} must be a number from 0 to below {most:g}, got {value!r}.")
        if self.rate == 0:
            raise MethodError("rate must be above 0.")
        if self.precision not in get_args(Precision):
            raise MethodError(f"precision must be 'float32' or 'float64', got {self.precision!r}.")
        if not isinstance(self.betas, tuple) or len(self.betas) != 2 or not all(0 <= b < 1 for b in self.betas):
            raise MethodError(f"betas must be two numbers from 0 to below 1, such as (0.9, 0.999), got {self.betas!r}.")

    def optimizer(self, steps: int | None = None) -> optax.GradientTransformation:
        count = self.steps if steps is None else steps
        rising = max(1, count // 50)
        course = optax.warmup_cosine_decay_schedule(self.rate / rising, self.rate, rising, max(count, rising + 1))
        return optax.chain(optax.clip_by_global_norm(CLIP), optax.adamw(course, *self.betas, weight_decay=self.decay))


@dataclass
class Trained:
    """What a training gave."""

    model: Any
    record: dict[str, Float[np.ndarray, " steps"]]
    """By step, over that step's batch: "loss", and what else a method records."""
    held_out: list[tuple[int, float]] = field(default_factory=list)
    """(step, loss over the rows held out)."""
    stopped: str = ""
    """Why it ended early; empty if it did not."""
    seconds: dict[str, float] = field(default_factory=dict)
    judged: Status | None = None
    """What a method without a descent to judge by found instead."""

    @property
    def losses(self) -> Float[np.ndarray, " steps"]:
        return self.record["loss"]

    def status(self) -> Status:
        """Converged: between the last two tenths of the steps the mean loss fell by no more than twice its standard error, or a
        thousandth of what it fell by in all; or the loss on rows held out was least before that, and those weights are kept."""
        if self.stopped:
            return Status("failed", (f"{self.stopped[0].upper()}{self.stopped[1:]}; these are the last good weights.",))
        if self.judged is not None:
            return self.judged
        tenth = len(self.losses) // 10
        if tenth < 10:
            return Status("uncertain", (f"{len(self.losses)} steps are too few to judge by.",))
        if self.held_out:
            best, _ = min(self.held_out, key=lambda look: look[1])
            if best <= len(self.losses) - tenth:
                return Status("converged", (f"the loss on rows held out was least at step {best}, whose weights these are.",))
        first, before, last = self.losses[:tenth], self.losses[-2 * tenth : -tenth], self.losses[-tenth:]
        fall = float(np.mean(before) - np.mean(last))
        error = float(np.sqrt((np.var(before) + np.var(last)) / tenth))
        said = f"the mean loss fell by {fall:.2g} (standard error {error:.1g}) over the last tenth of {len(self.losses)} steps"
        if fall > max(2 * error, 1e-3 * abs(float(np.mean(first) - np.mean(last)))):
            return Status("uncertain", (f"{said[0].upper()}{said[1:]}: take more steps.",))
        return Status("converged", (f"{said}.",))


class Weights(NamedTuple):
    """Weights as a training moves them: now, and their exponential average."""

    now: Any
    average: Any
    memory: Any

    @classmethod
    def start(cls, weights: Any, optimizer: Any) -> "Weights":
        return cls(weights, weights, optimizer.init(weights))

    def moved(self, slope: Any, optimizer: Any, training: Training) -> "Weights":
        """A step further."""
        change, memory = optimizer.update(slope, self.memory, self.now)
        now = optax.apply_updates(self.now, change)
        average = self.average
        if training.average:
            average = jax.tree.map(lambda a, w: training.average * a + (1 - training.average) * w, self.average, now)
        return Weights(now, average, memory)

    def result(self, training: Training) -> Any:
        """What the fitted model is made of."""
        return self.average if training.average else self.now


class Course(NamedTuple):
    """A training, as the loop sees it: states, of any kind, that blocks of steps move."""

    advance: Callable[[Any, Int[np.ndarray, "s B"], Array], tuple[Any, dict[str, Array]]]
    """A block of s steps from (state, rows' indices, keys): the state after it, and what is recorded of each step."""
    model: Callable[[Any], Any]
    """The model, in double precision, that a state stands for."""
    held_out: Callable[[Any], float] | None = None
    """A state's loss on the rows held out, by which the best is kept."""


def train(loss: Loss, model: Any, data: Samples, training: Training, progress: Reporter, key: Array) -> Trained:
    """Minimize the expected loss over the rows. Ctrl-C ends it with the weights so far, a loss that is no number with the last
    good ones.

    Raises DataError where the loss is no number from the start.
    """
    order, choose, draw, check = jax.random.split(key, 4)
    rows, held = data.split(training.held_out, np.asarray(jax.random.permutation(order, len(data))))
    weights, constants = eqx.partition(cast(model, training.precision), is_weight)
    optimizer = training.optimizer()
    x, given = on_device(rows, training)
    value = compiled_module(lambda weights, key: loss(eqx.combine(weights, constants), *on_device(held, training), key))

    def step(state: Weights, at: tuple[Array, Array]) -> tuple[Weights, dict[str, Array]]:
        index, key = at
        found, slope = jax.value_and_grad(lambda w: loss(eqx.combine(w, constants), x[index], given[index], key))(state.now)
        return state.moved(slope, optimizer, training), {"loss": found}

    course = Course(
        compiled_module(lambda state, indices, keys: jax.lax.scan(step, state, (indices, keys))),
        lambda state: with_weights(model, state.result(training)),
        (lambda state: float(value(state.result(training), check))) if len(held) else None,
    )
    start = Weights.start(weights, optimizer)
    return follow(course, start, model, batches(len(rows), training, choose, draw), training.steps, progress)


def follow(
    course: Course, state: Any, model: Any, blocks: Iterator[tuple[np.ndarray, Array]], steps: int, progress: Reporter
) -> Trained:
    """The result of the blocks of steps, one after another, and at first the model. Raises DataError where a loss is no number
    from the start."""
    began, best, result = time.perf_counter(), np.inf, Trained(model, {"loss": np.zeros(0)})
    try:
        for indices, keys in blocks:
            if "prepare and compile" not in result.seconds and len(result.losses):
                result.seconds["prepare and compile"] = time.perf_counter() - began
            moved, found = course.advance(state, indices, keys)
            record = {name: np.asarray(values, float) for name, values in found.items()}
            good = np.all([np.isfinite(values) for values in record.values()], axis=0)
            if not np.all(good):
                _check_first(result.losses, good)
                result.stopped = f"the loss is not a number from step {len(result.losses) + int(np.argmin(good))} on"
                break
            state, before = moved, result.record
            result.record = {n: np.concatenate([before.get(n, np.zeros(0)), values]) for n, values in record.items()}
            said, keep = "", True
            if course.held_out is not None:
                result.held_out.append((len(result.losses), course.held_out(state)))
                said, keep = f", held out {result.held_out[-1][1]:.4f}", result.held_out[-1][1] < best
                best = min(best, result.held_out[-1][1])
            if keep:
                result.model = course.model(state)
            last = ", ".join(f"{name} {np.mean(values):.4f}" for name, values in record.items())
            progress.stage(f"step {len(result.losses)} of {steps}, {last}{said}")
    except KeyboardInterrupt:
        result.stopped = f"interrupted after {len(result.losses)} steps"
    result.seconds["train"] = time.perf_counter() - began - result.seconds.get("prepare and compile", 0.0)
    return result


def _check_first(losses: np.ndarray, good: np.ndarray) -> None:
    if not len(losses) and not good[0]:
        raise DataError("the loss is not a number at the start: the data's scale may be far from 1 (standardise the columns).")


def batches(
    size: int, training: Training, choose: Array, draw: Array, times: int = 1
) -> Iterator[tuple[Int[np.ndarray, "s B"], Array]]:
    """Indices of the rows in each step, `times` a batch, and its key, block by block: every row once before any comes again."""
    batch, block = times * min(training.batch, size), -(-training.steps // LOOKS)
    generator = np.random.default_rng(np.asarray(jax.random.key_data(choose)))
    stream = np.zeros(0, int)
    for begin in range(0, training.steps, block):
        steps = min(block, training.steps - begin)
        while len(stream) < steps * batch:
            stream = np.concatenate([stream, generator.permutation(size)])
        indices, stream = stream[: steps * batch].reshape(steps, batch), stream[steps * batch :]
        yield indices, jax.random.split(jax.random.fold_in(draw, begin), steps)


def on_device(rows: Samples, training: Training) -> tuple[Array, Array]:
    return jnp.asarray(rows.x, training.precision), jnp.asarray(rows.given, training.precision)


def is_weight(leaf: Any) -> bool:
    """Whether it is trained: an array of JAX, not of NumPy, of real numbers."""
    return isinstance(leaf, jax.Array) and bool(jnp.issubdtype(leaf.dtype, jnp.inexact))


def cast(tree: Any, precision: str) -> Any:
    """The tree with its weights and constants in that precision."""
    return jax.tree.map(lambda w: w.astype(precision) if eqx.is_inexact_array(w) else w, tree)


def with_weights(model: Any, weights: Any) -> Any:
    """The model with other weights, in double precision."""
    return eqx.combine(cast(weights, "float64"), eqx.filter(model, is_weight, inverse=True))
