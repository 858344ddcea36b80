"""Every estimation method on the same data, judged by the same marginal likelihood.

    python tutorials/compare_methods.py [theophylline phenobarbital warfarin pkpd]

prints one table per data set and writes it into `tutorials/compare_methods.md`, where those of the others stay as they are.
Warfarin's data may not be shipped: `WARFARIN_CSV` names the file. log p(y) is that of the estimates, by importance
sampling; the gap is between it and the method's own objective, where that is a bound; "lowest omega" is the one that is smallest
beside that of the best fit.
"""

import os
import sys
from pathlib import Path

import numpy as np
import pandas as pd

import nlmefit as nm

HERE = Path(__file__).parent
DATASETS = HERE.parent / "datasets"


class Theophylline(nm.Model):
    """Oral, one compartment, rich data."""

    ka = nm.LogNormal(1.5, iiv=0.6, unit="1/h")
    CL = nm.LogNormal(2.8, iiv=0.3, unit="L/h")
    V = nm.LogNormal(32.0, iiv=0.15, unit="L")
    dynamics = nm.OneCompartment(absorption="first-order")

    def observe(self, t, A, p):
        return {"conc": A.central / p.V}

    conc = nm.Additive(0.7, unit="mg/L")


class Phenobarbital(nm.Model):
    """Intravenous boluses in newborns, two or three samples each."""

    CL = nm.LogNormal(0.005, iiv=0.3, unit="L/h")
    V = nm.LogNormal(1.4, iiv=0.4, unit="L")
    dynamics = nm.OneCompartment()

    def observe(self, t, A, p):
        return {"conc": A.central / p.V}

    conc = nm.Proportional(0.15)


class Warfarin(nm.Model):
    """Oral warfarin with a lag time; sds of the error that add."""

    tlag = nm.LogNormal(0.8, iiv=0.5, unit="h")
    ka = nm.LogNormal(1.3, iiv=0.7, unit="1/h")
    V = nm.LogNormal(8.0, iiv=0.2, unit="L")
    CL = nm.LogNormal(0.13, iiv=0.3, unit="L/h")
    dynamics = nm.OneCompartment(absorption="first-order")

    def dosing(self, p):
        return {"depot": nm.Dosing(lag=p.tlag)}

    def observe(self, t, A, p):
        return {"cp": A.central / p.V}

    cp = nm.CombinedSD(0.3, 0.1)


def warfarin() -> pd.DataFrame:
    """32 subjects after one dose, concentrations only."""
    frame = pd.read_csv(os.environ["WARFARIN_CSV"], na_values=".").rename(columns=str.upper)
    return frame[(frame["DVID"] == 1) | frame["AMT"].gt(0)].drop(columns="DVID")


class DirectEffect(nm.Model):
    """Concentrations and a direct inhibition, sparse."""

    ka = nm.LogNormal(1.0, iiv=0.4, unit="1/h")
    CL = nm.LogNormal(4.0, iiv=0.3, unit="L/h")
    V = nm.LogNormal(70.0, iiv=0.2, unit="L")
    E0 = nm.LogNormal(20.0, iiv=0.2)
    IC50 = nm.LogNormal(0.5, iiv=0.4, unit="mg/L")
    dynamics = nm.OneCompartment(absorption="first-order")

    def observe(self, t, A, p):
        conc = A.central / p.V
        return {"conc": conc, "effect": p.E0 * (1 - conc / (p.IC50 + conc))}

    conc = nm.Proportional(0.15)
    effect = nm.Additive(1.0)


