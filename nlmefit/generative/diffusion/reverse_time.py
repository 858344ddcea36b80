"""Ways back from noise to data, for any diffusion: values that wrap one and sample it.

With beta the schedule's rate and the score as predicted, the process dx = -beta x dt / 2 + sqrt(beta) dw has the reverse
(Anderson 1982; Song et al. 2021)

    dx = -beta ( x / 2 + score(x, t) ) dt + sqrt(beta) dw          in time that runs from 1 to 0

and the ordinary equation dx/dt = -beta ( x + score(x, t) ) / 2 has the same marginal laws, and a density.
"""

from typing import Any, Self, final

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from nlmefit.core.errors import MethodError, ModelError
from nlmefit.core.options import brief, check_whole
from nlmefit.core.typing import Scalar
from nlmefit.generative.arguments import check_kinds
from nlmefit.generative.capability import AbstractDensity, AbstractGenerative, AbstractSampler, in_blocks
from nlmefit.generative.diffusion.diffusion import AbstractDiffusion, ancestral
from nlmefit.generative.diffusion.noising import signal
from nlmefit.generative.rows import Samples


class AbstractWrapped(AbstractGenerative):
    """Another use of a diffusion that has been fitted."""

    model: eqx.AbstractVar[AbstractDiffusion]

    def __check_init__(self) -> None:
        check_kinds(self, ModelError)
        if not isinstance(self.model, AbstractDiffusion):
            raise ModelError(f"{type(self).__name__} takes a diffusion, such as a fit's .model; got {brief(self.model)}.")

    @property
    def dimension(self) -> int | None:
        return self.model.dimension

    @property
    def conditions(self) -> int:
        return self.model.conditions

    def built(self, data: Samples, key: Array) -> Self:
        raise MethodError(f"{type(self).__name__} is a way to use a diffusion that has been fitted: fit that.")


@final
class DDIM(AbstractWrapped, AbstractSampler):
    """Samples in few steps (Song, Meng and Ermon 2021): `stochastic` 0, a deterministic map of noise to data; 1, ancestral.

    Raises ModelError for a model that is no diffusion, MethodError for other values.
    """

    model: AbstractDiffusion
    steps: int = eqx.field(static=True, default=50)
    stochastic: float = eqx.field(static=True, default=0.0)

    def __check_init__(self) -> None:
        check_kinds(self, ModelError)
        check_whole("steps", self.steps, 1)
        if not 0 <= self.stochastic <= 1:
            raise MethodError(f"stochastic must be from 0 to 1, got {self.stochastic!r}.")

    def draw(self, key: Array, given: Float[Array, "C"]) -> Float[Array, "D"]:
        return ancestral(self.model, key, given, self.steps, self.stochastic)


@final
class ReverseSDE(AbstractWrapped, AbstractSampler):
    """Samples by the Euler-Maruyama scheme of the reverse stochastic differential equation, of weak order 1.

    Raises ModelError for a model that is no diffusion, MethodError for another number of steps.
    """

    model: AbstractDiffusion
    steps: int = eqx.field(static=True, default=500)

    def __check_init__(self) -> None:
        check_kinds(self, ModelError)
        check_whole("steps", self.steps, 1)

    def step(self, x: Float[Array, "D"], t: Scalar, given: Float[Array, "C"]) -> tuple[Float[Array, "D"], Scalar]:
        """Mean and standard deviation of x at t - 1/steps given x at t, in standardised units."""
        beta, width = self.model.schedule.beta(t), 1 / self.steps
        score = self.model.predicted(x, self.model.schedule.log_snr(t), given).score
        return x + width * beta * (0.5 * x + score), jnp.sqrt(beta * width)

    def draw(self, key: Array, given: Float[Array, "C"]) -> Float[Array, "D"]:
        first, rest = jax.random.split(key)

        def step(x: Array, at: tuple[Array, Array]) -> tuple[Array, None]:
            t, key = at
            mean, sd = self.step(x, t, given)
            return mean + sd * jax.random.normal(key, x.shape), None

        times = jnp.arange(self.steps, 0, -1) / self.steps
        start = jax.random.normal(first, (len(self.model.units.center),))
        x, _ = jax.lax.scan(step, start, (times, jax.random.split(rest, self.steps)))
        return self.model.units.back(x / signal(self.model.schedule.log_snr(jnp.zeros(()))))


