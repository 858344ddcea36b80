"""Markovian hierarchical variational autoencoders (Sonderby et al. 2016; Luo 2022, section 2).

    p(x, z_1..z_L) = p(x | z_1) p(z_1 | z_2) ... p(z_{L-1} | z_L) N(z_L; 0, I)
    q(z_1..z_L | x) = q(z_1 | x) q(z_2 | z_1) ... q(z_L | z_{L-1})

all but p(x | z_1) independent normals whose means and standard deviations are networks. A diffusion is one whose q is fixed.
"""

import dataclasses
from collections.abc import Hashable
from itertools import pairwise
from typing import Any, ClassVar, Self, final

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float
from numpyro.distributions import Distribution

from nlmefit.core import gaussian
from nlmefit.core.errors import ModelError
from nlmefit.core.networks import MLP
from nlmefit.core.typing import Scalar
from nlmefit.generative.arguments import check_kinds
from nlmefit.generative.rows import Samples
from nlmefit.generative.standard import Standard
from nlmefit.generative.variational.decoder import AbstractDecoder, Networks, check_architecture
from nlmefit.generative.variational.likelihood import AbstractLikelihood, GaussianLikelihood


class Level(eqx.Module):
    """N(mean(h), sd(h)^2) of one level given the next."""

    layers: eqx.nn.MLP

    def __call__(self, inputs: Float[Array, "h"]) -> tuple[Float[Array, "q"], Float[Array, "q"]]:
        mean, log_sd = jnp.split(self.layers(inputs), 2)
        return mean, jnp.exp(log_sd)


@final
class HierarchicalVAE(AbstractDecoder):
    """A hierarchy of latent variables, `latents` the number of them by level, from z_1 next to the data up; conditional where it
    is fitted to (X, given).

    **Arguments:** `decoder` and `encoder` the networks of every level; `likelihood` p(x | z_1). `networks` and `standard` are
    what a fit fills in. `posterior`, `transform` and `reconstruct` are of z_1.

    On the seam its random effects are standard normal: z_L, and below it (z_l - mean) / sd given z_{l+1}.

    Fitted by `gen.VariationalBound()`; small ones by `nm.Laplace()` and its like too. Raises ModelError for other arguments.
    """

    latents: tuple[int, ...] = eqx.field(static=True)
    decoder: MLP = eqx.field(static=True, default=MLP())
    encoder: MLP = eqx.field(static=True, default=MLP())
    likelihood: AbstractLikelihood = eqx.field(static=True, default=GaussianLikelihood())
    networks: Networks | None = None
    standard: Standard | None = None
    fitted_by: ClassVar[tuple[str, ...]] = ("VariationalBound",)

    def __check_init__(self) -> None:
        check_kinds(self, ModelError)
        numbers = isinstance(self.latents, tuple) and all(isinstance(q, int) and not isinstance(q, bool) for q in self.latents)
        if not (numbers and self.latents and min(self.latents) > 0):
            raise ModelError(f"HierarchicalVAE(latents=...) must be whole numbers from 1 up, as (8, 4), got {self.latents!r}.")
        check_architecture(self)

    @property
    def architecture(self) -> Hashable:
        return self.latents, self.decoder

    def eta_names(self) -> tuple[str, ...]:
        return tuple(f"z{level + 1}_{k + 1}" for level, size in enumerate(self.latents) for k in range(size))

    def built(self, data: Samples, key: Array) -> Self:
        """Networks for this many columns and conditions. DataError where the likelihood rules the data out."""
        self.likelihood.check(data.x)
        if self.networks is not None:
            return self
        columns, conditions, sizes = data.x.shape[1], data.given.shape[1], self.latents
        keys = iter(jax.random.split(key, 2 * len(sizes)))
        emission = self.decoder.build(sizes[0] + conditions, self.likelihood.outputs(columns), next(keys))
        above = [self.decoder.build(upper + conditions, 2 * size, next(keys)) for size, upper in pairwise(sizes)]
        up = [self.encoder.build(lower + conditions, 2 * size, next(keys)) for lower, size in pairwise((columns, *sizes))]
        networks = Networks((emission, *map(Level, above)), tuple(map(Level, up)), jnp.asarray(self.likelihood.start(columns)))
        return dataclasses.replace(self, networks=networks, standard=Standard.of(data))

    # ---- what it can compute ---------------------------------------------------------------------------------------

    def emission(self, eta: Float[Array, "q"], given: Float[Array, "C"]) -> Distribution:
        parts, c = self._split(eta), self.units.given(given)
        z = parts[-1]
        for level, white in zip(reversed(self.parts.decoder[1:]), reversed(parts[:-1]), strict=True):
            mean, sd = level(jnp.concatenate([z, c]))
            z = mean + sd * white
        return self._emission(z, c)

    def encoded(self, x: Float[Array, "D"], given: Float[Array, "C"]) -> gaussian.Gaussian:
        mean, sd = self.parts.encoder[0](jnp.concatenate([self.units.x(x), self.units.given(given)]))
        return gaussian.Gaussian(mean, jnp.diag(sd))

    def decoded(self, z: Float[Array, "q"], given: Float[Array, "C"]) -> Float[Array, "D"]:
        return self._emission(z, self.units.given(given)).mean

    def log_weight_along(self, x: Float[Array, "D"], given: Float[Array, "C"], eps: Float[Array, "q"]) -> Scalar:
        return self._along(x, given, eps, [-0.5 * jnp.sum(e**2 + jnp.log(2 * jnp.pi)) for e in self._split(eps)])

    def bound_along(self, x: Float[Array, "D"], given: Float[Array, "C"], eps: Float[Array, "q"]) -> Scalar:
        """log p(x, z_1..z_L) - log q at z_l = mean + sd eps_l, with -log q in its expectation, the entropy: of the same mean,
        and less noise."""
        return self._along(x, given, eps, [-0.5 * len(e) * (1 + jnp.log(2 * jnp.pi)) for e in self._split(eps)])

    def _along(self, x: Array, given: Array, eps: Array, log_noise: list[Any]) -> Scalar:
        """log p(x, z) - log q(z | x), where `log_noise` are log N(eps_l; 0, I)."""
        c, value, z, path = self.units.given(given), jnp.zeros((), x.dtype), self.units.x(x), []
        for level, e, log_density in zip(self.parts.encoder, self._split(eps), log_noise, strict=True):
            mean, sd = level(jnp.concatenate([z, c]))
            z = mean + sd * e
            value = value + jnp.sum(jnp.log(sd)) - log_density
            path.append(z)
        for level, lower, upper in zip(self.parts.decoder[1:], path[:-1], path[1:], strict=True):
            value = value + _log_normal(lower, *level(jnp.concatenate([upper, c])))
        return value + _log_normal(z, jnp.zeros_like(z), jnp.ones_like(z)) + jnp.sum(self._emission(path[0], c).log_prob(x))

    def _emission(self, z: Array, c: Array) -> Distribution:
        return self.from_outputs(self.parts.decoder[0](jnp.concatenate([z, c])))

    def _split(self, eta: Float[Array, "q"]) -> list[Array]:
        """By level, the lowest first."""
        places = [sum(self.latents[: k + 1]) for k in range(len(self.latents) - 1)]
        return jnp.split(eta, places)


def _log_normal(z: Array, mean: Array, sd: Array) -> Scalar:
    return -0.5 * jnp.sum(((z - mean) / sd) ** 2 + jnp.log(2 * jnp.pi)) - jnp.sum(jnp.log(sd))
