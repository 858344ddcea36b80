"""Amortized variational inference (Kingma and Welling 2014): an encoder answers for every subject, seen or not.

    log p(y_i | theta) >= E_q[ log p(y_i, z | theta) - log q(z | y_i) ]
    q(z | y_i) = N(m_i, S_i S_i'),    (m_i, S_i) = encoder(y_i)

z are the whitened random effects, eta = L(theta) z: their prior is learned along with theta (empirical Bayes). How a record is
read is in `encoder.py`, the training in `wake_sleep.py`.

Where an encoder misses a subject's best q (the amortization gap; Cremer, Li and Duvenaud 2018) the bound pulls theta off, Omega
downwards. Refinement ends that: every subject's q is driven to its optimum at every theta from the encoder's estimates on
(semi-amortized; Kim, Wiseman, Miller, Sontag and Rush 2018).
"""

import time
from dataclasses import dataclass, replace
from typing import Any, final

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from nlmefit.core.errors import MethodError
from nlmefit.core.options import check_truth, check_whole
from nlmefit.estimate import random_numbers
from nlmefit.estimate.method import AbstractMethod, Found, Reporter
from nlmefit.estimate.problem import Problem
from nlmefit.estimate.referee.importance import Proposal, Weights, joint, sample
from nlmefit.estimate.start import check_start, check_support
from nlmefit.estimate.status import Status
from nlmefit.estimate.variational.encoded import Amortized, Seen, read
from nlmefit.estimate.variational.encoder import AbstractEncoder, Reader, SetEncoder
from nlmefit.estimate.variational.vi import VI
from nlmefit.estimate.variational.wake_sleep import THETA_RATE, State, Trainer, check_simulation

DEFAULT = SetEncoder()
FRESH = 1000
"""Draws of each subject that the reported bound is estimated with."""
LATE = 0.25
"""The share of the steps, the last ones, that average several gradients, and over which theta is averaged."""
MORE = 4
"""As many gradients are averaged in each of those."""
WARM = 0.3
"""Steps of the sleep phase alone before training, as a share of `steps`."""
STATIONARY = 0.1
"""What the log-likelihood's bound may still be rising by, or promise to gain."""


@final
@dataclass(frozen=True)
class AmortizedVI(AbstractMethod):
    """Amortized variational inference: one encoder for all subjects, trained together with theta on the model's bound.

    The objective is a bound: log p(y | theta) is larger by the sum of the subjects' KL(q_i | posterior), `nm.log_marginal` says
    by how much. `fit.found.posterior` is an `Amortized`: its `of` gives the posterior of new subjects at once.

    **Everyday arguments:** `encoder` the network, `nm.SetEncoder(width=64, depth=2)`; `steps` of stochastic gradients; `refine`
    whether at the end each subject gets its own best q and theta follows (`VI`), which takes the encoder's bias off the
    estimates and gives standard errors; without it, the purely amortized numbers.

    **Others:** `draws` of each subject's random effects in a step (even; four times as many in the last quarter, over which theta
    is averaged); `batch` subjects in a step; `rate` of learning, of the encoder (theta's is 5 times that, on the logarithmic
    scale), which falls to a 200th over the steps; `simulated` the weight of the bound on simulated subjects.

    Converged means: between the last two tenths of the steps the mean bound rose by less than 0.1 (or twice its standard error),
    and `VI` has converged; without refinement, one scoring step in theta with every q held would gain less than 0.1.

    Raises MethodError for options out of range, for models without random effects, and for those that cannot be simulated.
    """

    encoder: AbstractEncoder = DEFAULT
    steps: int = 3000
    draws: int = 8
    batch: int = 64
    rate: float = 5e-3
    refine: bool = True
    simulated: float = 1.0

    def __post_init__(self) -> None:
        if not isinstance(self.encoder, AbstractEncoder):
            raise MethodError(f"encoder must be a value such as nm.SetEncoder(width=64, depth=2), got {self.encoder!r}.")
        for option, least in (("steps", 10), ("draws", 2), ("batch", 1)):
            check_whole(option, getattr(self, option), least)
        if self.draws % 2:
            raise MethodError(f"draws must be an even number (they come in pairs), got {self.draws!r}.")
        if not _is_number(self.rate) or not 0 < self.rate < 1:
            raise MethodError(f"rate must be a number between 0 and 1, got {self.rate!r}.")
        if not _is_number(self.simulated) or not 0 <= self.simulated < np.inf:
            raise MethodError(f"simulated must be a number from 0 up, got {self.simulated!r}.")
        check_truth("refine", self.refine)

    @property
    def name(self) -> str:
        return f"amortized variational inference, {self.encoder.name}"

    def find(self, problem: Problem, progress: Reporter, key: Array) -> Found:
        return _Fit(self, problem, progress, key, learn=True).found()

    def evaluate(self, problem: Problem, key: Array) -> Found:
        """The bound at the start values, with an encoder trained for them."""
        return _Fit(self, problem, _Silent(), key, learn=False).found()


