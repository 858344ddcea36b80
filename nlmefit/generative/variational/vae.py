"""Variational autoencoders (Kingma and Welling 2014; Rezende, Mohamed and Wierstra 2014).

x_i | z_i ~ p(x | decoder(z_i, c_i)),   z_i ~ N(0, I_q),      q(z | x, c) = N(m, S S'),  (m, S) = encoder(x, c)
"""

import dataclasses
from collections.abc import Hashable
from typing import ClassVar, Literal, Self, final, get_args

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

Covariance = Literal["diagonal", "full"]


@final
class VAE(AbstractDecoder):
    """A variational autoencoder with `latent` variables; conditional where it is fitted to (X, given).

    **Everyday arguments:** `decoder` and `encoder` networks, `gen.MLP(width=, depth=)`, affine with depth 0; `likelihood`
    `gen.GaussianLikelihood(sd="shared", "column" or "decoded")` or `gen.BernoulliLikelihood()`.

    **Others:** `covariance` of q(z | x), "diagonal" or "full". `networks` and `standard` are what a fit fills in.

    Fitted by `gen.VariationalBound()`; small ones by `nm.VI()`, `nm.Laplace()` and their like too, which have no encoder and
    estimate the decoder's weights as parameters. Raises ModelError for other arguments.
    """

    latent: int = eqx.field(static=True)
    decoder: MLP = eqx.field(static=True, default=MLP())
    encoder: MLP = eqx.field(static=True, default=MLP())
    likelihood: AbstractLikelihood = eqx.field(static=True, default=GaussianLikelihood())
    covariance: Covariance = eqx.field(static=True, default="diagonal")
    networks: Networks | None = None
    standard: Standard | None = None
    fitted_by: ClassVar[tuple[str, ...]] = ("VariationalBound",)

    def __check_init__(self) -> None:
        check_kinds(self, ModelError)
        if isinstance(self.latent, bool) or not isinstance(self.latent, int) or self.latent < 1:
            raise ModelError(f"VAE(latent=...) must be a whole number from 1 up, got {self.latent!r}.")
        check_architecture(self)
        if self.covariance not in get_args(Covariance):
            raise ModelError(f"VAE(covariance=...) must be 'diagonal' or 'full', got {self.covariance!r}.")

    @property
    def architecture(self) -> Hashable:
        return self.latent, self.decoder

    def eta_names(self) -> tuple[str, ...]:
        return tuple(f"z{k + 1}" for k in range(self.latent))

    # ---- building --------------------------------------------------------------------------------------------------

    def built(self, data: Samples, key: Array) -> Self:
        """Networks for this many columns and conditions. DataError where the likelihood rules the data out."""
        self.likelihood.check(data.x)
        if self.networks is not None:
            return self
        columns, conditions, q = data.x.shape[1], data.given.shape[1], self.latent
        first, second = jax.random.split(key)
        decoder = self.decoder.build(q + conditions, self.likelihood.outputs(columns), first)
        roots = q if self.covariance == "diagonal" else q * (q + 1) // 2
        encoder = self.encoder.build(columns + conditions, q + roots, second)
        networks = Networks(decoder, encoder, jnp.asarray(self.likelihood.start(columns)))
        return dataclasses.replace(self, networks=networks, standard=Standard.of(data))

    # ---- what it can compute ---------------------------------------------------------------------------------------

    def emission(self, eta: Float[Array, "q"], given: Float[Array, "C"]) -> Distribution:
        return self.from_outputs(self.parts.decoder(jnp.concatenate([eta, self.units.given(given)])))

    def encoded(self, x: Float[Array, "D"], given: Float[Array, "C"]) -> gaussian.Gaussian:
        inputs = jnp.concatenate([self.units.x(x), self.units.given(given)])
        mean, rest = jnp.split(self.parts.encoder(inputs), [self.latent])
        sd = jnp.exp(rest[: self.latent])
        root = jnp.diag(sd)
        if self.covariance == "full":
            root = root.at[jnp.tril_indices(self.latent, -1)].set(rest[self.latent :])
        return gaussian.Gaussian(mean, root)

    def decoded(self, z: Float[Array, "q"], given: Float[Array, "C"]) -> Float[Array, "D"]:
        return self.emission(z, given).mean

    def bound_along(self, x: Float[Array, "D"], given: Float[Array, "C"], eps: Float[Array, "q"]) -> Scalar:
        """log p(x | z, c) - KL(q(z | x, c) || N(0, I)) at z = mean + root eps, its divergence in closed form."""
        q = self.encoded(x, given)
        return self._log_likelihood(x, q.mean + q.root @ eps, given) - _divergence(q)

    def log_weight_along(self, x: Float[Array, "D"], given: Float[Array, "C"], eps: Float[Array, "q"]) -> Scalar:
        q = self.encoded(x, given)
        z = q.mean + q.root @ eps
        # log N(z; 0, I) - log q(z): the constants cancel, and eps is root^-1 (z - mean)
        ratio = 0.5 * (eps @ eps - z @ z) + jnp.sum(jnp.log(jnp.diag(q.root)))
        return self._log_likelihood(x, z, given) + ratio

    def _log_likelihood(self, x: Array, z: Array, given: Array) -> Scalar:
        return jnp.sum(self.emission(z, given).log_prob(x))


def _divergence(q: gaussian.Gaussian) -> Scalar:
    """KL(q || N(0, I)), as `gaussian.kl`: the prior's root is not inverted here."""
    square = jnp.sum(q.root**2) + q.mean @ q.mean - q.mean.shape[0]
    return 0.5 * square - jnp.sum(jnp.log(jnp.diag(q.root)))
