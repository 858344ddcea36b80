"""What diagnostics look at: a fit's model at its estimates, bound to data."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from nlmefit.analysis.fit import bind
from nlmefit.core.errors import ModelError, NlmefitError
from nlmefit.data.subjects import Subjects
from nlmefit.estimate.problem import Problem
from nlmefit.population.model import Model
from nlmefit.results.fit import Fit
from nlmefit.results.saved import SavedModel


def own_or_given(fit: Any, data: Any, call: str, what: str) -> Any:
    """The data to look at: those given, or the fit's own. `call` is what the user called, `what` it is, for messages.

    Raises NlmefitError for anything but a fit, and where it has no data; ModelError where it has no model to compute with.
    """
    if not isinstance(fit, Fit):
        raise NlmefitError(f"{what} is of a fit, what nm.fit or nm.evaluate returned; got {type(fit).__name__}.")
    if isinstance(fit.model, SavedModel):
        name = fit.model.name
        raise ModelError(f"this fit was loaded without its model; load it by nm.load(path, model={name}(...)).")
    if not isinstance(fit.model, Model):
        raise ModelError(f"{what} is of fits of an nm.Model; this is one of {type(fit.model).__name__}.")
    given = fit.data if data is None else data
    if given is None:
        raise NlmefitError(f"this fit was loaded from a file, which holds no data; give the data: {call}(fit, data).")
    return given


def bound(fit: Fit, data: Any) -> tuple[Problem, Subjects]:
    """The fit's model at its estimates, bound to the data."""
    latent, dataset = bind(fit, data)
    return Problem(latent, dataset), dataset


def discrete(problem: Problem, u: Float[np.ndarray, " p"]) -> Bool[np.ndarray, " S"]:
    """Which sites are counts or categories."""
    found: list[bool] = []

    def look(u: Array, subject: Any) -> None:
        sites = problem.model.observe(problem.coordinates.theta(u, problem.fixed), jnp.zeros(problem.q), subject)
        found.extend(bool(sites[name].is_discrete) for name in problem.families)

    jax.eval_shape(look, np.asarray(u), jax.tree.map(lambda x: x[0], problem.subjects))
    return np.array(found)
