"""Whether to trust a fit: converged, uncertain or failed, and why."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, final

import numpy as np
from jaxtyping import Bool

from nlmefit.estimate.coordinates import Coordinates
from nlmefit.estimate.optimize import Search
from nlmefit.estimate.spectrum import smallest
from nlmefit.estimate.standard_errors import culprits, different, without_effect
from nlmefit.latent.model import Parameter

State = Literal["converged", "uncertain", "failed", "evaluated"]

WORTHWHILE = 1e-3
"""A predicted further fall of the objective that would still matter."""
COLLAPSED = 1e-3
"""An omega or residual sd below this is at its bound for all purposes."""


@final
@dataclass(frozen=True)
class Status:
    """True only when converged. `reasons` are sentences, most important first."""

    state: State
    reasons: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return self.state == "converged"

    def __str__(self) -> str:
        return self.state + (": " + " ".join(self.reasons) if self.reasons else "")


def judge(
    search: Search,
    coordinates: Coordinates,
    theta: dict[str, np.ndarray],
    failing: tuple[object, ...],
    elsewhere: Mapping[object, float],
    prior: bool = False,
) -> Status:
    """The status of a search, from evidence only: predicted gain, curvature, bounds, failing subjects. With a `prior` in the
    objective, parameters that it alone determines are determined too; they are named. `elsewhere`: by subject with a better
    mode than the one found from eta = 0, what the objective would change by there."""
    serious, doubts, remarks = [], [], []
    if search.stopped:
        serious.append(f"{search.stopped[0].upper()}{search.stopped[1:]}; these are the best values so far.")
    if failing:
        doubts.append(lost(failing))
    if elsewhere:
        doubts.append(_better_modes(elsewhere))
    names = coordinates.names
    idle = without_effect(search.hessian, search.point.by_subject)
    doubts += unused(coordinates, theta, idle)
    if np.any(idle):
        search, names = search.among(~idle), tuple(names[k] for k in np.flatnonzero(~idle))
    if not search.stopped:
        silent = _silent_data(search, names)
        if silent and prior:
            remarks.append(f"The data say nothing {silent}, only the prior does.")
        if np.isnan(search.decrement) or not _curved(search) or (silent and not prior):
            doubts.append("The Hessian is not positive definite: a saddle, or parameters that the data do not determine.")
        elif search.decrement > WORTHWHILE:
            doubts.append(f"One more Newton step promises to lower the objective by {search.decrement:.2g}.")
    doubts += at_bounds(coordinates, theta)
    if serious:
        return Status("failed", tuple(serious + doubts))
    if doubts:
        return Status("uncertain", tuple(doubts))
    norm = float(np.linalg.norm(search.point.gradient))
    return Status("converged", (f"gradient norm {norm:.1e}, one more Newton step would gain {search.decrement:.1e}.", *remarks))


def unused(coordinates: Coordinates, theta: dict[str, np.ndarray], idle: Bool[np.ndarray, "p"]) -> list[str]:
    """Which coordinates have no effect. Not among them an omega that has gone to 0, which is told as such, nor the correlations
    of its eta, which follow from that."""
    gone = [p.name for p in coordinates.free if _has_collapsed(p, theta)]
    etas = [name.removeprefix("omega_") for name in gone]
    names = [
        name
        for name, correlation, without in zip(coordinates.names, coordinates.of_kind("correlation"), idle, strict=True)
        if without and name not in gone and not (correlation and any(f"_{eta}_" in f"{name.split('[')[0]}_" for eta in etas))
    ]
    if not names:
        return []
    return [
        f"The objective does not depend on {', '.join(names)}: the model makes no use of it, or the data do not show it. It "
        "keeps its start and has no standard error; leave it out, or fix it."
    ]


def _has_collapsed(parameter: Parameter, theta: dict[str, np.ndarray]) -> bool:
    """Whether it is an omega that has gone to 0."""
    return parameter.kind == "omega" and bool(np.all(theta[parameter.name] < COLLAPSED * float(parameter.start)))


def _better_modes(elsewhere: Mapping[object, float]) -> str:
    """Who has a better mode than the one found from eta = 0, and what the objective would change by with it."""
    shown = [f"{who} ({change:+.2g})" for who, change in elsewhere.items()]
    return (
        f"{len(elsewhere)} subject(s) have a better mode than the one found from eta = 0; with it the objective would change by: "
        f"{_names(tuple(shown))}. The method's option all_modes=True takes the best of all."
    )


def _curved(search: Search) -> bool:
    """Whether R is positive definite beyond rounding."""
    return search.hessian is None or len(search.hessian) == 0 or smallest(search.hessian) > 1e-8


def _silent_data(search: Search, names: tuple[str, ...]) -> str:
    """Along which coordinates no subject's likelihood changes: S singular though there are more different subjects than
    parameters. Empty for none."""
    gradients = search.point.by_subject
    S = gradients.T @ gradients
    unknown = 0 < len(S) < different(gradients) and search.hessian is not None and smallest(S) <= 1e-10
    return culprits(S, names) if unknown else ""


def collapsed(coordinates: Coordinates, u: np.ndarray) -> np.ndarray:
    """Which coordinates (p,) are omegas that have gone to 0."""
    return coordinates.of_kind("omega") & coordinates.positive & (u < np.log(COLLAPSED) + coordinates.start())


def lost(subjects: tuple[object, ...]) -> str:
    """Which subjects' modes were not found."""
    return f"The random effects of {len(subjects)} subject(s) were not found: {_names(subjects)}."


def at_bounds(coordinates: Coordinates, theta: dict[str, np.ndarray]) -> list[str]:
    result = []
    for parameter in coordinates.free:
        value = np.asarray(theta[parameter.name])
        if value.ndim:
            diagonal = np.diagonal(value) if value.ndim == 2 and parameter.kind == "correlation" else np.ones(1)
            if np.any(diagonal < 0.02):
                result.append(f"The correlations {parameter.name} have reached +-1.")
            continue
        lower, upper = getattr(parameter.support, "lower_bound", None), getattr(parameter.support, "upper_bound", None)
        if _has_collapsed(parameter, theta):
            result.append(f"{parameter.name} has collapsed to 0 ({value:.1e}): leave that random effect out.")
        elif lower is not None and upper is not None and min(value - lower, upper - value) < 1e-4 * (upper - lower):
            result.append(f"{parameter.name} is at a bound ({value:.6g}).")
        elif lower is not None and upper is None and value - lower < 1e-6 * (float(parameter.start) - lower):
            result.append(f"{parameter.name} is at its lower bound ({value:.6g}).")
        elif upper is not None and lower is None and upper - value < 1e-6 * (upper - float(parameter.start)):
            result.append(f"{parameter.name} is at its upper bound ({value:.6g}).")
    return result


def _names(subjects: tuple[object, ...]) -> str:
    shown = ", ".join(map(str, subjects[:8]))
    return shown + (", ..." if len(subjects) > 8 else "")
