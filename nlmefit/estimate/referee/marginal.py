"""The referee: log p(y | theta) by one standard for every fit, with its Monte Carlo error."""

from dataclasses import dataclass
from typing import final

import numpy as np
import pandas as pd
from jaxtyping import Array, Float
from scipy.special import logsumexp

from nlmefit.core.errors import MethodError
from nlmefit.core.options import brief, check_whole, is_number
from nlmefit.estimate import random_numbers
from nlmefit.estimate.method import Kind, Reporter
from nlmefit.estimate.modes.quadrature import Quadrature, grid
from nlmefit.estimate.modes.subject_modes import modes
from nlmefit.estimate.problem import Problem
from nlmefit.estimate.referee.importance import DEGREES, Proposal, Weights, check_degrees, joint_in_blocks, sample_around
from nlmefit.estimate.referee.psis import BELIEVABLE

MOST_DRAWS = 64_000


@final
@dataclass(frozen=True)
class ImportanceSampling:
    """log p(y_i | theta) by importance sampling from a multivariate t around each subject's mode and, for a tenth of the draws,
    from the prior. Where k-hat says that the weights are not to be believed, all are drawn anew, up to four times, from a mixture
    that has a t with the mean and covariance of the weighted draws in it too.

    `draws` of each subject; with `error`, four times as many for as long as the Monte Carlo error of the total is larger than
    that (to 64000 at most). `df` degrees of freedom (numpy.inf: normal). Raises MethodError for other values.
    """

    draws: int = 1000
    error: float | None = None
    df: float = DEGREES

    def __post_init__(self) -> None:
        check_whole("draws", self.draws, 10)
        if self.error is not None and not (is_number(self.error) and self.error > 0):
            raise MethodError(f"error must be a number above 0, or None for no limit, got {brief(self.error)}.")
        check_degrees(self.df)

    @property
    def name(self) -> str:
        return f"importance sampling, {self.draws} draws"


Referee = ImportanceSampling | Quadrature
DEFAULT = ImportanceSampling()


@dataclass(frozen=True)
class Marginal:
    """log p(y | theta), and how well it is known."""

    value: float
    mc_se: float
    """Monte Carlo standard error; 0 for a deterministic method."""
    kind: Kind
    per_subject: pd.DataFrame
    """By subject: log_likelihood, mc_se, ess, khat."""
    referee: str
    note: str
    """Subjects for whom the value is in doubt; empty if none."""

    def __str__(self) -> str:
        error = f" +- {self.mc_se:.2g}" if self.kind == "estimate" else ""
        line = f"log p(y) = {self.value:.4f}{error}   ({self.kind}, by {self.referee}; -2 log L {-2 * self.value:.4f})"
        return line + (f"\n  {self.note}" if self.note else "")

    __repr__ = __str__


def marginal(problem: Problem, u: np.ndarray, referee: Referee, key: Array, progress: Reporter) -> Marginal:
    """log p(y | theta(u)) by the referee."""
    if isinstance(referee, Quadrature):
        return _by_quadrature(problem, u, referee)
    if not isinstance(referee, ImportanceSampling):
        raise MethodError(f"the method of log p(y) must be nm.ImportanceSampling(...) or nm.Quadrature(...), got {referee!r}.")
    progress.stage("finding modes")
    found = modes(problem, u)
    proposal = Proposal.at_modes(found.z, found.hessian, referee.df)
    rng, count = random_numbers.generator(key), referee.draws
    while True:
        progress.stage(f"{count} draws")
        weights = sample_around(problem, u, proposal, rng, count)
        enough = referee.error is None or _total(weights.mc_se) <= referee.error
        if enough or count >= MOST_DRAWS:
            return _sampled(problem, weights, referee, bool(enough))
        count = min(4 * count, MOST_DRAWS)


def _total(errors: Float[np.ndarray, "N"]) -> float:
    return float(np.sqrt(np.sum(errors**2)))


def _sampled(problem: Problem, weights: Weights, referee: ImportanceSampling, enough: bool) -> Marginal:
    table = pd.DataFrame(
        {"log_likelihood": weights.log_likelihood, "mc_se": weights.mc_se, "ess": weights.ess, "khat": weights.khat},
        pd.Index(problem.ids, name="ID"),
    )
    doubtful = [str(who) for who in table.index[table["khat"] > BELIEVABLE]]
    notes = []
    if doubtful:
        shown = ", ".join(doubtful[:8]) + (", ..." if len(doubtful) > 8 else "")
        notes.append(f"k-hat above {BELIEVABLE} for {len(doubtful)} subject(s), whose errors are larger than they look: {shown}.")
    if not enough:
        notes.append(f"the wanted error of {referee.error:g} was not reached with {len(weights.log)} draws.")
    return Marginal(
        float(table["log_likelihood"].sum()),
        _total(weights.mc_se),
        "estimate",
        table,
        f"importance sampling, {len(weights.log)} draws",
        " ".join(notes),
    )


def _by_quadrature(problem: Problem, u: np.ndarray, referee: Quadrature) -> Marginal:
    found = modes(problem, u)
    proposal = Proposal.at_modes(found.z, found.hessian, np.inf)
    x, log_weights = (np.asarray(part) for part in grid(referee.nodes, problem.q))
    points = proposal.center + np.einsum("nij,kj->kni", proposal.scale, x)
    run = logsumexp(joint_in_blocks(problem, u, points) + log_weights[:, None], axis=0) + np.linalg.slogdet(proposal.scale)[1]
    nothing = np.full(problem.size, np.nan)
    table = pd.DataFrame({"log_likelihood": run, "mc_se": 0.0, "ess": nothing, "khat": nothing}, pd.Index(problem.ids, name="ID"))
    bad = [str(who) for who in table.index[~np.isfinite(run)]]
    note = f"no value for {len(bad)} subject(s): {', '.join(bad[:8])}." if bad else ""
    return Marginal(float(run.sum()), 0.0, "approximation", table, referee.name, note)