def sparse_pkpd(subjects: int = 60, seed: int = 11) -> pd.DataFrame:
    """Two concentrations and two effects of each subject, at times of their own."""
    rng = np.random.default_rng(seed)
    times = [np.sort(rng.choice([0.5, 1.0, 2.0, 4.0, 8.0, 12.0, 24.0], 4, replace=False)) for _ in range(subjects)]
    rows = [(i, 0.0, 100.0, 1, 1) for i in range(subjects)]
    rows += [(i, t, 0.0, 0, 1 + k % 2) for i in range(subjects) for k, t in enumerate(times[i])]
    frame = pd.DataFrame(rows, columns=["ID", "TIME", "AMT", "EVID", "DVID"])
    frame = frame.sort_values(["ID", "TIME"], kind="stable")
    model = DirectEffect()
    etas = list(model.specification.etas)
    eta = pd.DataFrame(rng.normal(size=(subjects, len(etas))), range(subjects), etas) * [model.values[f"omega_{n}"] for n in etas]
    predicted = nm.predict(model, frame, eta)
    noise = rng.normal(size=len(frame))
    conc, effect = predicted["conc"] * (1 + 0.15 * noise), predicted["effect"] + noise
    return frame.assign(DV=np.where(frame["EVID"] == 1, np.nan, np.where(frame["DVID"] == 1, conc, effect)))


DATA = {
    "theophylline": (Theophylline(), lambda: pd.read_csv(DATASETS / "theophylline.csv")),
    "phenobarbital": (Phenobarbital(), lambda: pd.read_csv(DATASETS / "phenobarbital.csv")),
    "warfarin": (Warfarin(), warfarin),
    "pkpd": (DirectEffect(), sparse_pkpd),
}
METHODS = {
    "FO": nm.FO(),
    "FOCEI": nm.FOCE(interaction=True),
    "Laplace": nm.Laplace(),
    "quadrature, 7 nodes": nm.Quadrature(nodes=7),
    "ITS": nm.ITS(),
    "IMPMAP": nm.ImportanceEM(),
    "SAEM": nm.SAEM(),
    "VI, mean-field": nm.VI(family=nm.MeanField()),
    "VI, full-rank": nm.VI(),
    "VI, flow": nm.VI(family=nm.TriangularFlow()),
    "amortized": nm.AmortizedVI(),
    "NUTS": nm.NUTS(),
}


def table(name: str) -> pd.DataFrame:
    """Every method on one data set; those whose cost grows out of hand with the number of random effects are left out there."""
    model, read = DATA[name]
    data = read()
    effects = len(model.specification.etas)
    chosen = {k: m for k, m in METHODS.items() if effects < 4 or k not in ("quadrature, 7 nodes", "VI, flow")}
    fits = {label: nm.fit(model, data, method) for label, method in chosen.items()}
    found = nm.compare(fits, nm.ImportanceSampling(draws=4000))
    omegas = pd.DataFrame({label: fit.estimates.filter(like="omega_") for label, fit in fits.items()})
    relative = omegas.div(omegas[found.index[0]], axis=0) - 1
    return found.assign(omega=relative.idxmin(), shrunk=100 * relative.min())


def markdown(name: str, found: pd.DataFrame) -> str:
    columns = ["method", "log p(y)", "own objective", "gap", "lowest omega", "seconds", "status"]
    lines = [f"## {name}", "", f"| {' | '.join(columns)} |", "|" + "---|" * len(columns)]
    for label, row in found.iterrows():
        gap = f"{row['bound_gap']:.2f}" if np.isfinite(row["bound_gap"]) else ""
        own = f"{row['objective']:.2f} ({row['objective_kind']})"
        likelihood = f"{row['log_marginal']:.2f} +- {row['mc_se']:.2f}"
        omega = f"{row['omega']} {row['shrunk']:+.0f} %"
        lines.append(f"| {label} | {likelihood} | {own} | {gap} | {omega} | {row['seconds']:.1f} | {row['status']} |")
    return "\n".join(lines) + "\n"


def main(names: list[str]) -> None:
    page = HERE / "compare_methods.md"
    head, *parts = page.read_text(encoding="utf-8").split("\n## ")
    sections = {part.split("\n", 1)[0]: f"## {part.rstrip()}\n" for part in parts}
    for name in names or list(DATA):
        sections[name] = markdown(name, table(name))
        print(sections[name], flush=True)
        ordered = [sections[known] for known in DATA if known in sections]
        page.write_text(head.rstrip() + "\n\n" + "\n".join(ordered), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
