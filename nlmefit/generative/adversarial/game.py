"""The games of a critic f and a generator G that adversarial training plays: the most that f can gain is a divergence.

Rows x are of data, G(z) are samples; groups of m rows where the critic looks at m at once. Both are standardised.
"""

import abc
import math
from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple, final, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from nlmefit.core.errors import MethodError
from nlmefit.core.typing import Scalar
from nlmefit.generative.adversarial.critic import Critic
from nlmefit.generative.arguments import check_kinds
from nlmefit.generative.capability import in_blocks
from nlmefit.generative.divergence import Estimate

Constraint = Literal["penalty", "clipping"]


class Groups(NamedTuple):
    """Groups of m rows and their conditions."""

    x: Float[Array, "k m D"]
    given: Float[Array, "k m C"]


class AbstractGame(abc.ABC):
    """A divergence as what a critic makes of it; a hashable value."""

    critic_steps: ClassVar[int]
    """Steps of the critic for each of the generator, as the game's authors take them."""

    @abc.abstractmethod
    def critic_loss(self, critic: Critic, real: Groups, fake: Groups, key: Array) -> Scalar:
        """What the critic minimizes."""

    @abc.abstractmethod
    def generator_loss(self, critic: Critic, fake: Groups) -> Scalar:
        """What the generator minimizes."""

    @abc.abstractmethod
    def estimate(self, real: Float[Array, "k"], fake: Float[Array, "k"]) -> Scalar:
        """The divergence as the critic sees it, from its values."""

    @abc.abstractmethod
    def bound(self, critic: Critic, real: Groups, fake: Groups) -> Estimate:
        """A lower bound of the divergence, on rows that the critic was not trained on, and its Monte Carlo error."""

    def constrained(self, weight: Array) -> Array:
        """A weight of the critic after a step."""
        return weight


@final
@dataclass(frozen=True)
class JensenShannon(AbstractGame):
    """The game of generative adversarial networks (Goodfellow et al. 2014), D = 1 / (1 + exp(-f)):

        critic       max  V = E[log D(x)] + E[log(1 - D(G(z)))]           at best  2 JS(data, G) - 2 log 2
        generator    min  -E[log D(G(z))];  `saturating`  min  E[log(1 - D(G(z)))]

    The saturating loss is the game's own, but without a slope where the critic is sure; the other has the same fixed point.

    **Arguments:** `saturating`; `penalty` adds penalty / 2 E|df/dx|^2 over the data to the critic's loss (R1; Mescheder, Geiger
    and Nowozin 2018), which moves no equilibrium and without which there need be no convergence; 0 for the game as it was
    proposed. Raises MethodError for a penalty below 0.
    """

    saturating: bool = False
    penalty: float = 0.01
    critic_steps: ClassVar[int] = 1

    def __post_init__(self) -> None:
        check_kinds(self)
        _check("penalty", self.penalty, 0.0)

    def critic_loss(self, critic: Critic, real: Groups, fake: Groups, key: Array) -> Scalar:
        loss = jnp.mean(jax.nn.softplus(-critic.values(*real))) + jnp.mean(jax.nn.softplus(critic.values(*fake)))
        return loss + (0.5 * self.penalty * jnp.mean(critic.steepness(*real) ** 2) if self.penalty else 0.0)

    def generator_loss(self, critic: Critic, fake: Groups) -> Scalar:
        values = critic.values(*fake)
        return -jnp.mean(jax.nn.softplus(values)) if self.saturating else jnp.mean(jax.nn.softplus(-values))

    def estimate(self, real: Float[Array, "k"], fake: Float[Array, "k"]) -> Scalar:
        return math.log(2) - 0.5 * (jnp.mean(jax.nn.softplus(-real)) + jnp.mean(jax.nn.softplus(fake)))

    def bound(self, critic: Critic, real: Groups, fake: Groups) -> Estimate:
        first = np.logaddexp(0.0, -_looked(critic, real)[0])
        second = np.logaddexp(0.0, _looked(critic, fake)[0])
        return Estimate(math.log(2) - 0.5 * float(np.mean(first) + np.mean(second)), 0.5 * _error(first, second))


