"""Couplings of data x and source z, whose marginals are theirs: who flows to whom in flow matching.

Any coupling with the right marginals gives a flow from source to data; the nearer it is to optimal transport, the straighter.
"""

import abc
from dataclasses import dataclass, field
from typing import Any, NamedTuple, final

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from nlmefit.core import gaussian
from nlmefit.core.backend import compiled_module
from nlmefit.core.errors import MethodError
from nlmefit.core.gaussian import Gaussian
from nlmefit.core.networks import MLP
from nlmefit.core.options import check_whole
from nlmefit.core.typing import Scalar
from nlmefit.generative.arguments import check_kinds
from nlmefit.generative.capability import in_blocks
from nlmefit.generative.flows.coupling_layers import vanishing
from nlmefit.generative.rows import Samples
from nlmefit.generative.transport.cnf import CNF
from nlmefit.generative.transport.optimal_transport import pairing
from nlmefit.generative.transport.velocity import AbstractVelocity


class Joint(NamedTuple):
    """What is trained: the model and, with a learned coupling, the posterior q(z | x)."""

    model: Any
    posterior: Any


class Drawn(NamedTuple):
    """Sources of a batch, standardised, and what the coupling adds to the loss."""

    z: Float[Array, "B D"]
    penalty: Scalar


class AbstractSourceCoupling(abc.ABC):
    """A joint law of data and source; a hashable value."""

    weight: float = 1.0
    """What the regression is multiplied by."""

    @abc.abstractmethod
    def draw(
        self, joint: Joint, x: Float[Array, "B D"], beside: Float[Array, "B P"], given: Float[Array, "B C"], key: Array
    ) -> Drawn:
        """z for each x (standardised), from what stands beside its row."""

    def start(self, model: Any, data: Samples, key: Array) -> Joint:
        """What is trained. Raises MethodError where the coupling does not suit the model."""
        return Joint(model, None)

    def rows(self, model: AbstractVelocity, data: Samples, key: Array) -> Samples:
        """The rows that are trained on: x, and beside it what `draw` makes z of."""
        return data

    def finish(self, joint: Joint, data: Samples) -> Any:
        """The trained model."""
        return joint.model


def _sources(model: AbstractVelocity, given: Float[Array, "B C"], key: Array) -> Float[Array, "B D"]:
    return jax.vmap(model.draw_source)(jax.random.split(key, len(given)), given)


@final
@dataclass(frozen=True)
class Independent(AbstractSourceCoupling):
    """x and z independent: the diffusion-like choice, with curved paths."""

    def draw(self, joint: Joint, x: Array, beside: Array, given: Array, key: Array) -> Drawn:
        return Drawn(_sources(joint.model, given, key), jnp.zeros((), x.dtype))


