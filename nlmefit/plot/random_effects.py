"""`nm.plot.random_effects`: distributions of random effects that a flow makes of normal ones."""

from itertools import combinations
from typing import Any

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from nlmefit.core.errors import NlmefitError
from nlmefit.plot import style
from nlmefit.plot.subject import title_of
from nlmefit.population.random_effects import flowed
from nlmefit.results.fit import Fit

DRAWS = 200_000
"""Normal scores that a distribution is drawn from."""


def random_effects(fit: Fit) -> Figure:
    """Of each parameter with a flow: the distribution of its random effect omega T(eta) (line), that of the subjects' modes
    (bars), and the normal one with the same omega (dashed). Of two with a joint flow: where the population is (shaded), and the
    modes.

    Raises NlmefitError for what is no fit, and for a model without `flow = nm.Flow(...)`.
    """
    if not isinstance(fit, Fit):
        raise NlmefitError(f"the figure is of a fit, got {type(fit).__name__}.")
    flow = getattr(getattr(fit.model, "specification", None), "flow", None)
    if flow is None:
        raise NlmefitError("the model's random effects are normal; nm.plot.etas shows those. This figure is of nm.Flow(...).")
    scores = np.random.default_rng(0).normal(size=(DRAWS, len(flow.names)))
    population = _effects(fit, flow, dict(zip(flow.names, scores.T, strict=True)))
    modes = _effects(fit, flow, {name: fit.eta[name].to_numpy(float) for name in flow.names})
    pairs = [pair for group in flow.groups for pair in combinations(group, 2)]
    made = style.figure(max(3.2 * (len(flow.names) + len(pairs)), 5.6) + 0.4, 3.2, title_of("Random effects", fit))
    axes = made.subplots(1, len(flow.names) + len(pairs), squeeze=False)[0]
    for ax, name in zip(axes, flow.names, strict=False):
        _distribution(ax, name, population[name], modes[name], float(fit.estimates[f"omega_{name}"]))
    for ax, (x, y) in zip(axes[len(flow.names) :], pairs, strict=True):
        _pair(ax, (x, y), population, modes)
    handles, labels = axes[0].get_legend_handles_labels()
    made.legend(handles, labels, loc="outside lower left", ncols=3, fontsize=style.SMALL, frameon=False)
    return made


def _effects(fit: Fit, flow: Any, eta: dict[str, Any]) -> dict[str, Float[np.ndarray, " n"]]:
    return {name: np.asarray(effect) for name, effect in flowed(flow, dict(fit.estimates), eta).items()}


def _distribution(ax: Axes, name: str, population: np.ndarray, modes: np.ndarray, omega: float) -> None:
    low, high = np.quantile(population, (0.001, 0.999))
    low, high = min(low, np.min(modes)), max(high, np.max(modes))
    bins = int(np.clip(2 * np.sqrt(len(modes)), 8, 40))
    ax.hist(modes, np.linspace(low, high, bins).tolist(), density=True, color=style.DATA, alpha=0.4, label="subjects' modes")
    heights, edges = np.histogram(population, np.linspace(low, high, 101), density=True)
    ax.plot((edges[:-1] + edges[1:]) / 2, heights, color=style.FIT, linewidth=1.6, label="population")
    grid = np.linspace(low, high, 200)
    normal = np.exp(-0.5 * (grid / omega) ** 2) / (omega * np.sqrt(2 * np.pi))
    ax.plot(grid, normal, color=style.MUTED, linewidth=1.2, linestyle="--", label="normal of the same sd")
    style.tidy(ax, f"random effect of {name}", "density", f"{name}: ω {omega:.3g}")


def _pair(ax: Axes, pair: tuple[str, str], population: dict[str, np.ndarray], modes: dict[str, np.ndarray]) -> None:
    (x, y), ranges = pair, [np.quantile(population[name], (0.001, 0.999)).tolist() for name in pair]
    ax.hist2d(population[x], population[y], bins=60, range=ranges, cmap="Greys", density=True)
    ax.plot(modes[x], modes[y], "o", color=style.DATA, markersize=3.0, alpha=0.6, markeredgewidth=0)
    style.tidy(ax, f"random effect of {x}", f"random effect of {y}")
    ax.grid(False)
