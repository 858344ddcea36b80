"""Where the seconds of a FOCEI fit with standard errors go. Run by hand, from any folder:

    python tests/benchmarks/theophylline.py [--repeats 3] [--case theophylline]

Every case runs in two processes of its own: the first with an empty compilation cache, the second with the cache that
the first one left. README.md beside this file says what the columns mean.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
CASES = {
    "theophylline": ("tutorials/theophylline.py", "datasets/theophylline.csv"),
    "infusion_2cpt": ("tests/benchmarks/infusion_2cpt.py", "datasets/infusion_2cpt_multiple.csv"),
}
COLUMNS = ("import", "trace+lower", "compile", "first fit", "fit again", "whole")
Seconds = dict[str, float]


@dataclass(frozen=True)
class Clock:
    """Wall and CPU seconds (of all threads) at one moment."""

    wall: float
    cpu: float

    @classmethod
    def now(cls) -> "Clock":
        return cls(time.perf_counter(), time.process_time())

    def since(self, earlier: "Clock") -> Seconds:
        return {"wall": self.wall - earlier.wall, "cpu": self.cpu - earlier.cpu}


class Stages:
    """JAX's own report of what it traced, lowered and compiled, as intervals of time; nested ones count once."""

    NAMES = {
        "/jax/core/compile/jaxpr_trace_duration": "trace+lower",
        "/jax/core/compile/jaxpr_to_mlir_module_duration": "trace+lower",
        "/jax/core/compile/backend_compile_duration": "compile",
    }

    def __init__(self) -> None:
        self.intervals: dict[str, list[tuple[float, float]]] = {"trace+lower": [], "compile": []}

    def __call__(self, event: str, duration_secs: float, **kwargs: Any) -> None:
        if event in self.NAMES:
            end = time.perf_counter()
            self.intervals[self.NAMES[event]].append((end - duration_secs, end))

    def seconds(self, stage: str) -> float:
        total, reached = 0.0, 0.0
        for begin, end in sorted(self.intervals[stage]):
            total += max(0.0, end - max(begin, reached))
            reached = max(reached, end)
        return total


def timed(job: Callable[[], Any]) -> tuple[Any, Seconds]:
    began = Clock.now()
    result = job()
    return result, Clock.now().since(began)


def child(case: str, repeats: int) -> None:
    """Import, fit, print; then fit again. The last line of standard output is the measurement as JSON."""
    began = Clock.now()
    import jax.monitoring
    import pandas as pd

    import nlmefit as nm
    from nlmefit.cli.main import load_model

    measured: dict[str, Any] = {"import": Clock.now().since(began)}
    stages = Stages()
    jax.monitoring.register_event_duration_secs_listener(stages)
    files = [ROOT / name for name in CASES[case]]
    model, data = load_model(str(files[0])), pd.read_csv(files[1])

    def job() -> nm.Fit:
        return nm.fit(model, data, nm.FOCE(interaction=True), progress=False)

    fit, measured["first fit"] = timed(job)
    print(fit, flush=True)
    usage = resource.getrusage(resource.RUSAGE_SELF)
    measured["whole"] = {"printed": time.time(), "cpu": usage.ru_utime + usage.ru_stime}
    for stage in ("trace+lower", "compile"):
        measured[stage] = {"wall": stages.seconds(stage)}
    again = [timed(job)[1] for _ in range(repeats)]
    measured["fit again"] = {kind: statistics.median(one[kind] for one in again) for kind in ("wall", "cpu")}
    print(json.dumps(measured))


def run(case: str, repeats: int, cache: str) -> tuple[str, dict[str, Seconds]]:
    """One process; the printed fit and the seconds by column."""
    environment = {k: v for k, v in os.environ.items() if k not in ("NLMEFIT_CACHE", "JAX_COMPILATION_CACHE_DIR")}
    command = [sys.executable, __file__, "--child", case, "--repeats", str(repeats)]
    began = time.time()
    environment["XDG_CACHE_HOME"] = cache
    output = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True)
    *printed, last = output.stdout.splitlines()
    measured = json.loads(last)
    measured["whole"]["wall"] = measured["whole"].pop("printed") - began
    return "\n".join(printed), measured


def row(label: str, measured: dict[str, Seconds], kind: str) -> str:
    cells = [f"{measured[name][kind]:>12.3f}" if kind in measured[name] else f"{'':>12s}" for name in COLUMNS]
    return f"{label:32s}{kind:5s}" + "".join(cells)


def main() -> None:
    parser = argparse.ArgumentParser(description="Seconds of a FOCEI fit with standard errors, by stage.")
    parser.add_argument("--repeats", type=int, default=3, help="fits after the first, in the same process")
    parser.add_argument("--case", choices=CASES, action="append", help="default: all")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        return child(arguments.child, arguments.repeats)
    print(f"{'seconds':37s}" + "".join(f"{name:>12s}" for name in COLUMNS))
    fits = []
    for case in arguments.case or CASES:
        with tempfile.TemporaryDirectory() as cache:
            for state in ("empty cache", "warm cache"):
                fit, measured = run(case, arguments.repeats, cache)
                print(row(f"{case}, {state}", measured, "wall"))
                print(row("", measured, "cpu"), flush=True)
        fits.append(fit)
    print("\n" + "\n\n".join(fits))


if __name__ == "__main__":
    main()
