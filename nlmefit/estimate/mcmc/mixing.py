"""Whether Markov chains have mixed: rank-normalized split R-hat and bulk effective sample size (Vehtari et al. 2021)."""

import jax.numpy as jnp
import numpy as np
from jax.scipy.special import ndtri
from jaxtyping import Float
from numpyro.diagnostics import effective_sample_size, split_gelman_rubin

from nlmefit.estimate.status import Status

LARGEST_R_HAT = 1.01
LEAST_PER_CHAIN = 100
"""Effective draws per chain below which R-hat and the draws' quantiles are not to be trusted (Vehtari et al. 2021)."""


def r_hat(draws: Float[np.ndarray, "c n"]) -> float:
    """The larger of the rank-normalized split R-hat of the draws and of their distances from the median (which sees chains
    that differ in spread alone). NaN for fewer than 4 draws a chain; infinite for chains that do not move."""
    if draws.shape[1] < 4:
        return np.nan
    if np.any(np.ptp(draws, axis=1) == 0):
        return np.inf
    folded = np.abs(draws - np.median(draws))
    return float(max(split_gelman_rubin(_normalized(x)) for x in (draws, folded)))


def effective_draws(draws: Float[np.ndarray, "c n"]) -> float:
    """Bulk effective sample size: that of the rank-normalized draws, every chain split in halves."""
    half = draws.shape[1] // 2
    if half < 2 or np.any(np.ptp(draws, axis=1) == 0):
        return np.nan
    halves = np.concatenate([draws[:, :half], draws[:, -half:]])
    return float(effective_sample_size(_normalized(halves)))


def _normalized(draws: np.ndarray) -> np.ndarray:
    """Normal scores of the ranks over all chains; equal draws share their mean rank."""
    _, inverse, counts = np.unique(draws, return_inverse=True, return_counts=True)
    rank = (np.cumsum(counts) - 0.5 * (counts - 1))[inverse.reshape(draws.shape)]
    return np.asarray(ndtri(jnp.asarray((rank - 0.375) / (draws.size + 0.25))))


def described(draws: Float[np.ndarray, "c n"]) -> dict[str, float]:
    """Mean, sd, quantiles, R-hat and effective number of draws."""
    low, middle, high = np.quantile(draws, (0.025, 0.5, 0.975))
    found = {"mean": draws.mean(), "sd": draws.std(ddof=1) if draws.size > 1 else np.nan, "2.5 %": low, "50 %": middle}
    return {
        **{k: float(v) for k, v in found.items()},
        "97.5 %": float(high),
        "R-hat": r_hat(draws),
        "ESS": effective_draws(draws),
    }


def have_mixed(draws: dict[str, Float[np.ndarray, "c n"]]) -> bool:
    """R-hat below 1.01 and 100 effective draws per chain for all of `draws`."""
    least = LEAST_PER_CHAIN * len(next(iter(draws.values())))
    return all(r_hat(x) < LARGEST_R_HAT and effective_draws(x) > least for x in draws.values())


def judge_chains(draws: dict[str, Float[np.ndarray, "c n"]], divergences: int, stopped: str = "") -> Status:
    """Converged only with R-hat below 1.01 and 100 effective draws per chain for all of `draws`, and no divergence."""
    chains, length = next(iter(draws.values())).shape if draws else (1, 0)
    doubts = []
    if divergences:
        doubts.append(
            f"{divergences} divergent transitions: the chains miss a part of the posterior. Raise target_accept, or change "
            "`centred`."
        )
    hats = {name: r_hat(x) for name, x in draws.items()}
    sizes = {name: effective_draws(x) for name, x in draws.items()}
    apart = {name: x for name, x in hats.items() if not x < LARGEST_R_HAT}
    few = {name: x for name, x in sizes.items() if not x > LEAST_PER_CHAIN * chains}
    if draws and length < 4:
        doubts.append(f"{length} draws per chain are too few to judge by.")
    else:
        if apart:
            doubts.append(f"The chains have not mixed: R-hat {_worst(apart, -1, '.3f')}; below {LARGEST_R_HAT} is wanted.")
        if few:
            doubts.append(
                f"Few effective draws: {_worst(few, 1, '.0f')}; over {LEAST_PER_CHAIN * chains} are wanted. "
                "Raise warmup and draws."
            )
    if stopped:
        return Status("failed", (stopped, *doubts))
    if doubts:
        return Status("uncertain", tuple(doubts))
    if not draws:
        return Status("converged", ("no population parameter is free.",))
    return Status(
        "converged",
        (f"R-hat up to {max(hats.values()):.3f}, {min(sizes.values()):.0f} effective draws or more, no divergences.",),
    )


def _worst(values: dict[str, float], sign: int, form: str) -> str:
    """The three worst by name; `sign` is 1 where low is bad."""
    order = sorted(values, key=lambda name: -np.inf if np.isnan(values[name]) else sign * values[name])
    return ", ".join(f"{values[name]:{form}} ({name})" for name in order[:3])
