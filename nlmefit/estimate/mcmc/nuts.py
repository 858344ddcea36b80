"""Full Bayes by the No-U-Turn sampler (Hoffman and Gelman 2014), on the model's NumPyro program.

    p(theta, eta | y)  proportional to  p(theta) prod_i p(y_i | theta, eta_i) N(eta_i; 0, Omega(theta))

The chains start near the model's start values: from random points, those of absorption models end in the mode where absorption
and elimination have changed places.
"""

import time
from dataclasses import dataclass
from functools import cached_property
from typing import Any, final

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from jaxtyping import Array, Float
from numpyro.distributions import biject_to

from nlmefit.core.errors import MethodError
from nlmefit.core.options import check_whole
from nlmefit.estimate.mcmc.chain_coordinates import ChainCoordinates, Position
from nlmefit.estimate.mcmc.chains import BLOCK, Chains, Iterations
from nlmefit.estimate.mcmc.mixing import described, have_mixed, judge_chains
from nlmefit.estimate.method import AbstractMethod, Found, Reporter
from nlmefit.estimate.modes import search
from nlmefit.estimate.modes.laplace import Laplace
from nlmefit.estimate.modes.subject_modes import modes
from nlmefit.estimate.posterior import AbstractPosterior
from nlmefit.estimate.prior import check_prior, prior_note
from nlmefit.estimate.problem import Problem
from nlmefit.estimate.standard_errors import Uncertainty
from nlmefit.estimate.start import check_start, check_support

FIRST_STEP = 0.1
"""Step size that the warmup begins with: small enough for a metric that is not known yet."""
WARMUP_DEPTH = 6
"""`max_tree_depth` in the warmup, whose first step sizes would make for long ways."""


@final
@dataclass(frozen=True)
class Draws(AbstractPosterior):
    """Draws from p(theta, eta | y) by chain."""

    theta: dict[str, np.ndarray]
    """Free population parameters by name, natural scale (chains, draws, ...)."""
    report: dict[str, Float[np.ndarray, "c d"]]
    """The named scalars of tables, fixed ones and correlations included."""
    eta: Float[np.ndarray, "c d N q"]
    z: Float[np.ndarray, "c d N q"]
    """eta whitened by the Omega of the same draw."""
    root: Float[np.ndarray, "q q"]
    """Omega's Cholesky factor at the estimates."""

    def __repr__(self) -> str:
        chains, draws = self.z.shape[:2]
        rows = {name: described(x) for name, x in self.report.items() if np.ptp(x) > 0}
        head = f"{chains} chain(s) of {draws} draws of {len(rows)} parameters, and of eta of {self.z.shape[2]} subjects"
        return head + "\n\n" + pd.DataFrame.from_dict(rows, orient="index").to_string(float_format="{:.4g}".format)

    @cached_property
    def points(self) -> Float[np.ndarray, "K N q"]:
        """eta of all chains, whitened by the Omega of the estimates: `root @ points` has the moments of eta."""
        eta = np.concatenate(list(self.eta))
        return np.linalg.solve(self.root, eta[..., None])[..., 0]

    @property
    def mean(self) -> Float[np.ndarray, "N q"]:
        return self.points.mean(axis=0)

    @property
    def covariance(self) -> Float[np.ndarray, "N q q"]:
        off = self.points - self.mean
        return np.einsum("kni,knj->nij", off, off) / len(off)

    def draws(self, key: Array, count: int) -> Float[np.ndarray, "count N q"]:
        """Whole draws, all subjects' together; each once before any twice."""
        size = len(self.points)
        order = np.asarray(jax.random.permutation(key, size))
        return self.points[order[np.arange(count) % size]]


@final
@dataclass(frozen=True)
class NUTS(AbstractMethod):
    """Full Bayes: `chains` chains of `draws` draws each, after `warmup` iterations that tune step size and metric. Chains that
    have not mixed by then draw on, up to `max_draws` each (None: four times `draws`).

    Priors are those declared in the model (`prior=`), weakly informative ones for the rest. Estimates are the posterior means of
    the unconstrained coordinates (of a positive parameter: the geometric mean), standard errors the draws' standard deviations
    on the natural scale, 95 % intervals their quantiles. The log-likelihood is Laplace's approximation at the estimates.
    `fit.found.posterior` has all draws.

    **Arguments:** `target_accept` the acceptance that step sizes are tuned for (higher: smaller steps, fewer divergences);
    `max_tree_depth` at most 2^depth - 1 steps an iteration; `centred` whether chains move in eta around its mode (better where
    subjects' data are rich) or in z = L^-1 eta, None for what the data at the start values suggest.

    The fit is converged when for every parameter and the log density R-hat is below 1.01 with 100 effective draws per chain
    (Vehtari et al. 2021), and no transition has diverged. Raises MethodError for options out of range, and where a parameter
    starts outside its prior's support; DataError where the likelihood is not a number at the start.
    """

    warmup: int = 500
    draws: int = 500
    max_draws: int | None = None
    chains: int = 4
    target_accept: float = 0.9
    max_tree_depth: int = 10
    centred: bool | None = None

    def __post_init__(self) -> None:
        for option in ("warmup", "draws", "chains", "max_tree_depth"):
            check_whole(option, getattr(self, option), 1)
        if self.max_draws is not None:
            check_whole("max_draws", self.max_draws, self.draws)
        accept = self.target_accept
        if isinstance(accept, bool) or not isinstance(accept, int | float) or not 0 < accept < 1:
            raise MethodError(f"target_accept must be a number between 0 and 1, got {accept!r}.")
        if self.centred is not None and not isinstance(self.centred, bool):
            raise MethodError(f"centred must be True, False or None (as the data suggest), got {self.centred!r}.")

    @property
    def name(self) -> str:
        return "NUTS"

    @property
    def uses_priors(self) -> bool:
        return True

    def find(self, problem: Problem, progress: Reporter, key: Array) -> Found:
        began = time.perf_counter()
        check_support(problem, problem.coordinates.start())
        check_prior(problem.model.parameters())
        first = modes(problem, problem.coordinates.start())
        check_start(problem, ~np.isfinite(first.value))
        coordinates = ChainCoordinates(problem, self.centred, first.z)
        depth = (min(WARMUP_DEPTH, self.max_tree_depth), self.max_tree_depth)
        options = {"target_accept_prob": float(self.target_accept), "max_tree_depth": depth, "step_size": FIRST_STEP}
        chains = Chains(coordinates, self.chains, self.warmup, options, key)
        ready = time.perf_counter()
        most = 4 * self.draws if self.max_draws is None else self.max_draws
        record, stopped = chains.run(self.draws, most, lambda drawn: have_mixed(_judged(coordinates, drawn)), progress)
        sampled = time.perf_counter()
        found = _found(coordinates, record, stopped)
        found.notes = {**found.notes, **self._cut_short(record)}
        found.seconds = {"prepare and compile": ready - began, "fit": sampled - ready}
        return found

    def _cut_short(self, record: Iterations) -> dict[str, str]:
        count = int(np.sum(record.steps >= 2**self.max_tree_depth - 1))
        if not count:
            return {}
        return {"cut short": f"{count} draws took the most steps that max_tree_depth {self.max_tree_depth} allows; raise it"}

    def evaluate(self, problem: Problem, key: Array) -> Found:
        """Laplace's approximation of the likelihood at the start values."""
        return search.evaluate(problem, Laplace(covariance="none"))


