"""Cost per subject against the number of subjects, for a closed form and for differential equations; unequal lengths; memory.

    python tests/benchmarks/scaling.py

One line per number of subjects: milliseconds of an evaluation of the FOCEI objective with its gradient (the median of five,
compiled), microseconds per subject, what padding makes of observations times doses (which a closed form pays for, and steps
do not), and the peak memory of the process, each case in a process of its own.
"""

import argparse
import resource
import subprocess
import sys
import time

import numpy as np
import pandas as pd

import nlmefit as nm
from nlmefit.analysis.fit import bind
from nlmefit.estimate.batches import bucketed
from nlmefit.estimate.modes.objective import Objective
from nlmefit.estimate.problem import Problem


class Oral(nm.Model):
    """One compartment in closed form."""

    ka = nm.LogNormal(1.2, iiv=0.3)
    CL = nm.LogNormal(4.0, iiv=0.3)
    V = nm.LogNormal(40.0, iiv=0.2)
    dynamics = nm.OneCompartment(absorption="first-order")

    def observe(self, t, A, p):
        return {"conc": A.central / p.V}

    conc = nm.Proportional(0.15) + nm.Additive(0.01)


class Saturable(nm.Model):
    """Michaelis-Menten elimination, step by step."""

    ka = nm.LogNormal(1.2, iiv=0.3)
    Vmax = nm.LogNormal(20.0, iiv=0.3)
    V = nm.LogNormal(40.0, iiv=0.2)
    Km = nm.Theta(5.0, lower=0)
    dynamics = nm.MichaelisMenten(absorption="first-order")

    def observe(self, t, A, p):
        return {"conc": A.central / p.V}

    conc = nm.Proportional(0.15) + nm.Additive(0.01)


CASES = {
    "closed form": (Oral(), (12, 120, 1200, 12000), False),
    "closed form, one subject in ten six times longer": (Oral(), (120, 1200, 12000), True),
    "differential equations": (Saturable(), (12, 120, 1200), False),
    "differential equations, one subject in ten six times longer": (Saturable(), (120, 1200), True),
}


def data(subjects: int, unequal: bool) -> pd.DataFrame:
    """Two to seven doses 12 h apart and ten observations each; where unequal, every tenth subject has six times as many."""
    rng = np.random.default_rng(1)
    rows = []
    for who in range(subjects):
        size = 6 if unequal and who % 10 == 0 else 1
        doses = int(rng.integers(2, 8)) * size
        rows += [(who, 12.0 * k, np.nan, 100.0, 1) for k in range(doses)]
        times = np.sort(rng.uniform(0.2, 12.0 * doses, 10 * size))
        rows += [(who, t, np.exp(rng.normal(0.0, 0.3)), 0.0, 0) for t in times]
    frame = pd.DataFrame(rows, columns=["ID", "TIME", "DV", "AMT", "EVID"])
    return frame.sort_values(["ID", "TIME"], kind="stable")


def measure(case: str, subjects: int) -> str:
    model, _, unequal = CASES[case]
    latent, laid_out = bind(model, data(subjects, unequal))
    objective = Objective(Problem(latent, laid_out), nm.FOCE(interaction=True))
    u = objective.coordinates.start()
    objective.contributions(u)
    seconds = []
    for _ in range(5):
        began = time.perf_counter()
        objective.contributions(u)
        seconds.append(time.perf_counter() - began)
    lengths = laid_out.subjects.lengths()
    real = lengths.prod(axis=1).sum()
    padded = sum(len(group) * lengths[group].max(axis=0).prod() for group in bucketed(lengths, latent.solves_ode))
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    each = 1e6 * np.median(seconds) / subjects
    return f"{subjects:8d} {1e3 * np.median(seconds):12.2f} {each:14.1f} {padded / real:14.2f} {memory:12.0f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--one", nargs=2, metavar=("CASE", "SUBJECTS"), help="measure one line in this process")
    one = parser.parse_args().one
    if one:
        print(measure(one[0], int(one[1])))
        return
    for case, (_, numbers, _) in CASES.items():
        print(f"\n{case}\n{'subjects':>8s} {'ms':>12s} {'us per subject':>14s} {'padded / real':>14s} {'peak MiB':>12s}")
        for subjects in numbers:
            command = [sys.executable, __file__, "--one", case, str(subjects)]
            print(subprocess.run(command, check=True, capture_output=True, text=True).stdout.rstrip(), flush=True)


if __name__ == "__main__":
    main()
