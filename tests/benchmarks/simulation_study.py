"""Bias, RMSE and coverage of estimation methods over simulated trials with sparse samples.

    python tests/benchmarks/simulation_study.py [--trials 100] [--only METHOD ...]

Each trial has 120 subjects, one oral dose, a sample at a random time in each of four windows (one compartment, first-order
absorption, log-normal ka, CL, V, proportional error). Every method starts at the true values. Writes the estimates of all trials
to `simulation_study.csv` as it goes, going on where an earlier run ended, and the table to `simulation_study.md`.
"""

import argparse
import time
from pathlib import Path

import numpy as np
import pandas as pd

import nlmefit as nm
from nlmefit.estimate.method import AbstractMethod

HERE = Path(__file__).parent
ESTIMATES, TABLE = HERE / "simulation_study.csv", HERE / "simulation_study.md"
DOSE, SUBJECTS = 100.0, 120
WINDOWS = [(0.25, 1.5), (1.5, 5.0), (5.0, 12.0), (12.0, 28.0)]


class Oral(nm.Model):
    """One compartment, first-order absorption."""

    ka = nm.LogNormal(1.0, iiv=0.5, unit="1/h")
    CL = nm.LogNormal(4.0, iiv=0.3, unit="L/h")
    V = nm.LogNormal(70.0, iiv=0.25, unit="L")
    dynamics = nm.OneCompartment(absorption="first-order")

    def observe(self, t, A, p):
        return {"conc": A.central / p.V}

    conc = nm.Proportional(0.2)


METHODS: dict[str, AbstractMethod] = {
    "FOCEI": nm.FOCE(interaction=True),
    "Laplace": nm.Laplace(),
    "quadrature, 5 nodes": nm.Quadrature(nodes=5),
    "SAEM": nm.SAEM(),
    "VI, full-rank": nm.VI(),
    "amortized, refined": nm.AmortizedVI(),
    "amortized alone": nm.AmortizedVI(refine=False),
}


def trial(seed: int) -> pd.DataFrame:
    """One data set; concentrations by the textbook formula, not by nlmefit."""
    rng = np.random.default_rng(seed)
    truth = Oral().values
    sd = [truth[f"omega_{name}"] for name in ("ka", "CL", "V")]
    ka, CL, V = (np.array([truth["ka"], truth["CL"], truth["V"]]) * np.exp(rng.normal(size=(SUBJECTS, 3)) * sd)).T[:, :, None]
    low, high = np.array(WINDOWS).T
    t = rng.uniform(low, high, (SUBJECTS, len(WINDOWS))).round(2)
    k = CL / V
    conc = DOSE * ka / (V * (ka - k)) * (np.exp(-k * t) - np.exp(-ka * t))
    conc *= 1 + truth["conc_proportional"] * rng.normal(size=conc.shape)
    ids = np.arange(1, SUBJECTS + 1)
    doses = pd.DataFrame({"ID": ids, "TIME": 0.0, "AMT": DOSE, "EVID": 1})
    samples = pd.DataFrame({"ID": ids.repeat(len(WINDOWS)), "TIME": t.ravel(), "DV": conc.ravel(), "AMT": 0.0, "EVID": 0})
    return pd.concat([doses, samples]).sort_values(["ID", "TIME"], kind="stable", ignore_index=True)


def run(trials: int, methods: dict[str, AbstractMethod]) -> pd.DataFrame:
    """One row per trial, method and parameter."""
    done = pd.read_csv(ESTIMATES) if ESTIMATES.exists() else pd.DataFrame(columns=["trial", "method"])
    for seed in range(1, trials + 1):
        data = trial(seed)
        for label, method in methods.items():
            if ((done["trial"] == seed) & (done["method"] == label)).any():
                continue
            began = time.perf_counter()
            fit = nm.fit(Oral(), data, method, key=seed, progress=False)
            rows = fit.summary()[["estimate", "se", "lower", "upper"]].rename_axis("parameter").reset_index()
            rows = rows.assign(trial=seed, method=label, converged=bool(fit.status), seconds=time.perf_counter() - began)
            done = rows if done.empty else pd.concat([done, rows], ignore_index=True)
            done.to_csv(ESTIMATES, index=False, float_format="%.6g")
        print(f"trial {seed} of {trials}", flush=True)
    return done


def summary(estimates: pd.DataFrame) -> pd.DataFrame:
    """By method and parameter: bias and RMSE in percent of the truth, coverage of the 95 % interval in percent."""
    truth = pd.Series(Oral().values)
    error = 100 * (estimates["estimate"] / estimates["parameter"].map(truth) - 1)
    value = estimates["parameter"].map(truth)
    inside = estimates["lower"].le(value) & estimates["upper"].ge(value)
    covered = (100.0 * inside).where(estimates["lower"].notna())
    frame = estimates.assign(error=error, square=error**2, covered=covered)
    by = frame.groupby(["method", "parameter"], sort=False)
    found = pd.DataFrame({"bias": by["error"].mean(), "rmse": np.sqrt(by["square"].mean()), "coverage": by["covered"].mean()})
    found["bias_se"] = by["error"].std() / np.sqrt(by.size())
    return found


def markdown(estimates: pd.DataFrame) -> str:
    found = summary(estimates)
    names = list(dict.fromkeys(estimates["parameter"]))
    lines = ["# Simulation study", "", f"Trials of {(__doc__ or '').split('Each trial has ')[1].split(' Every')[0]}", ""]
    lines += [
        "Bias / RMSE in percent of the true value / coverage in percent of the 95 % interval. A star: the bias is more than"
    ]
    lines += ["three of its standard errors from 0. Made by `python tests/benchmarks/simulation_study.py`."]
    lines += ["", "| method | " + " | ".join(names) + " | trials | converged | median seconds |", "|---" * (len(names) + 4) + "|"]
    for method, rows in estimates.groupby("method", sort=False):
        cells = []
        for name in names:
            bias, rmse, coverage, error = found.loc[(method, name), ["bias", "rmse", "coverage", "bias_se"]].to_numpy(float)
            star = "*" if abs(bias) > 3 * error else ""
            cells.append(f"{bias:+.1f}{star} / {rmse:.1f} / " + ("-" if np.isnan(coverage) else f"{coverage:.0f}"))
        once = rows.drop_duplicates("trial")
        ended = f" | {len(once)} | {once['converged'].sum()} | {once['seconds'].median():.1f} |"
        lines.append(f"| {method} | " + " | ".join(cells) + ended)
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=100)
    parser.add_argument("--only", nargs="+", choices=list(METHODS), default=list(METHODS))
    given = parser.parse_args()
    estimates = run(given.trials, {name: METHODS[name] for name in given.only})
    TABLE.write_text(markdown(estimates), encoding="utf-8")
    print(TABLE.read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