@final
@dataclass(frozen=True)
class OptimalTransport(AbstractSourceCoupling):
    """Within `among` rows and as many draws of the source, each row has the draw that makes sum |x_i - z_i|^2 least (Pooladian et
    al. 2023, Tong et al. 2024); every draw is used once, so that the marginals stay.

    Rows are paired before the training, as often as makes `pairs` in all: of more rows at a time the pairing is nearer to
    optimal transport, in a time that grows with about their square. (With `held_out` a row may so be on both sides, with
    different draws.)

    With conditions c, draws get those of the rows at random first, and |x_i - z_i|^2 + condition_weight |c_i - c'_i|^2
    (standardised) is made least: without that the source would depend on c, and samples given c would not start where they
    should (Cheng and Schwing 2025).

    Raises MethodError unless among and pairs are whole numbers from 1 up and condition_weight is not negative.
    """

    among: int = 1000
    pairs: int = 50_000
    condition_weight: float = 100.0

    def __post_init__(self) -> None:
        check_kinds(self)
        check_whole("among", self.among, 1)
        check_whole("pairs", self.pairs, 1)
        if not self.condition_weight >= 0:
            raise MethodError(f"condition_weight must be 0 or more, got {self.condition_weight!r}.")

    def draw(self, joint: Joint, x: Array, beside: Array, given: Array, key: Array) -> Drawn:
        return Drawn(beside, jnp.zeros((), x.dtype))

    def rows(self, model: AbstractVelocity, data: Samples, key: Array) -> Samples:
        assert model.dynamics is not None
        shuffle, draw = jax.random.split(key)
        generator = np.random.default_rng(np.asarray(jax.random.key_data(shuffle)))
        times = -(-self.pairs // len(data))
        order = np.concatenate([generator.permutation(len(data)) for _ in range(times)])
        x, given = data.x[order], data.given[order]
        z = np.array(compiled_module(_sources)(model, given, draw))
        u, c = (np.asarray(a) for a in (model.dynamics.inner(x), _condition(model, given)))
        c = np.sqrt(self.condition_weight) * c
        for begin in range(0, len(x), self.among):
            rows = slice(begin, begin + self.among)
            mine, drawn = (np.concatenate([a[rows], c[rows]], axis=1) for a in (u, z))
            z[rows] = z[rows][pairing(mine, drawn)]
        return Samples(np.concatenate([x, z], axis=1), given)


@final
@dataclass(frozen=True, eq=False)
class Reflow(AbstractSourceCoupling):
    """Each row of data with where an earlier flow takes it: fitting again with this coupling straightens the paths, step by step
    (Liu et al. 2023, rectified flow).

        again = nm.fit(fit.model, X, gen.FlowMatching(coupling=gen.Reflow(fit.model)))

    The data stay as they are, and the source is as the earlier flow reproduces it. Raises MethodError for another's source.
    """

    earlier: AbstractVelocity

    def __post_init__(self) -> None:
        check_kinds(self)

    def draw(self, joint: Joint, x: Array, beside: Array, given: Array, key: Array) -> Drawn:
        return Drawn(joint.model.dynamics.inner(beside), jnp.zeros((), x.dtype))

    def rows(self, model: AbstractVelocity, data: Samples, key: Array) -> Samples:
        if type(model) is not type(self.earlier):
            raise MethodError(f"Reflow of a {type(self.earlier).__name__} is for another one, not for a {type(model).__name__}.")
        given = data.given if self.earlier.conditions else None
        return Samples(np.concatenate([data.x, self.earlier.to_source(data.x, given=given)], axis=1), data.given)


class Posterior(eqx.Module):
    """q(z | x, c) = N(m(x, c), diag s(x, c)^2) in standardised units."""

    network: eqx.nn.MLP

    def moments(self, u: Float[Array, "D"], given: Float[Array, "C"]) -> tuple[Float[Array, "D"], Float[Array, "D"]]:
        """m and s."""
        mean, log_sd = jnp.split(self.network(jnp.concatenate([u, given])), 2)
        return mean, jnp.exp(log_sd)


@final
@dataclass(frozen=True)
class LearnedCoupling(AbstractSourceCoupling):
    """z | x ~ N(m(x), diag s(x)^2), learned with the flow: a rectified flow as a variational autoencoder whose decoder is the
    flow,

        loss = E_x[ KL(q(z | x) || N(0, I)) ] + E|z - x - v(x_t, t)|^2 / (2 sigma^2)

    It is an evidence bound but for constants that are infinite: never report it as one; `log_prob` is exact. A small sigma makes
    for straight paths, a large one for a source near N(0, I).

    The law of z over all data is *not* N(0, I): the KL is a soft pull only. Samples that start from N(0, I) are too wide: of
    normal data in one dimension z has a variance between 1/2 and 1. So the fitted model starts from the normal law with the mean
    and covariance that z has over the data, its `.source`; `.source_gap` is the KL of that from N(0, I). With conditions it is
    the law over all of them. `aggregate=False` leaves N(0, I).

    For `gen.CNF`. `network` gives m and log s of (x, c). Raises MethodError unless sigma is positive.
    """

    sigma: float = 1.0
    network: MLP = field(default_factory=MLP)
    aggregate: bool = True

    def __post_init__(self) -> None:
        check_kinds(self)
        if not self.sigma > 0:
            raise MethodError(f"sigma must be positive, got {self.sigma!r}.")

    @property
    def weight(self) -> float:  # type: ignore[override]
        return 1 / (2 * self.sigma**2)

    def start(self, model: Any, data: Samples, key: Array) -> Joint:
        if not isinstance(model, CNF):
            raise MethodError(f"LearnedCoupling pulls the source to N(0, I): it is for gen.CNF, not for {type(model).__name__}.")
        size = data.x.shape[1]
        return Joint(model, Posterior(vanishing(self.network.build(size + data.given.shape[1], 2 * size, key))))

    def draw(self, joint: Joint, x: Array, beside: Array, given: Array, key: Array) -> Drawn:
        mean, sd = jax.vmap(joint.posterior.moments)(x, _condition(joint.model, given))
        return Drawn(mean + sd * jax.random.normal(key, mean.shape, mean.dtype), gaussian.kl_diagonal(mean, sd) / len(x))

    def finish(self, joint: Joint, data: Samples) -> CNF:
        if not self.aggregate:
            return joint.model
        return eqx.tree_at(lambda m: m.source, joint.model, aggregated(joint, data))


def aggregated(joint: Joint, data: Samples) -> Gaussian:
    """The normal law with the moments of z over all data: mean E m, covariance Cov m + E diag s^2."""
    mean, sd = in_blocks(_moments, joint, data.x, data.given)
    covariance = np.atleast_2d(np.cov(mean.T, bias=True)) + np.diag(np.mean(sd**2, axis=0))
    return Gaussian(mean.mean(axis=0), np.linalg.cholesky(covariance))  # type: ignore[arg-type]


def _moments(joint: Joint, x: Array, given: Array) -> tuple[Array, Array]:
    return joint.posterior.moments(joint.model.dynamics.inner(x), _condition(joint.model, given))


def _condition(model: Any, given: Array) -> Array:
    return model.dynamics.condition.forward(given, given)[0]
