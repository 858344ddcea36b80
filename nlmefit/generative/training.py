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

from nlmefit.errors import DataError, MethodError
from nlmefit.estimate.method import Reporter
from nlmefit.estimate.options import check_count
from nlmefit.estimate.status import Status
from nlmefit.generative.capability import jitted
from nlmefit.generative.rows import Samples
from nlmefit.typing import Scalar

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
    are computed in float64 either way).

    Raises MethodError for values out of range.
    """

    steps: int = 5000
    batch: int = 256
    rate: float = 1e-3
    average: float = 0.0
    decay: float = 0.0
    held_out: float = 0.0
    precision: Precision = "float64"

    def __post_init__(self) -> None:
        check_count("steps", self.steps, 1)
        check_count("batch", self.batch, 1)
        for option, most in (("rate", 10.0), ("average", 1.0), ("decay", 10.0), ("held_out", 0.9)):
            value = getattr(self, option)
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < most:
                raise MethodError(f"{option} must be a number from 0 to below {most:g}, got {value!r}.")
        if self.rate == 0:
            raise MethodError("rate must be above 0.")
        if self.precision not in get_args(Precision):
            raise MethodError(f"precision must be 'float32' or 'float64', got {self.precision!r}.")

    def optimizer(self, steps: int | None = None) -> optax.GradientTransformation:
        count = self.steps if steps is None else steps
        rising = max(1, count // 50)
        course = optax.warmup_cosine_decay_schedule(self.rate / rising, self.rate, rising, max(count, rising + 1))
        return optax.chain(optax.clip_by_global_norm(CLIP), optax.adamw(course, weight_decay=self.decay))


@dataclass
class Trained:
    """What a training gave."""

    model: Any
    losses: Float[np.ndarray, " steps"]
    """By step, over that step's batch."""
    held_out: list[tuple[int, float]]
    """(step, loss over the rows held out)."""
    stopped: str
    """Why it ended early; empty if it did not."""
    seconds: dict[str, float] = field(default_factory=dict)

    def status(self) -> Status:
        """Converged: between the last two tenths of the steps the mean loss fell by no more than twice its standard error, or a
        thousandth of what it fell by in all."""
        if self.stopped:
            return Status("failed", (f"{self.stopped[0].upper()}{self.stopped[1:]}; these are the last good weights.",))
        tenth = len(self.losses) // 10
        if tenth < 10:
            return Status("uncertain", (f"{len(self.losses)} steps are too few to judge by.",))
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


def train(loss: Loss, model: Any, data: Samples, training: Training, progress: Reporter, key: Array) -> Trained:
    """Minimize the expected loss over the rows. Ctrl-C ends it with the weights so far, a loss that is no number with the last
    good ones.

    Raises DataError where the loss is no number from the start.
    """
    began = time.perf_counter()
    order, choose, draw, check = jax.random.split(key, 4)
    shuffled = np.asarray(jax.random.permutation(order, len(data)))
    rows, held = data.split(training.held_out, shuffled)
    weights, constants = eqx.partition(cast(model, training.precision), is_weight)
    optimizer = training.optimizer()
    state = Weights(weights, weights, optimizer.init(weights))
    advance = _advance(loss, constants, optimizer, training, _on_device(rows, training))
    value = jitted(lambda weights, key: loss(eqx.combine(weights, constants), *_on_device(held, training), key))
    result = Trained(model, np.zeros(0), [], "")
    best = np.inf
    try:
        for indices, keys in _batches(len(rows), training, choose, draw):
            if "prepare and compile" not in result.seconds and len(result.losses):
                result.seconds["prepare and compile"] = time.perf_counter() - began
            moved, losses = advance(state, indices, keys)
            losses = np.asarray(losses, float)
            if not np.all(np.isfinite(losses)):
                _check_first(result.losses, losses)
                result.stopped = (
                    f"the loss is not a number from step {len(result.losses) + int(np.argmin(np.isfinite(losses)))} on"
                )
                break
            state, result.losses = moved, np.concatenate([result.losses, losses])
            kept = state.average if training.average else state.now
            if len(held):
                result.held_out.append((len(result.losses), float(value(kept, check))))
                if result.held_out[-1][1] >= best:
                    kept = None
                else:
                    best = result.held_out[-1][1]
            if kept is not None:
                result.model = eqx.combine(cast(kept, "float64"), eqx.filter(model, is_weight, inverse=True))
            said = f", held out {result.held_out[-1][1]:.4f}" if len(held) else ""
            progress.stage(f"step {len(result.losses)} of {training.steps}, loss {np.mean(losses):.4f}{said}")
    except KeyboardInterrupt:
        result.stopped = f"interrupted after {len(result.losses)} steps"
    result.seconds["train"] = time.perf_counter() - began - result.seconds.get("prepare and compile", 0.0)
    return result


def _check_first(losses: np.ndarray, block: np.ndarray) -> None:
    if not len(losses) and not np.isfinite(block[0]):
        raise DataError("the loss is not a number at the start: the data's scale may be far from 1 (standardise the columns).")


def _advance(loss: Loss, constants: Any, optimizer: Any, training: Training, rows: tuple[Array, Array]) -> Any:
    """A block of steps, compiled."""
    x, given = rows

    def step(state: Weights, at: tuple[Array, Array]) -> tuple[Weights, Array]:
        index, key = at
        value, slope = jax.value_and_grad(lambda w: loss(eqx.combine(w, constants), x[index], given[index], key))(state.now)
        change, memory = optimizer.update(slope, state.memory, state.now)
        now = optax.apply_updates(state.now, change)
        average = state.average
        if training.average:
            average = jax.tree.map(lambda a, w: training.average * a + (1 - training.average) * w, state.average, now)
        return Weights(now, average, memory), value

    return jitted(lambda state, indices, keys: jax.lax.scan(step, state, (indices, keys)))


def _batches(size: int, training: Training, choose: Array, draw: Array) -> Iterator[tuple[Int[np.ndarray, "s B"], Array]]:
    """Indices of the rows in each step, and its key, block by block: every row once before any comes again."""
    batch, block = min(training.batch, size), -(-training.steps // LOOKS)
    generator = np.random.default_rng(np.asarray(jax.random.key_data(choose)))
    stream = np.zeros(0, int)
    for begin in range(0, training.steps, block):
        steps = min(block, training.steps - begin)
        while len(stream) < steps * batch:
            stream = np.concatenate([stream, generator.permutation(size)])
        indices, stream = stream[: steps * batch].reshape(steps, batch), stream[steps * batch :]
        yield indices, jax.random.split(jax.random.fold_in(draw, begin), steps)


def _on_device(rows: Samples, training: Training) -> tuple[Array, Array]:
    return jnp.asarray(rows.x, training.precision), jnp.asarray(rows.given, training.precision)


def is_weight(leaf: Any) -> bool:
    """Whether it is trained: an array of JAX, not of NumPy, of real numbers."""
    return isinstance(leaf, jax.Array) and bool(jnp.issubdtype(leaf.dtype, jnp.inexact))


def cast(tree: Any, precision: str) -> Any:
    """The tree with its weights and constants in that precision."""
    return jax.tree.map(lambda w: w.astype(precision) if eqx.is_inexact_array(w) else w, tree)
