"""`nm.fit_quality`: how well individuals are fitted, and what their random effects cost and tell."""

from nlmefit.analysis.fit import Data, bind
from nlmefit.core.keys import Key, jax_key
from nlmefit.core.options import check_whole
from nlmefit.core.progress import Progress
from nlmefit.estimate.problem import Problem
from nlmefit.estimate.referee.quality import Quality, quality
from nlmefit.latent.model import AbstractLatentModel
from nlmefit.population.model import Model
from nlmefit.results.fit import Fit


def fit_quality(
    model: Model | AbstractLatentModel | Fit, data: Data | None = None, *, draws: int = 2000, key: Key = 0, progress: bool = True
) -> Quality:
    """log p(y | theta) = sum_i Q_i - sum_i KL_i, with Q_i = E[log p(y_i | eta_i)] and KL_i = KL(p(eta_i | y_i) || N(0, Omega)),
    by importance sampling with `draws` of every subject; `data` None for the fit's own.

    `.per_subject` has log_likelihood, quality (Q_i), kl (KL_i) and kl_to_mixture; `.mutual_information` is the mean of the last,
    a measure of how well the data identify individual etas (0: not at all; at most log N), in nats; `.mixture_kl` is the rest of
    the mean KL, near 0 where the posteriors of all subjects together look like the prior.

    Raises MethodError unless draws is a whole number from 100 up, and as `nm.fit` does for data and model.
    """
    check_whole("draws", draws, 100)
    latent, dataset = bind(model, data)
    problem = Problem(latent, dataset)
    with Progress(progress, "fit quality") as line:
        return quality(problem, problem.coordinates.start(), draws, jax_key(key), line)
