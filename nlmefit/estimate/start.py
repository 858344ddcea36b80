"""Whether a search can begin: the likelihood at the start, and the reasons where there is none."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
from jaxtyping import Bool

from nlmefit.core.errors import DataError
from nlmefit.estimate.density import is_gaussian
from nlmefit.estimate.problem import Problem


def check_support(problem: Problem, u: np.ndarray) -> None:
    """DataError where a DV cannot come from the distribution that `observe` gives it (a negative or broken count)."""
    for name, (kind, outside) in problem.outside_support(u).items():
        if not outside.any():
            continue
        i, j = np.argwhere(outside)[0]
        value, others = problem.subjects.observed[name][i, j], int(outside.sum()) - 1
        raise DataError(
            f"`{name}` of subject {problem.ids[i]} has DV {value:g}, which {kind} cannot give"
            f"{f' (and {others} more such records)' if others else ''}. Recode DV (categories count from 0), or choose "
            "another distribution in `observe`."
        )


def check_start(problem: Problem, bad: Bool[np.ndarray, "N"]) -> None:
    """DataError that names the subjects, and the rows of the first, whose objective is not a number at the start."""
    if not bad.any():
        return
    who = problem.labels(bad)
    raise DataError(
        f"the objective is not a number at the start for {len(who)} subject(s): {', '.join(map(str, who[:8]))}."
        + _why(problem, int(np.flatnonzero(bad)[0]))
    )


def _why(problem: Problem, position: int) -> str:
    """The rows of one subject whose prediction or variance spoils the likelihood at eta = 0, in words."""
    subject = jax.tree.map(lambda x: x[position], problem.subjects)
    theta = problem.coordinates.theta(jnp.asarray(problem.coordinates.start()), problem.fixed)
    why = problem.model.reasons(theta, jnp.zeros(problem.q), subject)
    remedy = f"Check the start values and the covariates{why}."
    with numpyro.validation_enabled(False):  # a distribution with invalid parameters is what is looked for here
        sites = problem.model.observe(theta, jnp.zeros(problem.q), subject)
    for name, distribution in sites.items():
        if not is_gaussian(distribution):
            continue
        mean, variance = (np.broadcast_to(x, subject.mask[name].shape) for x in (distribution.mean, distribution.variance))
        for rows, what, fix in (
            (
                subject.mask[name] & ~np.isfinite(mean),
                "has no finite prediction",
                remedy,
            ),
            (
                subject.mask[name] & (variance <= 0),
                "is predicted as 0 and has residual variance 0",
                "Add an additive part to the residual model, or leave those records out (MDV 1).",
            ),
        ):
            if np.any(rows):
                times = ", ".join(f"{t:g}" for t in np.asarray(getattr(subject, "time", np.arange(len(rows))))[rows][:5])
                return f" `{name}` of subject {problem.ids[position]} at TIME {times} {what}. {fix}"
    return " Try other start values."
