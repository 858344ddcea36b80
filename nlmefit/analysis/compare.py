"""`nm.log_marginal` and `nm.compare`: every fit, whatever its method, judged by the same marginal likelihood."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from nlmefit.analysis.fit import Data, bind
from nlmefit.core.errors import NlmefitError
from nlmefit.core.keys import Key, jax_key
from nlmefit.core.options import check_truth
from nlmefit.core.progress import Progress
from nlmefit.core.shown import whole
from nlmefit.estimate.problem import Problem
from nlmefit.estimate.referee.marginal import DEFAULT, Marginal, Referee, marginal
from nlmefit.latent.model import AbstractLatentModel
from nlmefit.population.model import Model
from nlmefit.results.fit import Fit
from nlmefit.results.saved import SavedModel
from nlmefit.results.stored import same_data


def log_marginal(
    model: Model | AbstractLatentModel | Fit,
    data: Data | None = None,
    method: Referee = DEFAULT,
    *,
    key: Key = 0,
    progress: bool = True,
) -> Marginal:
    """log p(y | theta) of `data` at a fit's estimates, or at a model's own values.

    **Arguments:** `data` None for the fit's own; `method` `nm.ImportanceSampling(draws=1000, error=None)` or
    `nm.Quadrature(nodes=7)`; `key` decides the draws.

    The result has `.value`, `.mc_se`, `.kind` ("estimate": the log of an unbiased estimate, with that Monte Carlo error; or
    "approximation") and `.per_subject` (log_likelihood, mc_se, ess, khat). A k-hat above 0.7 says not to believe that subject's
    standard error. Log p(y) includes n log(2 pi): -2 log p(y) minus n log(2 pi) is comparable with an OFV.

    Raises MethodError for anything else as `method`, and as `nm.fit` does for data and model.
    """
    latent, dataset = bind(model, data)
    problem = Problem(latent, dataset)
    with Progress(progress, "log p(y)") as line:
        return marginal(problem, problem.coordinates.start(), method, jax_key(key), line)


def compare(
    fits: Mapping[str, Fit] | Sequence[Fit],
    marginal: Referee = DEFAULT,
    *,
    data: Data | None = None,
    key: Key = 0,
    progress: bool = True,
) -> pd.DataFrame:
    """One row per fit: what its method claims, and what the referee finds.

    | column | what |
    |---|---|
    | log_marginal, mc_se | log p(y at the estimates) by `marginal`, and its Monte Carlo error |
    | kind | what that number is: "estimate" or "approximation" |
    | objective | log p(y) as the method itself has it, and `objective_kind` what that is |
    | bound_gap | log_marginal - objective, where the method's objective is a bound |
    | AIC, BIC | from log_marginal; none of NUTS, which has no maximum |
    | seconds, status | of the fit |

    **Arguments:** `fits` a list, or several by name; `data` the data that they are of: needed for fits that were loaded from a
    file, which holds none (and which need their model: `nm.load(path, model=...)`).

    Sorted by log_marginal, best first. All fits are judged with the same random numbers, so that differences are known better
    than their errors say. Raises NlmefitError unless the fits are of the same data, of `data` where that is given, and for
    loaded ones without data or model.
    """
    check_truth("progress", progress)
    named = _named(fits)
    sets = {name: _data_of(name, fit, data) for name, fit in named.items()}
    _check_same_data(sets)
    rows = {name: _row(fit, log_marginal(fit, sets[name], marginal, key=key, progress=progress)) for name, fit in named.items()}
    return whole(pd.DataFrame.from_dict(rows, orient="index").sort_values("log_marginal", ascending=False))


def _data_of(name: str, fit: Fit, data: Any) -> Any:
    """The fit's own data set, or the given one read by its rules. NlmefitError where there is none, and where that is another:
    the objective, AIC and BIC of its row are of the data that it was fitted to."""
    if isinstance(fit.model, SavedModel):
        raise NlmefitError(f"`{name}` was loaded without its model: nm.load(path, model={fit.model.name}(...)).")
    if data is None:
        if fit.data is not None:
            return fit.data
        raise NlmefitError(f"`{name}` was loaded from a file, which holds no data: nm.compare(fits, data=...).")
    found = bind(fit, data)[1]
    if not same_data(fit, found):
        raise NlmefitError(
            f"`{name}` was fitted to other data than data=, or to these read by other rules (covariates, BLQ); compare judges "
            "fits on the data that they are of. The log p(y) of other data is nm.log_marginal(fit, data)."
        )
    return found


def _row(fit: Fit, found: Marginal) -> dict[str, Any]:
    free = np.nan if fit.by_draws else len(fit.estimates) - len(fit.fixed)
    return {
        "log_marginal": found.value,
        "mc_se": found.mc_se,
        "kind": found.kind,
        "objective": fit.log_likelihood,
        "objective_kind": fit.kind,
        "bound_gap": found.value - fit.log_likelihood if fit.kind == "bound" else np.nan,
        "AIC": -2 * found.value + 2 * free,
        "BIC": -2 * found.value + np.log(fit.observations) * free,
        "seconds": fit.seconds.get("total", np.nan),
        "status": fit.status.state,
    }


def _named(fits: Any) -> dict[str, Fit]:
    if isinstance(fits, Fit) or not isinstance(fits, Mapping | Sequence) or isinstance(fits, str):
        raise NlmefitError(f"compare takes several fits, as a list or by name, got {type(fits).__name__}.")
    if isinstance(fits, Mapping):
        named = {str(name): fit for name, fit in fits.items()}
    else:
        named = {}
        for fit in fits:
            name = fit.method.name if isinstance(fit, Fit) else repr(fit)
            twin = sum(other.split(" (")[0] == name for other in named)
            named[name if not twin else f"{name} ({twin + 1})"] = fit
    wrong = [name for name, fit in named.items() if not isinstance(fit, Fit)]
    if wrong or not named:
        raise NlmefitError(f"compare takes fits, as a list or by name; {', '.join(wrong) or 'none was given'} is none.")
    return named


def _check_same_data(sets: Mapping[str, Any]) -> None:
    (first, reference), *others = sets.items()
    for name, data in others:
        if not _same_observations(reference, data):
            raise NlmefitError(
                f"`{name}` and `{first}` are fits of different data; likelihoods compare on the same observations only, and "
                "those below a limit by the same rule."
            )


def _same_observations(a: Any, b: Any) -> bool:
    """Whether they have the same observations of the same subjects, those known by a limit by the same rule (BLQ)."""
    if list(a.ids) != list(b.ids) or {*a.subjects.observed} != {*b.subjects.observed}:
        return False
    if any(getattr(x.subjects, "censoring", None) for x in (a, b)) and getattr(a, "blq", None) != getattr(b, "blq", None):
        return False
    masks = ((a.subjects.mask[site], b.subjects.mask[site]) for site in a.subjects.mask)
    values = ((value, b.subjects.observed[site]) for site, value in a.subjects.observed.items())
    return all(np.array_equal(x, y) for x, y in (*masks, *values))
