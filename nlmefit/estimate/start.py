"""Whether a search can begin: the likelihood at the start, and the reasons where there is none."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
from jaxtyping import Bool

from nlmefit.core.errors import DataError
from nlmefit.core.typing import Theta
from nlmefit.estimate.density import is_gaussian
from nlmefit.estimate.problem import Problem

SMALLEST = np.finfo(float).tiny
"""A variance below this is 0 for all purposes."""
NO_DOSE = "W207"
"""The finding that explains why everything is predicted as 0."""


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
        + _no_dose(problem)
    )


def _why(problem: Problem, position: int) -> str:
    """The rows of one subject whose prediction or variance spoils the likelihood at eta = 0, in words."""
    subject = jax.tree.map(lambda x: x[position], problem.subjects)
    theta = problem.coordinates.theta(jnp.asarray(problem.coordinates.start()), problem.fixed)
    why = problem.model.reasons(theta, jnp.zeros(problem.q), subject)
    with numpyro.validation_enabled(False):  # a distribution with invalid parameters is what is looked for here
        sites = problem.model.observe(theta, jnp.zeros(problem.q), subject)
    for name, distribution in sites.items():
        if not is_gaussian(distribution):
            continue
        mean, variance = (np.broadcast_to(x, subject.mask[name].shape) for x in (distribution.mean, distribution.variance))
        lost, vanishing = subject.mask[name] & ~np.isfinite(mean), subject.mask[name] & (variance < SMALLEST)
        rows = lost if lost.any() else vanishing
        if not rows.any():
            continue
        if lost.any():
            what = f"has no finite prediction. Check the start values and the covariates{why}."
        else:
            what = _vanishing(problem, name, float(mean[vanishing][0]), theta, why)
        times = ", ".join(f"{t:g}" for t in np.asarray(getattr(subject, "time", np.arange(len(rows))))[rows][:5])
        return f" `{name}` of subject {problem.ids[position]} at TIME {times} {what}"
    return " Try other start values."


def _vanishing(problem: Problem, name: str, mean: float, theta: Theta, why: str) -> str:
    """What makes a residual variance 0 at the prediction `mean`, and what to do about it."""
    residual = {n: float(v) for n, v in theta.items() if n.startswith(f"{name}_") and np.ndim(v) == 0}
    tiny = [n for n, v in residual.items() if 0 < v < np.sqrt(SMALLEST)]
    if mean == 0 and not tiny:
        remedy = (
            " Add an additive part to the residual model, or leave those records out (MDV 1). If it should not be 0 there, check "
            "the start values."
        )
        return "is predicted as 0 and has residual variance 0." + ("" if _no_dose(problem) else remedy)
    if abs(mean) < np.sqrt(SMALLEST) and not tiny:
        return f"is predicted as {mean:.3g}, too little for a residual variance. Check the start values and the covariates{why}."
    named = ", ".join(f"{n} is {residual[n]:g}" for n in tiny or residual)
    return f"has residual variance 0, for the residual sd is too small{f' ({named})' if named else ''}. Start with a larger one."


def _no_dose(problem: Problem) -> str:
    """What was found about a model of doses whose data have none."""
    return "".join(f" {finding}" for finding in getattr(problem.data, "findings", ()) if finding.code == NO_DOSE)
