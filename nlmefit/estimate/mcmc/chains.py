"""Running the chains of the No-U-Turn sampler in blocks, each chain on a core of its own."""

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array
from numpyro.infer.hmc import hmc

from nlmefit.core.backend import compiled
from nlmefit.core.errors import MethodError
from nlmefit.estimate.batches import cores
from nlmefit.estimate.mcmc.chain_coordinates import ChainCoordinates
from nlmefit.estimate.method import Reporter

BLOCK = 50
"""Most iterations between two looks at the keyboard."""
SPREAD = 0.1
"""Standard deviation of the chains' starts around the start values, in logs, logits and whitened random effects."""
DENSE = 60
"""Most population coordinates for which the metric knows their correlations."""


class Iterations(NamedTuple):
    """What is kept of iterations (chains, iterations, ...)."""

    position: Any
    energy: Any
    """-log p(theta, eta, y), Jacobian included."""
    steps: Any
    acceptance: Any
    diverging: Any


class Chains:
    """Chains of NumPyro's sampler from near the start values.

    `options` are those of NumPyro's kernel. Raises MethodError where the density has no finite gradient at the start values.
    """

    def __init__(self, coordinates: ChainCoordinates, count: int, warmup: int, options: dict[str, Any], key: Array):
        self.coordinates, self.warmup = coordinates, warmup
        self._subjects = jax.device_put(coordinates.problem.subjects)
        start, self._step = hmc(potential_fn_gen=coordinates.energy, algo="NUTS")
        metric = [tuple(sorted(coordinates.start))] if 0 < coordinates.size <= DENSE else False
        options = {"num_warmup": warmup, "dense_mass": metric, **options}
        self._begin = compiled(lambda at, key, subjects: start(at, rng_key=key, model_args=(subjects,), **options))
        self._advance = compiled(self._block)
        self.states: Sequence[Any] = [self._started(k) for k in jax.random.split(key, count)]

    def run(self, draws: int, most: int, enough: Callable[[Iterations], bool], progress: Reporter) -> tuple[Iterations, str]:
        """The draws, and why they ended early (empty where they did not). After every `draws` of them, `enough` says whether they
        will do; at most `most`. Ctrl-C leaves those made so far, or the chains' last points where there is none."""
        kept: list[Iterations] = []
        done = 0
        try:
            with Cores(len(self.states)) as pool:
                for done, _ in self._blocks(pool, self.warmup):
                    progress.stage(f"warmup {done}/{self.warmup}")
                wanted = 0
                while not kept or (wanted < most and not enough(_joined(kept))):
                    before, wanted = wanted, min(wanted + draws, most)
                    for more, block in self._blocks(pool, wanted - before):
                        kept.append(block)
                        done = before + more
                        progress.stage(f"draws {done}/{wanted}")
        except KeyboardInterrupt:
            if kept:
                return _joined(kept), f"Interrupted after {done} of {wanted} draws per chain."
            reached = f"Interrupted in the warmup, after {done} of {self.warmup} iterations"
            return self._last(), f"{reached}: these are the chains' last points, not draws from the posterior."
        return _joined(kept), ""

    def _started(self, key: Array) -> Any:
        """A chain near the start values: nearer where the density is not a number."""
        at, seed = jax.random.split(key)
        problem = self.coordinates.problem
        white = np.asarray(jax.random.normal(at, (self.coordinates.size + problem.size * problem.q,)))
        for spread in (SPREAD, 0.1 * SPREAD, 0.0):
            state = self._begin(self.coordinates.near_start(spread * white), seed, self._subjects)
            if np.isfinite(state.potential_energy) and all(np.all(np.isfinite(x)) for x in state.z_grad.values()):
                return state
        raise MethodError("NUTS needs a density with a finite gradient at the start values; choose other start values.")

    def _blocks(self, pool: ThreadPoolExecutor, length: int) -> Iterator[tuple[int, Iterations]]:
        """Blocks of about a second each: how many iterations are done by then, and the block's."""
        done, count = 0, 1
        while done < length:
            began = time.perf_counter()
            count = min(count, length - done)
            arguments = ((state, self._subjects, count) for state in self.states)
            self.states, rows = zip(*pool.map(lambda a: self._advance(*a), arguments), strict=True)
            done += count
            yield done, _cut(_stacked(rows), count)
            count = int(np.clip(count / (time.perf_counter() - began), 1, BLOCK))

    def _block(self, state: Any, subjects: Any, count: Array) -> tuple[Any, Iterations]:
        """`count` iterations of one chain, at most BLOCK; what is kept of them stands at the front."""
        rows = jax.tree.map(lambda x: jnp.zeros((BLOCK, *jnp.shape(x)), jnp.result_type(x)), _kept(state))

        def step(i: Array, carry: tuple[Any, Iterations]) -> tuple[Any, Iterations]:
            state, rows = carry
            state = self._step(state, (subjects,))
            return state, jax.tree.map(lambda row, x: row.at[i].set(x), rows, _kept(state))

        return jax.lax.fori_loop(0, count, step, (state, rows))

    def _last(self) -> Iterations:
        return jax.tree.map(lambda x: x[:, None], _stacked([_kept(state) for state in self.states]))


class Cores(ThreadPoolExecutor):
    """A thread per core; on leaving early, what has not begun is dropped."""

    def __init__(self, most: int):
        super().__init__(min(cores(), most), thread_name_prefix="nuts")

    def __exit__(self, *error: Any) -> None:
        self.shutdown(wait=True, cancel_futures=True)


def _kept(state: Any) -> Iterations:
    return Iterations(state.z, state.potential_energy, state.num_steps, state.accept_prob, state.diverging)


def _stacked(chains: Any) -> Iterations:
    return jax.tree.map(lambda *x: np.stack([np.asarray(v) for v in x]), *chains)


def _cut(block: Iterations, count: int) -> Iterations:
    return jax.tree.map(lambda x: x[:, :count], block)


def _joined(blocks: list[Iterations]) -> Iterations:
    return jax.tree.map(lambda *x: np.concatenate(x, axis=1), *blocks)
