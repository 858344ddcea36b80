"""`nm.plot.schedule`: noise schedules of diffusions."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure
from matplotlib.ticker import LogFormatterMathtext, LogLocator

from nlmefit.core.errors import NlmefitError
from nlmefit.generative.diffusion.diffusion import AbstractDiffusion
from nlmefit.generative.diffusion.schedule import AbstractSchedule
from nlmefit.generative.trainer import GenerativeFit
from nlmefit.plot import style
from nlmefit.plot.generative import CLASSES
from nlmefit.plot.legend import legend_below

TIMES = 201


def schedule(of: Any) -> Figure:
    """The share of signal, abar(t), log SNR(t), and what an error at time t weighs in the variational bound: -SNR'(t) / 2 where
    it is of the data, -(log SNR)'(t) / 2 where it is of the noise.

    **Arguments:** `of` a schedule such as `gen.Cosine()`, a diffusion or its fit, or a dictionary of those by name.

    Raises NlmefitError for anything else, ModelError for a learned schedule that has no values yet.
    """
    named = dict(of) if isinstance(of, Mapping) else {"": of}
    if not named:
        raise NlmefitError("there is no schedule to draw: the dictionary is empty.")
    found = {str(name): schedule_of(value) for name, value in named.items()}
    single = "" if len(found) > 1 else f": {type(next(iter(found.values()))).__name__}"
    made = style.figure(7.6, 5.4, ("Noise schedules" if not single else "Noise schedule") + single)
    axes = made.subplots(2, 2, sharex=True).ravel()
    for k, (name, value) in enumerate(found.items()):
        for ax, line in zip(axes, curves(value)[1:], strict=True):
            ax.plot(np.linspace(0, 1, TIMES), line, color=CLASSES[k % len(CLASSES)], linewidth=1.6, label=name or None)
    for ax in axes[2:]:
        ax.set_yscale("log")
    style.tidy(axes[0], "", r"$\bar\alpha(t)$", "Share of signal")
    style.tidy(axes[1], "", "log SNR(t)", "Signal to noise")
    style.tidy(axes[2], "t (0 data, 1 noise)", r"$-\mathrm{SNR}\,'(t)\,/\,2$", "Weight of the data's error in the bound")
    style.tidy(axes[3], "t (0 data, 1 noise)", r"$-(\log\,\mathrm{SNR})'(t)\,/\,2$", "Weight of the noise's error in the bound")
    axes[2].yaxis.set_major_locator(LogLocator(numticks=6))  # many decades
    axes[2].yaxis.set_major_formatter(LogFormatterMathtext())
    legend_below(made, [axes[0]])
    return made


def schedule_of(value: Any) -> AbstractSchedule:
    """Raises NlmefitError for what has none."""
    model = value.model if isinstance(value, GenerativeFit) else value
    found = model.schedule if isinstance(model, AbstractDiffusion) else getattr(model, "model", model)
    found = found.schedule if isinstance(found, AbstractDiffusion) else found
    if not isinstance(found, AbstractSchedule):
        raise NlmefitError(
            f"the figure is of noise schedules, such as gen.Cosine(), and of diffusions, got {type(model).__name__}."
        )
    return found


def curves(schedule: AbstractSchedule) -> tuple[Float[np.ndarray, " T"], ...]:
    """Times, abar, log SNR, -SNR' / 2 and -(log SNR)' / 2."""
    t = jnp.linspace(0.0, 1.0, TIMES)
    log_snr, slope = jax.vmap(jax.value_and_grad(schedule.log_snr))(t)
    return tuple(map(np.asarray, (t, jax.nn.sigmoid(log_snr), log_snr, -0.5 * jnp.exp(log_snr) * slope, -0.5 * slope)))
