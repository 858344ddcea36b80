"""How fits end from bad starts: five example models, 20 starts each, every parameter times exp(N(0, 0.7^2)).

Run by hand: `python tests/benchmarks/bad_starts.py`. A start at which the objective is not a number counts as refused.
"""

import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from models import Example, examples

import nlmefit as nm

MODELS = ("theophylline", "indomethacin", "phenobarbital", "fraction", "pkpd")


def bad_starts(example: Example, number: int, seed: int = 1) -> list[dict[str, float]]:
    """Starts by name: every free parameter times exp(N(0, 0.7^2)), brought back inside its bounds where it leaves them."""
    rng = np.random.default_rng(seed)
    result = []
    for _ in range(number):
        start = {}
        for name, p in example.model.population().items():
            value = p.value * np.exp(0.7 * rng.normal())
            if np.isfinite(p.lower) and np.isfinite(p.upper):
                edge = 0.02 * (p.upper - p.lower)
                value = float(np.clip(value, p.lower + edge, p.upper - edge))
            if not p.fixed:
                start[name] = value
        result.append(start)
    return result


def study(example: Example, number: int) -> list[nm.Fit | str]:
    """A fit per start, or the message of the error that refused it."""
    data = nm.Subjects.from_frame(example.data, example.model)
    ends: list[nm.Fit | str] = []
    for start in bad_starts(example, number):
        try:
            ends.append(nm.fit(example.model, data, nm.FOCE(interaction=True, covariance="none"), start=start, progress=False))
        except nm.DataError as error:
            ends.append(str(error))
    return ends


def main() -> None:
    print(
        f"{'model':15s} {'best OFV':>12s} {'converged':>9s} {'uncertain':>9s} {'failed':>6s} {'refused':>7s}   "
        "worst converged above best"
    )
    for name in MODELS:
        ends = study(examples()[name], 20)
        fits = [end for end in ends if isinstance(end, nm.Fit)]
        states = [fit.status.state for fit in fits]
        best = min(fit.ofv for fit in fits)
        worst = max((fit.ofv - best for fit in fits if fit.status), default=np.nan)
        counts = [states.count(state) for state in ("converged", "uncertain", "failed")]
        print(
            f"{name:15s} {best:12.4f} {counts[0]:9d} {counts[1]:9d} {counts[2]:6d} {len(ends) - len(fits):7d}   {worst:.2e}",
            flush=True,
        )
        for fit in fits:
            if not fit.status or fit.ofv > best + 0.01:
                print(f"    OFV {fit.ofv:.4f}  {fit.status}")


if __name__ == "__main__":
    main()
