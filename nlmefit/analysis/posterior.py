"""`nm.posterior`: the random effects of subjects, seen by the fit or new, given their data."""

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import jax
import numpy as np
import pandas as pd
from jaxtyping import Array

from nlmefit.analysis.conditional import Conditional, conditional, of_chains, omega_root
from nlmefit.analysis.fit import Data, bind
from nlmefit.core.errors import MethodError
from nlmefit.core.keys import Key, jax_key
from nlmefit.core.options import check_whole
from nlmefit.core.shown import html
from nlmefit.estimate.mcmc.nuts import Draws
from nlmefit.estimate.modes.subject_modes import modes
from nlmefit.estimate.problem import Problem
from nlmefit.latent.model import AbstractLatentModel
from nlmefit.population.model import Model
from nlmefit.results.fit import Fit
from nlmefit.results.stored import same_data


@dataclass(frozen=True)
class Posterior:
    """p(eta_i | y_i) of every subject. Tables have a row per ID and a column per random effect, NaN where a subject has not got
    it (an occasion that it lacks)."""

    draws: pd.DataFrame
    """By ID and draw (numbered from 0)."""
    mean: pd.DataFrame
    sd: pd.DataFrame
    ess: pd.Series
    """Effective number of draws that mean and sd are taken over."""
    khat: pd.Series
    """Tail index of the importance weights: above 0.7 the subject's numbers are not to be relied on."""
    log_likelihood: pd.Series
    """log p(y_i | theta) at the estimates."""
    mc_se: pd.Series
    """Monte Carlo standard error of `log_likelihood`."""
    warning: str
    """Whose numbers not to rely on, in a sentence; empty where there is nobody."""
    arrays: Conditional = field(repr=False)
    """The same as arrays, with the covariance matrices."""
    problem: Problem = field(repr=False)

    @cached_property
    def mode(self) -> pd.DataFrame:
        """The most probable random effects at the estimates (empirical-Bayes estimates), searched for when first asked for."""
        u = self.problem.coordinates.start()
        found = modes(self.problem, u).z @ omega_root(self.problem, u).T
        return pd.DataFrame(np.where(np.isnan(self.mean), np.nan, found), self.mean.index, self.mean.columns)

    def __str__(self) -> str:
        both = pd.concat({"mean": self.mean, "sd": self.sd}, axis=1).swaplevel(axis=1)[list(self.mean.columns)]
        lines = [f"p(eta | y) of {len(self.mean)} subjects, {len(self.draws) // max(len(self.mean), 1)} draws each", str(both)]
        return "\n".join([*lines, *([self.warning] if self.warning else [])])

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return html(self)


def posterior(
    model: Fit | Model | AbstractLatentModel, data: Data | None = None, draws: int = 1000, *, key: Key = 0
) -> Posterior:
    """The random effects of the subjects of `data` given their records, at the estimates of any fit (or a model's own values):

        p(eta_i | y_i, theta) = p(y_i | theta, eta_i) N(eta_i; 0, Omega) / p(y_i | theta)

    **Arguments:** `data` new subjects in the same columns, None for the fit's own; `draws` how many of each subject; `key`
    decides them. A subject without observations, as a patient before the first sample, gets the prior.

    By importance sampling from a multivariate t around the mode and from the prior (Geweke 1989; Hesterberg 1995), the draws
    resampled with the weights (Rubin 1988). An amortized fit proposes by its encoder instead, without a search: of subjects with
    as many records as earlier ones, which compile nothing, in milliseconds. Subjects unlike those that it was trained on get a
    mode's proposal, and are named in `.warning`. A NUTS fit's own subjects get its own draws of p(eta_i | y), in which theta is
    uncertain too; its `log_likelihood` is that at the estimates.

    Raises MethodError for another number of draws; DataError where a likelihood is not a number; as `nm.fit` does for the data;
    ModelError for a fit that was loaded without its model.
    """
    check_whole("draws", draws, 1)
    problem = Problem(*bind(model, data, design=True))
    if problem.q == 0:
        raise MethodError("the model has no random effects, so that there is no posterior to draw from.")
    found = random_effects(model, problem, draws, jax_key(key))
    ids, names = pd.Index(problem.ids, name="ID"), list(problem.model.eta_names())
    rows = pd.MultiIndex.from_product([ids, range(draws)], names=["ID", "draw"])
    return Posterior(
        draws=pd.DataFrame(np.swapaxes(found.eta, 0, 1).reshape(-1, problem.q), rows, names),
        mean=pd.DataFrame(found.mean, ids, names),
        sd=pd.DataFrame(np.sqrt(np.diagonal(found.covariance, axis1=1, axis2=2)), ids, names),
        **{name: pd.Series(getattr(found, name), ids, name=name) for name in ("ess", "khat", "log_likelihood", "mc_se")},
        warning=found.warning,
        arrays=found,
        problem=problem,
    )


def random_effects(fit: Any, problem: Problem, draws: int, key: Array) -> Conditional:
    """`posterior` as arrays, for the subjects of a problem that starts at the estimates (`Problem(*bind(fit, data))`)."""
    known = fit.found.posterior if isinstance(fit, Fit) and fit.found is not None else None
    sampling, choosing = jax.random.split(key)
    found = conditional(problem, problem.coordinates.start(), known, draws, sampling)
    if isinstance(known, Draws) and same_data(fit, problem.data):
        return of_chains(problem, found, known, draws, choosing)
    return found