@final
@dataclass(frozen=True)
class Wasserstein(AbstractGame):
    """The game of Wasserstein GANs (Arjovsky, Chintala and Bottou 2017), after Kantorovich and Rubinstein:

        critic       max  E[f(x)] - E[f(G(z))] over |f(x) - f(y)| <= |x - y|       at best  W_1(data, G)
        generator    min  -E[f(G(z))]

    **Arguments:** `constraint`, how f is kept from being steeper: "penalty" adds penalty E[max(|df/dx| - 1, 0)^2] at points
    between rows of data and samples (Petzka, Fischer and Lukovnikov 2018), `two_sided` (|df/dx| - 1)^2 (Gulrajani et al.
    2017), which keeps a slope of the wrong sign from turning where x is one number; "clipping" keeps its weights within +-clip
    (Arjovsky et al.), which bounds the slope by an unknown constant and makes simple critics. Raises MethodError for other
    values.
    """

    constraint: Constraint = "penalty"
    penalty: float = 10.0
    two_sided: bool = False
    clip: float = 0.01
    critic_steps: ClassVar[int] = 5

    def __post_init__(self) -> None:
        check_kinds(self)
        if self.constraint not in get_args(Constraint):
            raise MethodError(f"constraint must be 'penalty' or 'clipping', got {self.constraint!r}.")
        _check("penalty", self.penalty, 1e-12)
        _check("clip", self.clip, 1e-12)

    def critic_loss(self, critic: Critic, real: Groups, fake: Groups, key: Array) -> Scalar:
        loss = jnp.mean(critic.values(*fake)) - jnp.mean(critic.values(*real))
        if self.constraint == "clipping":
            return loss
        share = jax.random.uniform(key, (len(real.x), 1, 1), real.x.dtype)
        between = real.x + share * (fake.x - real.x)
        excess = critic.steepness(between, real.given) - 1
        return loss + self.penalty * jnp.mean((excess if self.two_sided else jax.nn.relu(excess)) ** 2)

    def generator_loss(self, critic: Critic, fake: Groups) -> Scalar:
        return -jnp.mean(critic.values(*fake))

    def estimate(self, real: Float[Array, "k"], fake: Float[Array, "k"]) -> Scalar:
        return jnp.mean(real) - jnp.mean(fake)

    def bound(self, critic: Critic, real: Groups, fake: Groups) -> Estimate:
        """Of any f, divided by its steepest slope: that at the rows, the samples and half-way between them."""
        halves = Groups(0.5 * (real.x + fake.x), real.given)
        found = [_looked(critic, groups) for groups in (real, fake, halves)]
        steepest = max(float(np.max(slopes)) for _, slopes in found)
        first, second = found[0][0], found[1][0]
        return Estimate(float(np.mean(first) - np.mean(second)) / steepest, _error(first, second) / steepest)

    def constrained(self, weight: Array) -> Array:
        return jnp.clip(weight, -self.clip, self.clip) if self.constraint == "clipping" else weight


def _looked(critic: Critic, groups: Groups) -> tuple[Float[np.ndarray, "k"], Float[np.ndarray, "k"]]:
    """f, and |df/dx| over all rows of a group together."""
    return in_blocks(_value_and_steepness, critic, *groups)


def _value_and_steepness(critic: Critic, x: Array, given: Array) -> tuple[Scalar, Scalar]:
    value, slope = jax.value_and_grad(critic)(x, given)
    return value, jnp.linalg.norm(slope)


def _error(first: Float[np.ndarray, "k"], second: Float[np.ndarray, "k"]) -> float:
    """Of the difference of their means."""
    return float(np.sqrt(np.var(first) / len(first) + np.var(second) / len(second)))


def _check(name: str, value: object, least: float) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value < np.inf:
        raise MethodError(f"{name} must be a finite number, {'from 0 up' if least == 0 else 'above 0'}, got {value!r}.")
