"""Flow matching: velocity fields by regression on straight lines between data and source."""

import dataclasses
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple, final

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from nlmefit.core.errors import MethodError
from nlmefit.core.options import check_whole
from nlmefit.core.typing import Scalar
from nlmefit.estimate.method import Reporter
from nlmefit.generative.arguments import check_kinds
from nlmefit.generative.rows import Samples
from nlmefit.generative.trainer import AbstractTrainer
from nlmefit.generative.training import Trained, Training, train
from nlmefit.generative.transport.couplings import AbstractSourceCoupling, Independent, Joint
from nlmefit.generative.transport.optimal_transport import path_energy
from nlmefit.generative.transport.velocity import AbstractVelocity


@final
@dataclass(frozen=True)
class FlowMatching(AbstractTrainer):
    """Flow matching (Lipman et al. 2023, Liu et al. 2023, Albergo and Vanden-Eijnden 2023), data x at t = 0, source z at t = 1:

        E |z - x - v(x_t, t; c)|^2,    x_t = x + t (z - x),    t ~ U(0, 1), (x, z) ~ coupling

    Its least is where v(x, t) = E[z - x | x_t = x], whose flow takes the law of z to that of x. It is no bound of a likelihood.
    (Programs whose t = 0 is the source have t here as 1 - t, and v as -v.)

    **Everyday arguments:** `coupling`, `gen.Independent()`, `gen.OptimalTransport(...)`, `gen.Reflow(model)` or
    `gen.LearnedCoupling(...)`; `training`.

    Raises MethodError for models without a velocity field, and for anything else as a coupling.
    """

    coupling: AbstractSourceCoupling = field(default_factory=Independent)
    training: Training | None = None
    needs: ClassVar[type] = AbstractVelocity
    ability: ClassVar[str] = "a velocity field"
    objective: ClassVar[str] = "|z - x - v(x_t, t)|^2 in standardised units, the mean over rows, and what the coupling adds"

    def __post_init__(self) -> None:
        check_kinds(self)
        if not isinstance(self.coupling, AbstractSourceCoupling):
            raise MethodError(
                "coupling must be gen.Independent(), gen.OptimalTransport(...), gen.Reflow(model) or gen.LearnedCoupling(...), "
                f"got {self.coupling!r}."
            )

    @property
    def name(self) -> str:
        return f"flow matching, {type(self.coupling).__name__} coupling"

    def loss(self, model: Joint, x: Array, given: Array, key: Array) -> Scalar:
        """`model` with what is trained beside it; rows of x may have more columns, which the coupling put there."""
        draw, place = jax.random.split(key)
        size = model.model.dimension
        u = model.model.dynamics.inner(x[:, :size])
        z, penalty = self.coupling.draw(model, u, x[:, size:], given, draw)
        t = (jnp.arange(len(u)) + jax.random.uniform(place, (), u.dtype)).astype(u.dtype) / len(u)  # stratified
        slope = jax.vmap(model.model.dynamics.slope)(t, u + t[:, None] * (z - u), given)
        return penalty + self.coupling.weight * jnp.mean(jnp.sum((z - u - slope) ** 2, axis=1))

    def train(self, model: Any, data: Samples, progress: Reporter, key: Array) -> Trained:
        begin, pair, run = jax.random.split(key, 3)
        joint = self.coupling.start(model, data, begin)
        rows = self.coupling.rows(model, data, pair)
        trained = train(self.loss, joint, rows, self.training or Training(), progress, run)
        return dataclasses.replace(trained, model=self.coupling.finish(trained.model, data))


class Straightness(NamedTuple):
    """How straight a flow's paths are, in squared units of x; 0 `bend` for straight lines (Liu et al. 2023)."""

    energy: float
    """E int |v|^2 dt; `transport.normalized_path_energy` compares it with W_2^2."""
    displacement: float
    """E |x(1) - x(0)|^2."""

    @property
    def bend(self) -> float:
        """E int |v - (x(1) - x(0))|^2 dt = energy - displacement."""
        return self.energy - self.displacement


def straightness(model: AbstractVelocity, Z: Any, *, given: Any = None, nodes: int = 65) -> Straightness:
    """Along the paths from rows of the source (t = 1) to data, integrals by the trapezoidal rule on that many times.

    Raises MethodError for fewer than 2 nodes, DataError for rows of another size.
    """
    check_whole("nodes", nodes, 2)
    times = np.linspace(1.0, 0.0, nodes)
    paths = model.paths(Z, times, given=given)
    velocities = np.stack([model.velocity_at(x, t, given=given) for x, t in zip(paths, times, strict=True)])
    return Straightness(path_energy(velocities, times), _mean_square(paths[-1] - paths[0]))


def _mean_square(x: Float[np.ndarray, "N D"]) -> float:
    return float(np.mean(np.sum(x**2, axis=1)))
