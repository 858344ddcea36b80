"""Adversarial training: a generator and a critic in turn, each against the other.

No loss falls as the two come near each other, so that the losses do not say whether to trust a fit. What does are samples of the
model beside rows of the data.
"""

import dataclasses
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple, final

import equinox as eqx
import jax
import numpy as np
from jaxtyping import Array, Float

from nlmefit.core.backend import compiled_module
from nlmefit.core.errors import DataError, MethodError
from nlmefit.core.options import check_whole
from nlmefit.core.typing import Scalar
from nlmefit.estimate.method import Reporter
from nlmefit.estimate.status import Status
from nlmefit.generative.adversarial.game import AbstractGame, Groups, JensenShannon
from nlmefit.generative.adversarial.gan import GAN
from nlmefit.generative.arguments import check_kinds
from nlmefit.generative.rows import Samples
from nlmefit.generative.trainer import AbstractTrainer
from nlmefit.generative.training import (
    Course,
    Trained,
    Training,
    Weights,
    batches,
    cast,
    follow,
    is_weight,
    on_device,
    with_weights,
)
from nlmefit.generative.two_sample import two_sample_test

JUDGED = 1000
"""Rows that a fit is judged by, at most."""
DEFAULT = Training(steps=10_000, rate=5e-4, average=0.999, betas=(0.5, 0.9))


@final
@dataclass(frozen=True)
class Adversarial(AbstractTrainer):
    """The least of a divergence that only samples are needed for, by a game of two networks:

        min over G  max over f  gain(f; data, G)

    **Everyday arguments:** `divergence`, `gen.JensenShannon(...)` (a GAN) or `gen.Wasserstein(...)` (a WGAN); `training`, whose
    `steps` are the generator's. Its `betas` matter: the default has (0.5, 0.9), and averaged weights.

    **Others:** `critic_steps` for each of the generator's, by default 1 for Jensen-Shannon and 5 for Wasserstein; `packing` rows
    that the critic sees at once, against samples that leave modes out (PacGAN; Lin et al. 2018).

    Its status is a two-sample test of the fitted model, as the game's losses do not tell: up to 1000 samples beside as many rows,
    those of `training.held_out` where there are any. No weights are chosen by them. The `history` has the critic's estimate of
    the divergence as `loss`, and what each of the two minimizes.

    Raises MethodError for other values and for models without a generator, DataError for fewer rows than `packing`.
    """

    divergence: AbstractGame = field(default_factory=JensenShannon)
    critic_steps: int | None = None
    packing: int = 1
    training: Training | None = None
    needs: ClassVar[type] = GAN
    ability: ClassVar[str] = "samples by a generator, with a critic beside it"
    objective: ClassVar[str] = "the divergence as the critic sees it, no bound while the critic is trained"

    def __post_init__(self) -> None:
        check_kinds(self)
        if not isinstance(self.divergence, AbstractGame):
            raise MethodError(f"divergence must be gen.JensenShannon(...) or gen.Wasserstein(...), got {self.divergence!r}.")
        check_whole("packing", self.packing, 1)
        if self.critic_steps is not None:
            check_whole("critic_steps", self.critic_steps, 1)

    @property
    def name(self) -> str:
        return f"adversarial training, {type(self.divergence).__name__}"

    def loss(self, model: GAN, x: Array, given: Array, key: Array) -> Scalar:
        """The divergence as the critic sees it: the critic raises it, the generator lowers it."""
        real, fake = _beside(model, x, given, key)
        critic = model.networks.critic
        return self.divergence.estimate(critic.values(*real), critic.values(*fake))

    def train(self, model: GAN, data: Samples, progress: Reporter, key: Array) -> Trained:
        """Both players, and a two-sample test of what they came to."""
        face, order, choose, draw, judge = jax.random.split(key, 5)
        training = self.training or DEFAULT
        rows, held = data.split(training.held_out, np.asarray(jax.random.permutation(order, len(data))))
        if min(training.batch, len(rows)) < self.packing:
            raise DataError(
                f"a critic of {self.packing} rows at once needs as many in a batch; there are {len(rows)} rows to train on, and "
                f"batch={training.batch}."
            )
        model = model.facing(self.divergence, self.packing, face)
        times = self.critic_steps or self.divergence.critic_steps
        blocks = batches(len(rows), training, choose, draw, times)
        state, course = self._course(model, rows, training, times)
        found = follow(course, state, model, blocks, training.steps, progress)
        return dataclasses.replace(found, judged=judged(found.model, held if len(held) else rows, bool(len(held)), judge))

    def _course(self, model: GAN, rows: Samples, training: Training, times: int) -> tuple["Sides", Course]:
        """Both players' beginning, and their steps."""
        small = cast(model, training.precision)
        x, given = on_device(rows, training)
        parts = [eqx.partition(player, is_weight) for player in (small.networks.generator, small.networks.critic)]
        (generator, fixed), (critic, apart) = parts
        slow, fast = training.optimizer(), training.optimizer(times * training.steps)

        def playing(generator: Any, critic: Any) -> GAN:
            return small.played_by(eqx.combine(generator, fixed), eqx.combine(critic, apart))

        def step(state: Sides, at: tuple[Array, Array]) -> tuple[Sides, dict[str, Array]]:
            indices, keys = at[0].reshape(times, -1), jax.random.split(at[1], times + 1)

            def criticize(critic: Weights, at: tuple[Array, Array]) -> tuple[Weights, Scalar]:
                draw, place = jax.random.split(at[1])
                real, fake = _beside(playing(state.generator.now, critic.now), x[at[0]], given[at[0]], draw)

                def opposed(weights: Any) -> Scalar:
                    return self.divergence.critic_loss(eqx.combine(weights, apart), real, fake, place)

                loss, slope = jax.value_and_grad(opposed)(critic.now)
                moved = critic.moved(slope, fast, training)
                return moved._replace(now=jax.tree.map(self.divergence.constrained, moved.now)), loss

            def challenge(weights: Any) -> tuple[Scalar, Scalar]:
                game, seen = playing(weights, critic.now), (x[indices[-1]], given[indices[-1]], keys[-1])
                _, fake = _beside(game, *seen)
                return self.divergence.generator_loss(game.networks.critic, fake), self.loss(game, *seen)

            critic, losses = jax.lax.scan(criticize, state.critic, (indices, keys[:-1]))
            (loss, value), slope = jax.value_and_grad(challenge, has_aux=True)(state.generator.now)
            moved = state.generator.moved(slope, slow, training)
            return Sides(moved, critic), {"loss": value, "critic": losses[-1], "generator": loss}

        return Sides(Weights.start(generator, slow), Weights.start(critic, fast)), Course(
            compiled_module(lambda state, indices, keys: jax.lax.scan(step, state, (indices, keys))),
            lambda state: with_weights(model, eqx.filter(playing(state.generator.result(training), state.critic.now), is_weight)),
        )


