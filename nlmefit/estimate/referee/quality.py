"""What a marginal likelihood is made of: how well individuals are fitted, and what their random effects cost.

    log p(y | theta) = sum_i Q_i - sum_i KL_i
    Q_i = E[log p(y_i | eta_i)],   KL_i = KL( p(eta_i | y_i) || N(0, Omega) ),   expectations over p(eta_i | y_i)

The mean KL splits again, with the mixture m of the individual posteriors,

    mean_i KL_i = I + KL(m || N(0, Omega)),    I = mean_i KL( p(eta_i | y_i) || m ) >= 0

I is the mutual information of subject and eta, between 0 (the data do not tell one subject's eta from another's) and log N;
KL(m || N(0, Omega)) is near 0 for a model whose simulations are like its data.
"""

from dataclasses import dataclass

import jax
import numpy as np
import pandas as pd
from jaxtyping import Array, Float
from scipy.special import logsumexp

from nlmefit.estimate.method import Reporter
from nlmefit.estimate.modes.subject_modes import modes
from nlmefit.estimate.problem import Problem
from nlmefit.estimate.random_numbers import generator
from nlmefit.estimate.referee.importance import DEGREES, Proposal, Weights, joint_in_blocks, sample

MOST_POINTS = 4000
"""Points at which every subject's posterior is evaluated for the mixture."""


@dataclass(frozen=True)
class Quality:
    """The parts of log p(y | theta), with their Monte Carlo errors."""

    per_subject: pd.DataFrame
    """log_likelihood, quality (Q_i), kl (KL_i), kl_to_mixture, and mc_se of quality (that of kl is about the same)."""
    log_marginal: float
    quality: float
    """sum Q_i."""
    kl: float
    """sum KL_i."""
    mutual_information: float
    """I, in nats by subject."""
    mixture_kl: float
    """KL(m || N(0, Omega)), in nats."""
    mc_se: float
    """Monte Carlo standard error of `quality` and, as `log_marginal` is known better, of `kl`."""
    mutual_information_se: float

    def __str__(self) -> str:
        most = np.log(len(self.per_subject))
        return "\n".join(
            [
                f"log p(y) = sum Q - sum KL = {self.quality:.3f} - {self.kl:.3f} = {self.log_marginal:.3f}"
                f"   (the parts +- {self.mc_se:.2g})",
                f"mutual information of subject and eta {self.mutual_information:.3f} +- {self.mutual_information_se:.2g} "
                f"(at most log N = {most:.3f})",
                f"KL(mixture of posteriors || prior) {self.mixture_kl:.3f}",
            ]
        )

    __repr__ = __str__


def quality(problem: Problem, u: np.ndarray, draws: int, key: Array, progress: Reporter) -> Quality:
    """The parts at u, by importance sampling with `draws` of every subject."""
    sampling, resampling = jax.random.split(key)
    progress.stage("finding modes")
    found = modes(problem, u)
    progress.stage(f"{draws} draws")
    weights = sample(problem, u, Proposal.at_modes(found.z, found.hessian, DEGREES), generator(sampling), draws)
    prior = -0.5 * np.sum(weights.points**2, axis=2) - 0.5 * problem.q * np.log(2 * np.pi)
    likelihood = joint_in_blocks(problem, u, weights.points) - prior
    share = weights.posterior.weights
    fitted = np.where(share > 0, likelihood, 0.0)
    Q = np.sum(share * fitted, axis=0)
    error = np.sqrt(np.sum((share * (fitted - Q)) ** 2, axis=0))
    progress.stage("mixture of the posteriors")
    excess, excess_error = _to_mixture(problem, u, weights, resampling)
    own = weights.log_likelihood
    table = pd.DataFrame(
        {"log_likelihood": own, "quality": Q, "kl": Q - own, "kl_to_mixture": excess, "mc_se": error},
        pd.Index(problem.ids, name="ID"),
    )
    information = float(excess.mean())
    return Quality(
        table,
        float(own.sum()),
        float(Q.sum()),
        float((Q - own).sum()),
        information,
        float((Q - own).mean()) - information,
        float(np.sqrt(np.sum(error**2))),
        float(np.sqrt(np.mean(excess_error**2) / problem.size)),
    )


def _to_mixture(
    problem: Problem, u: np.ndarray, weights: Weights, key: Array
) -> tuple[Float[np.ndarray, "N"], Float[np.ndarray, "N"]]:
    """KL(p(z | y_i) || mixture) by subject and its error, over draws from each posterior."""
    size = problem.size
    each = max(8, min(200, MOST_POINTS // size))
    points = weights.posterior.draws(key, each)
    everywhere = np.broadcast_to(points.reshape(-1, 1, problem.q), (each * size, size, problem.q))
    log_posterior = joint_in_blocks(problem, u, everywhere) - weights.log_likelihood
    mixture = (logsumexp(log_posterior, axis=1) - np.log(size)).reshape(each, size)
    own = log_posterior.reshape(each, size, size)[:, np.arange(size), np.arange(size)]
    return np.mean(own - mixture, axis=0), np.std(own - mixture, axis=0, ddof=1) / np.sqrt(each)