@final
class ProbabilityFlow(AbstractWrapped, AbstractDensity):
    """The continuous normalizing flow that has a diffusion's marginal laws (Song et al. 2021, section 4.3): samples, and the
    density of the samples, which is that of the diffusion where its score is the true one.

        d log p(x_t) / dt = -div f,    f = -beta ( x + score ) / 2,    log p at t=1 the standard normal's

    Solved by Dormand and Prince's method within `rtol` and `atol`; a solution of over `max_steps` steps is NaN. The divergence
    takes one derivative of the network per column.

    Raises ModelError for a model that is no diffusion, MethodError for another number of steps.
    """

    model: AbstractDiffusion
    rtol: float = eqx.field(static=True, default=1e-5)
    atol: float = eqx.field(static=True, default=1e-6)
    max_steps: int = eqx.field(static=True, default=2000)

    def __check_init__(self) -> None:
        check_kinds(self, ModelError)
        check_whole("max_steps", self.max_steps, 1)
        if not (self.rtol > 0 and self.atol > 0):
            raise MethodError(f"rtol and atol must be above 0, got {self.rtol!r} and {self.atol!r}.")

    def velocity(self, x: Float[Array, "D"], t: Scalar, given: Float[Array, "C"]) -> Float[Array, "D"]:
        """f(x, t), in standardised units."""
        said = self.model.predicted(x, self.model.schedule.log_snr(t), given)
        return -0.5 * self.model.schedule.beta(t) * (x + said.score)

    def log_density(self, x: Float[Array, "D"], given: Float[Array, "C"]) -> Scalar:
        noise, log_volume = self.noised(x, given)
        return -0.5 * (noise @ noise + len(noise) * jnp.log(2 * jnp.pi)) + log_volume

    def draw(self, key: Array, given: Float[Array, "C"]) -> Float[Array, "D"]:
        start = jax.random.normal(key, (len(self.model.units.center),))
        x = self._solved(lambda t, x, args: self.velocity(x, t, given), 1.0, 0.0, start)
        return self.model.units.back(x / signal(self.model.schedule.log_snr(jnp.zeros(()))))

    def noised(self, x: Float[Array, "D"], given: Float[Array, "C"]) -> tuple[Float[Array, "D"], Scalar]:
        """Where the flow takes x at t = 1, and log|det| of the map."""
        units, factor = self.model.units, signal(self.model.schedule.log_snr(jnp.zeros(())))

        def both(t: Scalar, state: tuple[Array, Array], args: None) -> tuple[Array, Array]:
            f = lambda x: self.velocity(x, t, given)  # noqa: E731
            return f(state[0]), jnp.trace(jax.jacfwd(f)(state[0]))

        noise, log_volume = self._solved(both, 0.0, 1.0, (factor * units.x(x), jnp.zeros(())))
        return noise, log_volume + len(x) * jnp.log(factor) - units.log_volume

    def to_noise(self, X: Any, *, given: Any = None) -> Float[np.ndarray, "N D"]:
        """Where the flow takes each row at t = 1: standard normal draws, if the model is right.

        Raises DataError for another number of columns or values that are not finite.
        """
        X = self._rows(X)
        return in_blocks(_noise, self, X, self._given(given, len(X)))

    def _solved(self, field: Any, begin: float, end: float, start: Any) -> Any:
        solution = diffrax.diffeqsolve(
            diffrax.ODETerm(field),
            diffrax.Dopri5(),
            begin,
            end,
            None,
            start,
            stepsize_controller=diffrax.PIDController(rtol=self.rtol, atol=self.atol),
            max_steps=self.max_steps,
            throw=False,
        )
        solved = solution.result == diffrax.RESULTS.successful
        return jax.tree.map(lambda y: jnp.where(solved, y[-1], jnp.nan), solution.ys)


def _noise(flow: ProbabilityFlow, x: Array, given: Array) -> Array:
    return flow.noised(x, given)[0]