class Sides(NamedTuple):
    """The players' weights."""

    generator: Weights
    critic: Weights


def _beside(model: GAN, x: Float[Array, "B D"], given: Float[Array, "B C"], key: Array) -> tuple[Groups, Groups]:
    """Rows of data, and samples under the same conditions, as the critic takes them."""
    units, players = model.units, model.networks
    u, c = jax.vmap(units.x)(x), jax.vmap(units.given)(given)
    fake = jax.vmap(model.generated)(c, jax.random.split(key, len(c)))
    packed = players.critic.packed
    return Groups(packed(u), packed(c)), Groups(packed(fake), packed(c))


def judged(model: GAN, rows: Samples, apart: bool, key: Array) -> Status:
    """Converged where a two-sample test tells no samples from rows, both with their conditions, in the networks' units."""
    choose, draw = jax.random.split(key)
    chosen = np.asarray(jax.random.permutation(choose, len(rows)))[:JUDGED]
    beside = Samples(rows.x[chosen], rows.given[chosen])
    samples = Samples(model.sample(len(beside), key=draw, given=beside.given if model.conditions else None), beside.given)
    test = two_sample_test(*(np.hstack(model.standardised(found)) for found in (samples, beside)))
    of = f"{len(beside)} samples and as many rows {'held out' if apart else 'that it was trained on'}"
    said = f"the energy distance between {of} is {test.distance:.2g}; of one law it would be below {test.limit:.2g} in 95 of 100"
    if test.distance <= test.limit:
        return Status("converged", (f"{said[0].upper()}{said[1:]}. The losses of a game say nothing of it.",))
    return Status(
        "uncertain",
        (
            f"Samples can be told from data: {said}. Take more steps, a larger batch or wider networks; compare fits by "
            "gen.energy_distance, as the losses of a game say nothing of it.",
        ),
    )
