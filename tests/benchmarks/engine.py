"""What one evaluation of the FOCEI objective and its gradient costs, for the twins of `datasets/simulate_twins.py`.

    python tests/benchmarks/engine.py [--only NAME ...] [--subjects N] [--fit]

Every twin in a process of its own, without a compilation cache. CPU and wall seconds: first of the call that traces and compiles,
then the median of three at other points with modes sought from 0 ("cold"), then that of the same points as a search evaluates
them, from the modes of a point near by. With the iterations for a mode, the peak memory in MiB, and -2 log L at the last point.
`--fit` also fits the twin from its true values, standard errors included.
"""

import argparse
import os
import resource
import subprocess
import sys
import time
from typing import NamedTuple

import numpy as np
from twins import MODELS, twin

import nlmefit as nm
from nlmefit.analysis.fit import bind
from nlmefit.estimate.modes.objective import Contributions, Near, Objective
from nlmefit.estimate.problem import Problem

HEAD = (
    f"{'twin':16} {'N':>4} {'first':>7} {'wall':>7} {'cold':>7} {'wall':>7} {'modes':>5} "
    f"{'search':>7} {'wall':>7} {'modes':>5} {'MiB':>6} {'-2 log L':>14}"
)


class Timed(NamedTuple):
    """Median seconds of an evaluation, and the last that was found."""

    cpu: float
    wall: float
    found: Contributions

    @property
    def times(self) -> str:
        return f"{self.cpu:7.2f} {self.wall:7.2f}"

    def __str__(self) -> str:
        return f"{self.times} {np.mean(self.found.iterations):5.1f}"


def timed(objective: Objective, points: list[np.ndarray], near: Near | None) -> Timed:
    cpu, wall = [], []
    for point in points:
        began, before = time.perf_counter(), time.process_time()
        found = objective.contributions(point, near)
        cpu.append(time.process_time() - before)
        wall.append(time.perf_counter() - began)
    return Timed(float(np.median(cpu)), float(np.median(wall)), found)


def measure(name: str, subjects: int | None, fit: bool) -> str:
    model, data = twin(name, subjects)
    latent, laid_out = bind(model, data)
    objective = Objective(Problem(latent, laid_out), nm.FOCE(interaction=True))
    u = objective.coordinates.start()
    rng = np.random.default_rng(1)
    others = [u + 0.02 * rng.standard_normal(len(u)) for _ in range(3)]
    first = timed(objective, [u], None)
    cold, followed = timed(objective, others, None), timed(objective, others, Near(u, first.found))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    total = np.sum(followed.found.value)
    line = f"{name:16} {objective.size:4d} {first.times} {cold} {followed} {peak:6.0f} {total:14.6f}"
    if fit:
        began, before = time.perf_counter(), time.process_time()
        answer = nm.fit(model, data, nm.FOCE(interaction=True), progress=False)
        spent = f"{time.process_time() - before:.1f} CPU s, {time.perf_counter() - began:.1f} s"
        line += f"   fit {spent}, OFV {answer.ofv:.4f}, {answer.status.state}"
    return line


def main() -> None:
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
