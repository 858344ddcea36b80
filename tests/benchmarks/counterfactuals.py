"""A large simulation: 1,000 subjects at 200 times, 1,000 draws of the parameters, an oral two-compartment model, two regimens.

`python tests/benchmarks/counterfactuals.py [subjects times draws]` prints the seconds and the peak memory of

- `bands`: the quantiles over subjects at each time with their uncertainty, residual error included;
- `exposure`: AUC, Cmax, Tmax, Ctrough by regimen, subject and draw;

each with its compilation, in one process each.
"""

import multiprocessing
import resource
import sys
import time

import numpy as np
import pandas as pd

import nlmefit as nm

REGIMENS = {
    "once daily": nm.Regimen(200, every=24, doses=7),
    "loading dose": nm.Regimen(400) + nm.Regimen(100, every=12, doses=13).after(12),
}


class Oral(nm.Model):
    """Oral two-compartment model."""

    ka = nm.LogNormal(1.2, iiv=0.5)
    CL = nm.LogNormal(5.0, iiv=0.3)
    V1 = nm.LogNormal(30.0, iiv=0.2)
    Q = nm.LogNormal(4.0)
    V2 = nm.LogNormal(60.0, iiv=0.3)
    dynamics = nm.TwoCompartment(absorption="first-order")

    def observe(self, t, A, p):
        return {"conc": A.central / p.V1}

    conc = nm.Proportional(0.15)


def parameters(draws: int) -> pd.DataFrame:
    """As an estimate's uncertainty would give them: relative standard errors of 5 % (typical values), 10 % (omegas)."""
    normal = np.random.default_rng(0).standard_normal
    values = Oral().values
    error = {name: 0.1 if name.startswith("omega") else 0.05 for name in values}
    return pd.DataFrame({name: value * np.exp(error[name] * normal(draws)) for name, value in values.items()})


def run(job: str, subjects: int, times: int, draws: int) -> None:
    began, used = time.perf_counter(), time.process_time()
    simulation = nm.simulate(
        Oral(),
        REGIMENS,
        times=np.linspace(0.5, 192, times),
        subjects=subjects,
        uncertainty=parameters(draws),
        draws=draws,
        residual=job == "bands",
        progress=False,
    )
    table = simulation.bands() if job == "bands" else nm.exposure(simulation)
    seconds, cpu = time.perf_counter() - began, time.process_time() - used
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    values = subjects * times * draws * len(REGIMENS)
    print(f"| {job} | {values:,} | {seconds:.1f} | {cpu:.1f} | {peak:.2f} | {len(table):,} |", flush=True)


def main() -> None:
    subjects, times, draws = (int(x) for x in sys.argv[1:]) if len(sys.argv) > 1 else (1000, 200, 1000)
    print("| what | values | seconds | CPU seconds | peak GiB | rows of the answer |\n|---|---|---|---|---|---|")
    for job in ("bands", "exposure"):
        process = multiprocessing.get_context("spawn").Process(target=run, args=(job, subjects, times, draws))
        process.start()
        process.join()
        if process.exitcode:
            sys.exit(process.exitcode)


if __name__ == "__main__":
    main()
