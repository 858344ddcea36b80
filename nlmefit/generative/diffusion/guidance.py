"""Guidance: samples of a diffusion that are steered to a condition, by changing its score. The result is a diffusion again, which
`gen.DDIM` and the others sample.
"""

from collections.abc import Callable
from typing import Self, final

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from nlmefit.core.errors import MethodError, ModelError
from nlmefit.core.options import brief, check_whole
from nlmefit.core.typing import Scalar
from nlmefit.generative.arguments import check_kinds
from nlmefit.generative.diffusion.diffusion import AbstractDiffusion
from nlmefit.generative.diffusion.noising import Prediction
from nlmefit.generative.diffusion.schedule import AbstractSchedule
from nlmefit.generative.rows import Samples
from nlmefit.generative.standard import Standard

Classifier = Callable[[Array, Scalar, Array], Scalar]


class AbstractGuided(AbstractDiffusion):
    """A diffusion with another score."""

    model: eqx.AbstractVar[AbstractDiffusion]

    def __check_init__(self) -> None:
        check_kinds(self, ModelError)
        if not isinstance(self.model, AbstractDiffusion):
            raise ModelError(f"{type(self).__name__} takes a diffusion, such as a fit's .model; got {brief(self.model)}.")

    @property
    def schedule(self) -> AbstractSchedule:
        return self.model.schedule

    @property
    def standard(self) -> Standard | None:
        return self.model.standard

    @property
    def steps(self) -> int | None:
        return self.model.steps

    def built(self, data: Samples, key: Array) -> Self:
        raise MethodError(f"{type(self).__name__} is a way to use a diffusion that has been fitted: fit that.")


@final
class ClassifierGuidance(AbstractGuided):
    """The score of p(x_t | c) from that of p(x_t) and a classifier (Dhariwal and Nichol 2021):

        d log p(x_t | c) = d log p(x_t) + strength d log p(c | x_t)

    `classifier(x_t, log_snr, given)` is log p(c | x_t) of one x_t in standardised units (`model.units`), written in JAX, for the
    noise of that log signal-to-noise ratio; `classes` the columns that its condition has. Raises ModelError for other arguments.
    """

    model: AbstractDiffusion
    classifier: Classifier
    classes: int = eqx.field(static=True, default=1)
    strength: float = 1.0

    def __check_init__(self) -> None:
        check_kinds(self, ModelError)
        if not callable(self.classifier):
            raise ModelError(f"classifier must be a function (x_t, log_snr, given) -> log p(c | x_t), got {self.classifier!r}.")
        check_whole("ClassifierGuidance(classes=...)", self.classes, 1, ModelError)
        if self.model.conditions:
            raise ModelError(
                "ClassifierGuidance takes a diffusion without conditions; see gen.ClassifierFreeGuidance for others."
            )

    @property
    def conditions(self) -> int:
        return self.classes

    def predicted(self, x: Float[Array, "D"], log_snr: Scalar, given: Float[Array, "C"]) -> Prediction:
        plain = self.model.predicted(x, log_snr, given[:0])
        score = plain.score + self.strength * jax.grad(self.classifier)(x, log_snr, given)
        return Prediction.of("score", score, x, log_snr)


@final
class ClassifierFreeGuidance(AbstractGuided):
    """A conditional diffusion, its condition made stronger or weaker (Ho and Salimans 2022):

        score = strength d log p(x_t | c) + (1 - strength) d log p(x_t)

    0 leaves the condition out, 1 is the conditional model, more than 1 exaggerates. The model must have been trained without
    conditions too, `gen.VariationalBound(unconditioned=0.1)`. Raises ModelError for a model without conditions.
    """

    model: AbstractDiffusion
    strength: float = 2.0

    def __check_init__(self) -> None:
        check_kinds(self, ModelError)
        if self.model.dimension is not None and not self.model.conditions:
            raise ModelError("ClassifierFreeGuidance takes a conditional diffusion: fit one to (X, given).")

    def predicted(self, x: Float[Array, "D"], log_snr: Scalar, given: Float[Array, "C"]) -> Prediction:
        with_it = self.model.predicted(x, log_snr, given)
        without = self.model.predicted(x, log_snr, jnp.full_like(given, jnp.nan))
        return jax.tree.map(lambda c, u: self.strength * c + (1 - self.strength) * u, with_it, without)
