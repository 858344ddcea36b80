"""Generative adversarial networks (Goodfellow et al. 2014): samples without a density.

x = G(z, c),    z ~ N(0, I_q)

G is no bijection and z has as few dimensions as one likes: the law of x may have no density, and there is no posterior of z. What
is known of how near it is to the data is what the critic says, and two samples beside each other.
"""

import dataclasses
from typing import Any, ClassVar, Literal, Self, final, get_args

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from nlmefit.core.errors import DataError, ModelError
from nlmefit.core.keys import Key
from nlmefit.core.networks import MLP
from nlmefit.generative.adversarial.critic import Critic
from nlmefit.generative.adversarial.game import AbstractGame, Groups
from nlmefit.generative.arguments import check_kinds
from nlmefit.generative.capability import AbstractSampler
from nlmefit.generative.divergence import Estimate
from nlmefit.generative.rows import Samples
from nlmefit.generative.standard import AbstractStandardized, Standard

Noise = Literal["normal", "uniform"]


@final
class GAN(AbstractStandardized, AbstractSampler):
    """A generator G of `latent` variables, and the critic that it is trained against; conditional where fitted to (X, given).

    **Everyday arguments:** `generator` and `critic` networks, `gen.MLP(width=, depth=)`.

    **Others:** `noise`, the law of z: "normal", or "uniform" on [-1, 1]. `players`, `standard` and `game` are what a fit fills
    in.

    Fitted by `gen.Adversarial(...)`. It has samples and `critic_distance`, no density, no bound and no posterior. Raises
    ModelError for other arguments.
    """

    latent: int = eqx.field(static=True)
    generator: MLP = eqx.field(static=True, default=MLP(128, 3, "relu"))
    critic: MLP = eqx.field(static=True, default=MLP(128, 3, "relu"))
    noise: Noise = eqx.field(static=True, default="normal")
    players: "Players | None" = None
    standard: Standard | None = None
    game: AbstractGame | None = eqx.field(static=True, default=None)
    """That the players were trained by."""
    fitted_by: ClassVar[tuple[str, ...]] = ("Adversarial",)

    def __check_init__(self) -> None:
        check_kinds(self, ModelError)
        if isinstance(self.latent, bool) or not isinstance(self.latent, int) or self.latent < 1:
            raise ModelError(f"GAN(latent=...) must be a whole number from 1 up, got {self.latent!r}.")
        for name in ("generator", "critic"):
            if not isinstance(getattr(self, name), MLP):
                raise ModelError(f"GAN({name}=...) must be gen.MLP(...), got {getattr(self, name)!r}.")
        if self.noise not in get_args(Noise):
            raise ModelError(f"GAN(noise=...) must be 'normal' or 'uniform', got {self.noise!r}.")

    def built(self, data: Samples, key: Array) -> Self:
        if self.players is not None:
            return self
        columns, conditions = data.x.shape[1], data.given.shape[1]
        first, second = jax.random.split(key)
        generator = self.generator.build(self.latent + conditions, columns, first)
        players = Players(generator, Critic.of(self.critic, 1, columns, conditions, second))
        return dataclasses.replace(self, players=players, standard=Standard.of(data))

    def facing(self, game: AbstractGame, packing: int, key: Array) -> Self:
        """With a critic of that many rows for that game: a new one, unless it has that already."""
        if self.game == game and self.networks.critic.packing == packing:
            return self
        critic = Critic.of(self.critic, packing, len(self.units.center), self.conditions, key)
        return dataclasses.replace(self, players=Players(self.networks.generator, critic), game=game)

    def played_by(self, generator: eqx.nn.MLP, critic: Critic) -> Self:
        return dataclasses.replace(self, players=Players(generator, critic))

    @property
    def networks(self) -> "Players":
        assert self.players is not None
        return self.players

    def generated(self, given: Float[Array, "C"], key: Array) -> Float[Array, "D"]:
        """A standardised x, from a standardised c."""
        if self.noise == "normal":
            z = jax.random.normal(key, (self.latent,), given.dtype)
        else:
            z = jax.random.uniform(key, (self.latent,), given.dtype, -1.0, 1.0)
        return self.networks.generator(jnp.concatenate([z, given]))

    def draw(self, key: Array, given: Float[Array, "C"]) -> Float[Array, "D"]:
        return self.units.back(self.generated(self.units.given(given), key))

    def critic_distance(self, X: Any, *, given: Any = None, key: Key = 0) -> Estimate:
        """A lower bound of the divergence between rows X and the model, from the critic and as many samples, with its Monte
        Carlo error. By the game that it was trained by:

        - `gen.JensenShannon`: V / 2 + log 2 <= JS(data, model), in nats;
        - `gen.Wasserstein`: (E[f(x)] - E[f(G(z))]) / L <= W_1(data, model), each column in units of its standard deviation in
          the data of the fit; L is the largest |df/dx| at the rows, the samples and half-way between, an estimate of the
          steepest slope (`gen.lipschitz_bound` of the critic's network is a certain one, and larger).

        It is a bound for whatever critic, and near the divergence only for the best one: a small value may mean a good model
        or a bad critic, which is why fits are judged by `gen.two_sample_test`. A critic that sees m rows at once bounds
        the divergence between the laws of m rows. On the rows that it was trained on it is too large.

        Raises DataError for rows that are not finite, of another size, or fewer than the critic sees at once; ModelError before
        a fit.
        """
        X = self._rows(X)
        if self.game is None:
            raise ModelError("this GAN has no critic that was trained: fit it with nm.fit(model, X, gen.Adversarial(...)).")
        critic, c = self.networks.critic, self._given(given, len(X))
        if len(X) < critic.packing:
            raise DataError(f"X has {len(X)} rows, and this model's critic looks at {critic.packing} at once: give more.")
        fake = self.sample(len(X), key=key, given=c if self.conditions else None)
        real, found = (Groups(*(critic.packed(part) for part in self.standardised(Samples(x, c)))) for x in (X, fake))
        return self.game.bound(critic, real, found)

    def standardised(self, rows: Samples) -> tuple[Float[Array, "N D"], Float[Array, "N C"]]:
        """Rows and conditions in the units of the networks."""
        return jax.vmap(self.units.x)(jnp.asarray(rows.x)), jax.vmap(self.units.given)(jnp.asarray(rows.given))


@final
class Players(eqx.Module):
    """The networks of a game."""

    generator: eqx.nn.MLP
    critic: Critic