class _Fit:
    """One training, and what it found."""

    def __init__(self, method: AmortizedVI, problem: Problem, progress: Reporter, key: Array, learn: bool):
        self.method, self.problem, self.progress, self.learn = method, problem, progress, learn
        self.keys = dict(zip(("build", "warm", "early", "late", "tune", "look", "bound"), jax.random.split(key, 7), strict=True))
        self.stopped = ""
        self.history: list[dict[str, Any]] = []
        self.path: list[np.ndarray] = []

    def found(self) -> Found:
        began = time.perf_counter()
        self._check()
        self.trainer = Trainer(self.problem, Reader.of(self.problem.subjects), self._batch, self.method.simulated)
        self.state = State.start(self.problem.coordinates.start(), self._network())
        self._guard(self._warm_up)
        self._guard(self._train)
        trained = time.perf_counter()
        refined = self._refined()
        u = np.asarray(self.state.u) if refined is None else refined.u
        self._guard(lambda: self._tune(u))
        answer = self._answer(u, refined)
        done = time.perf_counter()
        answer.seconds = {"train the encoder": trained - began, "refine and evaluate": done - trained}
        return answer

    @property
    def _batch(self) -> int:
        return min(self.method.batch, self.problem.size)

    def _check(self) -> None:
        problem = self.problem
        if problem.q == 0:
            raise MethodError(f"{self.method.name} is about random effects and the model has none; use nm.Laplace().")
        check_support(problem, problem.coordinates.start())
        check_start(problem, ~np.isfinite(joint(problem, problem.coordinates.start(), np.zeros((1, problem.size, problem.q)))[0]))
        if self.method.simulated > 0:
            check_simulation(problem)

    def _network(self) -> Any:
        one = jax.tree.map(lambda x: x[0], self.problem.subjects)
        reader = self.trainer.reader
        return self.method.encoder.build(jax.eval_shape(reader, one), self.problem.q, self.keys["build"])

    # ---- the course of a training ------------------------------------------------------------------------------------

    def _guard(self, stage: Any) -> None:
        """Run a stage unless interrupted before; interrupted in it, keep what there is."""
        if self.stopped:
            return
        try:
            stage()
        except KeyboardInterrupt:
            self.stopped = "interrupted"

    def _warm_up(self) -> None:
        steps = int(WARM * self.method.steps)
        if self.method.simulated > 0:
            self._follow("warm", "simulated subjects", np.c_[np.zeros(steps), self.method.rate * _course(steps)], 0)
            self.state = State.start(np.asarray(self.state.u), self.state.network)
        information = np.diag(self.trainer.score(self.state, 64)[1])
        spread = 1 / np.sqrt(np.where(information > 1e-12, information, 1.0))  # about a standard error
        large = np.maximum(np.abs(self.state.u), 10 * np.nan_to_num(spread, nan=0.1))
        self.trainer.scale = np.where(self.problem.coordinates.transformed, 1.0, large)

    def _train(self) -> None:
        steps, rate = self.method.steps, self.method.rate
        course = rate * _course(steps)
        rates = np.c_[self.learn * THETA_RATE * course, course]
        early = steps - int(LATE * steps)
        self._follow("early", "step", rates[:early], self.method.draws)
        self._follow("late", "step", rates[early:], self.method.draws, MORE)
        average = np.mean(np.concatenate(self.path)[early:], axis=0)  # Polyak and Juditsky 1992
        self.state = self.state._replace(u=jnp.asarray(average))

    def _tune(self, u: np.ndarray) -> None:
        """The encoder once more, for theta as it has become."""
        self.state = self.state._replace(u=jnp.asarray(u))
        steps = self.method.steps // 10
        half = 0.25 * self.method.rate * np.linspace(1.0, 0.0, steps, endpoint=False)
        rates = np.c_[np.zeros(steps), half]
        for state, _, _ in self.trainer.run(self.state, self.keys["tune"], rates, self.method.draws, MORE):
            self.state = state
            self.progress.stage("tuning the encoder")

    def _follow(self, key: str, what: str, rates: np.ndarray, count: int, repeats: int = 1) -> None:
        for state, values, path in self.trainer.run(self.state, self.keys[key], rates, count, repeats):
            self.state = state
            if not count:
                self.progress.stage(f"{what}, mean log q {values[-1]:.4f}")
                continue
            begin, each = len(self.history), count * repeats
            self.history += [{"iteration": begin + k + 1, "bound": float(v), "draws": each} for k, v in enumerate(values)]
            self.path.append(path)
            self.progress.stage(f"{what} {len(self.history)} of {self.method.steps}, bound {np.mean(values):.3f}")

    def _refined(self) -> Found | None:
        """Each subject's best q, and theta with them, from the encoder's theta on."""
        if self.stopped or not self.method.refine:
            return None
        self.progress.stage("refining")
        moved = self.problem.restarted(np.asarray(self.state.u))
        try:
            found = VI().find(moved, self.progress, self.keys["tune"]) if self.learn else VI().evaluate(moved, self.keys["tune"])
        except KeyboardInterrupt:
            self.stopped = "interrupted"
            return None
        if self.learn and found.status.state == "failed" and "nterrupted" in str(found.status):
            self.stopped = "interrupted"
        return found

    # ---- what was found ------------------------------------------------------------------------------------------------

    def _gain(self) -> float:
        """What one scoring step in theta, every q held, promises to add to the bound: g' J^-1 g / 2; infinite where unknown."""
        g, information = self.trainer.score(self.state, 256)
        if not np.all(np.isfinite(information)):
            return np.inf
        return float(0.5 * g @ np.linalg.pinv(information, hermitian=True) @ g)

    def _answer(self, u: np.ndarray, refined: Found | None) -> Found:
        problem, reader = self.problem, self.trainer.reader
        mean, scale, summaries = (np.asarray(x) for x in read(self.state.network, reader, problem.subjects))
        alone = self._bound(u, Proposal(mean, scale, np.inf))
        own, spread = alone, scale @ np.swapaxes(scale, 1, 2)
        if refined is not None:
            usable = np.all(np.isfinite(refined.posterior.covariance), axis=(1, 2)) & np.all(np.isfinite(refined.z), axis=1)
            mean = np.where(usable[:, None], refined.z, mean)
            spread = np.where(usable[:, None, None], refined.posterior.covariance, spread)
            own = self._bound(u, Proposal(mean, np.linalg.cholesky(spread), np.inf))
        return Found(
            u=u,
            z=mean,
            posterior=Amortized(mean, spread, self.state.network, reader, self._seen(u, summaries), u, refined is not None),
            value=-2 * np.mean(own.log, axis=0),
            status=self._status(refined),
            kind="bound",
            error=2 * np.std(own.log, axis=0, ddof=1) / np.sqrt(len(own.log)),
            converged=None if refined is None else refined.converged,
            uncertainty=None if refined is None else refined.uncertainty,
            history=self.history,
            notes=self._notes(alone, own, refined),
        )

    def _bound(self, u: np.ndarray, q: Proposal) -> Weights:
        """Fresh draws, the same standard ones for every q: the mean of `log` is the bound."""
        return sample(self.problem, u, q, random_numbers.generator(self.keys["bound"]), FRESH)

    def _seen(self, u: np.ndarray, summaries: np.ndarray) -> Seen:
        """The real records, and a thousand simulated ones where such were trained on."""
        if self.method.simulated > 0:
            simulated = self.trainer.simulate(u, self.keys["look"], FRESH)
            dreamt = np.asarray(read(self.state.network, self.trainer.reader, simulated)[2])
            summaries = np.concatenate([summaries, dreamt[np.all(np.isfinite(dreamt), axis=1)]])
        return Seen.of(summaries)

    def _notes(self, alone: Weights, own: Weights, refined: Found | None) -> dict[str, str]:
        by_encoder, by_own = float(np.sum(np.mean(alone.log, axis=0))), float(np.sum(np.mean(own.log, axis=0)))
        said = {
            "objective": f"a lower bound of log p(y), {FRESH} fresh draws per subject; see nm.log_marginal for its gap",
            "encoder": f"{self.method.encoder.name}, {len(self.history)} steps, weight {self.method.simulated:g} on simulations",
        }
        if refined is None:
            said["bound"] = f"{by_encoder:.3f} by the encoder, not refined: Omega and the rest have the amortization's bias"
        else:
            said["bound"] = f"{by_encoder:.3f} by the encoder, {by_own:.3f} refined: amortization gap {by_own - by_encoder:.3f}"
            said["refined"] = "theta and every subject's normal q by full-rank VI, from the encoder's theta on"
        if self.state.skipped:
            said["steps left out"] = f"{self.state.skipped}, whose gradient was not finite"
        return said

    def _status(self, refined: Found | None) -> Status:
        if self.stopped:
            return Status("failed", (f"{self.stopped.capitalize()}; these are the best values so far.",))
        if not self.learn:
            return Status("evaluated", ("at the given values, nothing estimated.",))
        rise, allowed = self._rise()
        doubts = []
        if not rise <= allowed:
            doubts.append(f"The bound was still rising, by {rise:.2g} over the last tenth of the steps; take more steps.")
        if refined is None:
            gain = self._gain()
            if not gain <= STATIONARY:
                doubts.append(f"One scoring step promises to raise the bound by {gain:.2g}; take more steps, or refine.")
            reason = (
                f"the bound's mean changed by {rise:.2g} over the last tenth of the steps, a scoring step would gain {gain:.2g}."
            )
            return Status("uncertain", tuple(doubts)) if doubts else Status("converged", (reason,))
        if not refined.status:
            return replace(refined.status, reasons=(*refined.status.reasons, *doubts))
        return Status("uncertain", tuple(doubts)) if doubts else refined.status

    def _rise(self) -> tuple[float, float]:
        """How far the mean bound rose between the last two tenths of the steps, and what noise alone excuses."""
        bounds = np.array([row["bound"] for row in self.history])
        tenth = max(len(bounds) // 10, 1)
        last, before = bounds[-tenth:], bounds[-2 * tenth : -tenth]
        error = np.sqrt(np.var(last) / len(last) + np.var(before) / len(before))
        return float(np.mean(last) - np.mean(before)), max(STATIONARY, 2 * float(error))


class _Silent:
    """Where nobody listens."""

    def __call__(self, iteration: int, point: Any) -> None: ...

    def stage(self, text: str) -> None: ...

    def tick(self) -> None: ...


def _course(steps: int) -> Float[np.ndarray, "S"]:
    """Of the learning rate: up within a fiftieth of the steps, level to a fifth, then down exponentially to a 200th."""
    x = (np.arange(steps) + 1) / max(steps, 1)
    return np.minimum(1.0, x / 0.02) * 0.005 ** np.maximum((x - 0.2) / 0.8, 0.0)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
