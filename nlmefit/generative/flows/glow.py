"""Glow: a normalizing flow of images (Kingma and Dhariwal 2018)."""

from collections.abc import Callable
from typing import Any, ClassVar, final

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from nlmefit.core.errors import DataError, ModelError
from nlmefit.core.options import brief
from nlmefit.core.typing import Scalar
from nlmefit.generative.arguments import check_kinds
from nlmefit.generative.capability import AbstractDensity
from nlmefit.generative.flows.bijections import AbstractBijection, Affine, Linear, Repeated
from nlmefit.generative.flows.coupling_layers import AbstractCoupling, AffineCoupling
from nlmefit.generative.flows.flow import log_standard_normal
from nlmefit.generative.rows import Samples

Image = Float[Array, "c h w"]


@final
class Step(AbstractBijection):
    """Of an image: actnorm, a 1 x 1 convolution (the same P L U of the channels at every pixel), a coupling of the channels."""

    scale: Affine
    mixing: Linear
    network: eqx.nn.Sequential
    kind: AbstractCoupling = eqx.field(static=True)

    @classmethod
    def of(cls, channels: int, conditions: int, width: int, kind: AbstractCoupling, key: Array) -> "Step":
        """That starts as a random rotation of the channels."""
        first, second, last = jax.random.split(key, 3)
        kept = channels // 2
        end = eqx.nn.Conv2d(width, (channels - kept) * kind.parameters, 3, padding=1, key=last)
        end = eqx.tree_at(lambda c: (c.weight, c.bias), end, replace_fn=jnp.zeros_like)
        network = eqx.nn.Sequential(
            [
                eqx.nn.Conv2d(kept + conditions, width, 3, padding=1, key=first),
                eqx.nn.Lambda(jax.nn.relu),
                eqx.nn.Conv2d(width, width, 1, key=second),
                eqx.nn.Lambda(jax.nn.relu),
                end,
            ]
        )
        zeros = jnp.zeros((channels, 1, 1))
        generator = np.random.default_rng(np.asarray(jax.random.key_data(key)))
        return cls(Affine(zeros, zeros), Linear.rotating(channels, generator), network, kind)

    def forward(self, x: Image, given: Float[Array, "C"]) -> tuple[Image, Scalar]:
        scaled, first = self.scale.forward(x, given)
        mixed, second = _pixelwise(self.mixing.forward, scaled, given)
        moved, third = self._coupled(self.kind.forward, mixed, given)
        return moved, first * x[0].size + second + third

    def inverse(self, y: Image, given: Float[Array, "C"]) -> tuple[Image, Scalar]:
        mixed, third = self._coupled(self.kind.inverse, y, given)
        scaled, second = _pixelwise(self.mixing.inverse, mixed, given)
        x, first = self.scale.inverse(scaled, given)
        return x, first * x[0].size + second + third

    def _coupled(self, move: Callable[..., Any], x: Image, given: Float[Array, "C"]) -> tuple[Image, Scalar]:
        kept, rest = x[: len(x) // 2], x[len(x) // 2 :]
        everywhere = jnp.broadcast_to(given[:, None, None], (len(given), *x.shape[1:]))
        free = self.network(jnp.concatenate([kept, everywhere.astype(x.dtype)]))
        free = jnp.moveaxis(free.reshape(len(rest), self.kind.parameters, *x.shape[1:]), 1, -1)
        moved, log_slope = move(rest.reshape(-1), free.reshape(-1, self.kind.parameters))
        return jnp.concatenate([kept, moved.reshape(rest.shape)]), jnp.sum(log_slope)


@final
class Glow(AbstractDensity):
    """A multiscale flow of images of `shape` (height, width) or (height, width, channels), flattened to the rows of a matrix:

        log p(x) = log N(T(x); 0, I) + log|det dT/dx|

    T standardises the pixels, then `levels` times puts each 2 x 2 square into four channels, takes `steps` steps (actnorm, 1 x 1
    convolution by P L U, coupling) and lets half of the channels go as noise (Dinh et al. 2017, Kingma and Dhariwal 2018).

    **Everyday arguments:** `shape`; `levels`; `steps` in each; `width` channels of the couplings' networks.

    **Others:** `coupling` their kind; its own network is not used.

    Fitted by `gen.MaximumLikelihood(training=...)`. Whole numbers such as grey levels need uniform noise added first (Theis et
    al. 2016): their density is infinite otherwise. Raises ModelError for sides that 2^levels does not divide, DataError for rows
    of another size.
    """

    fitted_by: ClassVar[tuple[str, ...]] = ("MaximumLikelihood",)

    shape: tuple[int, ...] = eqx.field(static=True)
    levels: int = eqx.field(static=True, default=2)
    steps: int = eqx.field(static=True, default=4)
    width: int = eqx.field(static=True, default=32)
    coupling: AbstractCoupling = eqx.field(static=True, default_factory=AffineCoupling)
    frame: Affine | None = None
    condition: Affine | None = None
    scales: tuple[Repeated, ...] = ()

    def __check_init__(self) -> None:
        check_kinds(self, ModelError)
        for name in ("levels", "steps", "width"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ModelError(f"Glow({name}=...) must be a whole number from 1 up, got {value!r}.")
        sides = self.shape if isinstance(self.shape, tuple | list) else ()
        whole = all(isinstance(side, int) and not isinstance(side, bool) for side in sides)
        if len(sides) not in (2, 3) or not whole or any(side % 2**self.levels or side < 1 for side in sides[:2]):
            raise ModelError(
                f"Glow(shape=...) must be (height, width) or (height, width, channels), sides divisible by {2**self.levels} for "
                f"{self.levels} levels; got {brief(self.shape)}."
            )

    @property
    def dimension(self) -> int | None:
        return None if self.frame is None else len(self.frame.shift)

    @property
    def conditions(self) -> int:
        return 0 if self.condition is None else len(self.condition.shift)

    def built(self, data: Samples, key: Array) -> "Glow":
        if self.frame is not None:
            return self
        size = int(np.prod(self.shape))
        if data.x.shape[1] != size:
            raise DataError(f"rows have {data.x.shape[1]} columns; images of shape {self.shape} have {size} pixels.")
        channels, scales = (*self.shape, 1)[2], []
        for level in jax.random.split(key, self.levels):
            channels *= 4
            keys = jax.random.split(level, self.steps)
            parts = [Step.of(channels, data.given.shape[1], self.width, self.coupling, k) for k in keys]
            scales.append(Repeated.of(parts))
            channels //= 2
        frame, condition = Affine.standardizing(data.x), Affine.standardizing(data.given)
        return Glow(self.shape, self.levels, self.steps, self.width, self.coupling, frame, condition, tuple(scales))

    def to_noise(self, x: Float[Array, "D"], given: Float[Array, "C"]) -> tuple[Float[Array, "D"], Scalar]:
        """z = T(x; c), coarsest scale last, and log|det dT/dx|."""
        assert self.frame is not None and self.condition is not None
        c = self.condition.forward(given, given)[0]
        x, total = self.frame.forward(x, given)
        image, noise = jnp.moveaxis(x.reshape(*self.shape[:2], -1), -1, 0), []
        for scale in self.scales:
            image, log_determinant = scale.forward(_squeezed(image), c)
            total += log_determinant
            image, gone = jnp.split(image, 2)
            noise.append(gone.ravel())
        return jnp.concatenate([*noise, image.ravel()]), total

    def from_noise(self, z: Float[Array, "D"], given: Float[Array, "C"]) -> Float[Array, "D"]:
        """x = T^-1(z; c)."""
        assert self.frame is not None and self.condition is not None
        c = self.condition.forward(given, given)[0]
        sizes = [z.size // 2**level for level in range(1, self.levels + 1)]
        *noise, rest = jnp.split(z, np.cumsum(sizes))
        sides = [side // 2**self.levels for side in self.shape[:2]]
        image = rest.reshape(-1, *sides)
        for scale, gone in zip(reversed(self.scales), reversed(noise), strict=True):
            image = jnp.concatenate([image, gone.reshape(image.shape)])
            image = _unsqueezed(scale.inverse(image, c)[0])
        return self.frame.inverse(jnp.moveaxis(image, 0, -1).ravel(), given)[0]

    def log_density(self, x: Float[Array, "D"], given: Float[Array, "C"]) -> Scalar:
        z, log_determinant = self.to_noise(x, given)
        return log_standard_normal(z) + log_determinant

    def draw(self, key: Array, given: Float[Array, "C"]) -> Float[Array, "D"]:
        assert self.dimension is not None
        return self.from_noise(jax.random.normal(key, (self.dimension,)), given)


def _pixelwise(move: Callable[..., Any], x: Image, given: Float[Array, "C"]) -> tuple[Image, Scalar]:
    """A bijection of the channels, at every pixel."""
    pixels = x.reshape(len(x), -1).T
    moved, log_determinant = jax.vmap(move, in_axes=(0, None))(pixels, given)
    return moved.T.reshape(x.shape), jnp.sum(log_determinant)


def _squeezed(x: Image) -> Image:
    """(c, h, w) to (4 c, h / 2, w / 2)."""
    c, h, w = x.shape
    return x.reshape(c, h // 2, 2, w // 2, 2).transpose(0, 2, 4, 1, 3).reshape(4 * c, h // 2, w // 2)


def _unsqueezed(x: Image) -> Image:
    c, h, w = x.shape
    return x.reshape(c // 4, 2, 2, h, w).transpose(0, 3, 1, 4, 2).reshape(c // 4, 2 * h, 2 * w)