def _found(coordinates: ChainCoordinates, record: Iterations, stopped: str) -> Found:
    problem = coordinates.problem
    theta, scalars, eta, z = _by_draw(coordinates, record.position)
    u = _unconstrained(problem, theta)
    center = u.mean(axis=(0, 1))
    final = problem.final(center, np.zeros((problem.size, problem.q)))
    report = {name: scalars[..., k] for k, name in enumerate(final.names)}
    posterior = Draws({name: theta[name] for name in coordinates.parameters}, report, eta, z, final.root)
    chains, draws = record.energy.shape
    form = "centred" if coordinates.centred else "non-centred"
    return Found(
        u=center,
        z=posterior.mean,
        posterior=posterior,
        value=modes(problem, center).value,
        status=judge_chains(_judged(coordinates, record), int(record.diverging.sum()), stopped),
        uncertainty=_uncertainty(np.concatenate(list(scalars)), np.concatenate(list(u))),
        history=_history(record),
        notes={
            **prior_note(problem.model.parameters()),
            "chains": f"{chains} of {draws} draws, {np.mean(record.steps):.0f} steps a draw, {form} random effects",
            "estimates": "posterior means of unconstrained coordinates; se: sd of the draws; log L: Laplace there",
        },
    )


def _by_draw(
    coordinates: ChainCoordinates, positions: Position
) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray, np.ndarray]:
    """theta, the reported scalars (c, d, k), eta and z (c, d, N, q) of every draw, by blocks of one length."""
    count = next(iter(positions.values())).shape[1]
    places = [np.minimum(np.arange(first, first + BLOCK), count - 1) for first in range(0, count, BLOCK)]
    blocks = [coordinates.described(jax.tree.map(lambda x, at=at: x[:, at], positions)) for at in places]
    return jax.tree.map(lambda *x: np.concatenate([np.asarray(v) for v in x], axis=1)[:, :count], *blocks)


def _judged(coordinates: ChainCoordinates, record: Iterations) -> dict[str, Float[np.ndarray, "c d"]]:
    """What must have mixed: the log density and the reported scalars that are free."""
    scalars = _by_draw(coordinates, record.position)[1]
    moving = {name: x for name, x in zip(coordinates.reported, np.moveaxis(scalars, -1, 0), strict=True) if np.ptp(x) > 0}
    return moving | {"log density": record.energy}


def _unconstrained(problem: Problem, theta: dict[str, np.ndarray]) -> Float[np.ndarray, "c d p"]:
    """Draws of theta as those of the problem's free coordinates."""
    lead = next(iter(theta.values())).shape[:2]
    parts = [np.reshape(biject_to(p.support).inv(jnp.asarray(theta[p.name])), (*lead, -1)) for p in problem.coordinates.free]
    return np.concatenate(parts, axis=-1) if parts else np.zeros((*lead, 0))


def _uncertainty(scalars: Float[np.ndarray, "K k"], u: Float[np.ndarray, "K p"]) -> Uncertainty:
    """The draws' covariance, of the named scalars and of the coordinates."""
    if len(u) < 2:
        return Uncertainty("none", np.full((scalars.shape[1],) * 2, np.nan), np.full((u.shape[1],) * 2, np.nan), np.nan, "")
    spread = np.atleast_2d(np.cov(u, rowvar=False)) if u.shape[1] else np.zeros((0, 0))
    scale = np.sqrt(np.diag(spread))
    condition = float(np.linalg.cond(spread / np.outer(scale, scale))) if len(scale) and np.all(scale > 0) else np.nan
    return Uncertainty("posterior", np.atleast_2d(np.cov(scalars, rowvar=False)), spread, condition, "")


def _history(record: Iterations) -> list[dict[str, Any]]:
    """A row per draw."""
    columns = {"energy": record.energy, "steps": record.steps, "acceptance": record.acceptance, "diverging": record.diverging}
    chains, draws = record.energy.shape
    return [
        {"chain": c, "draw": d, **{name: x[c, d].item() for name, x in columns.items()}}
        for c in range(chains)
        for d in range(draws)
    ]
