"""What one evaluation of the FOCEI objective and its gradient costs, for the twins of `datasets/simulate_twins.py`.

    python tests/benchmarks/engine.py [--only NAME ...] [--subjects N] [--fit]

Every twin in a process of its own, without a compilation cache. First the call that traces and compiles, then the median of
three at points as far from each other as those of a search. `--fit` also fits the twin from its true values, standard errors
included, and says what each stage took.
"""

import argparse
import os
import resource
import subprocess
import sys
import time

import numpy as np

import nlmefit as nm
from nlmefit.analysis.fit import bind
from nlmefit.estimate.modes.objective import Objective
from nlmefit.estimate.problem import Problem


def measure(name: str, subjects: int | None, fit: bool) -> str:
    from twins import twin

    model, data = twin(name, subjects)
    latent, laid_out = bind(model, data)
    objective = Objective(Problem(latent, laid_out), nm.FOCE(interaction=True))
    u = objective.coordinates.start()
    rng = np.random.default_rng(1)
    points = [u, *(u + 0.02 * rng.standard_normal(len(u)) for _ in range(3))]
    cpu, wall = [], []
    for point in points:
        began, before = time.perf_counter(), time.process_time()
        found = objective.contributions(point)
        cpu.append(time.process_time() - before)
        wall.append(time.perf_counter() - began)
    later = f"{np.median(cpu[1:]):8.2f} {np.median(wall[1:]):8.2f} {np.mean(found.iterations):6.1f} {np.max(found.iterations):4d}"
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    line = f"{name:16} {len(found.value):4d} {cpu[0]:8.1f} {wall[0]:8.1f} {later} {np.sum(found.value):14.6f} {peak:6.0f}"
    if fit:
        began, before = time.perf_counter(), time.process_time()
        answer = nm.fit(model, data, nm.FOCE(interaction=True), progress=False)
        spent = f"{time.process_time() - before:8.1f} {time.perf_counter() - began:8.1f}"
        line += f"   fit {spent} OFV {answer.ofv:.4f} {answer.status.state}"
    return line


HEAD = (
    f"{'twin':16} {'N':>4} {'first':>8} {'wall':>8} {'later':>8} {'wall':>8} {'modes':>6} {'most':>4} {'-2 log L':>14} {'MiB':>6}"
)


def main() -> None:
    from twins import MODELS

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", choices=list(MODELS), default=list(MODELS))
    parser.add_argument("--subjects", type=int)
    parser.add_argument("--fit", action="store_true")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.here:
        print(measure(asked.only[0], asked.subjects, asked.fit), flush=True)
        return
    print(HEAD, flush=True)
    for name in asked.only:
        more = ([] if asked.subjects is None else ["--subjects", str(asked.subjects)]) + (["--fit"] if asked.fit else [])
        command = [sys.executable, __file__, "--here", "--only", name, *more]
        subprocess.run(command, env={**os.environ, "NLMEFIT_CACHE": "off"}, check=False)


if __name__ == "__main__":
    main()
