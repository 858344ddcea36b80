"""Simulate twins of published population analyses that take long: same sizes, states and stiffness, known truth.

    python datasets/simulate_twins.py --out DIR [--only NAME ...] [--seed N] [--subjects N]

writes NAME.csv (NONMEM columns) and NAME.json (the typical values, standard deviations of the logs, units) to DIR. Equations
are integrated by SciPy's LSODA at tight tolerances, an independent check on the solvers of any package that fits them.

| twin | what |
|---|---|
| neutrophils | chemotherapy in three-week cycles, two-compartment drug, transit cells (Friberg 2002), albumin by cycle |
| target_mediated | antibody, receptor and complex with fast binding (Mager and Jusko 2001), eight correlated effects |
| transit | gamma absorption (Savic 2007) on six occasions |
| pbpk | perfusion-limited organs, 16 linear states |
| pkpd | warfarin's course: transit and depot, concentration and a turnover response |
| metabolite | parent and metabolite, two compartments each, linear |
"""

from __future__ import annotations

import argparse
import json
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.integrate import solve_ivp
from scipy.special import gammaln

Values = Mapping[str, float]

ORGANS = ("brain", "heart", "muscle", "fat", "skin", "bone", "kidney", "spleen", "gut", "liver", "adrenal", "thymus", "rest")
ORGAN_VOLUMES = (1.45, 0.33, 29.0, 18.2, 3.4, 10.5, 0.31, 0.18, 1.2, 1.8, 0.02, 0.02, 5.0)
ORGAN_FLOWS = (43.0, 14.0, 60.0, 18.0, 18.0, 18.0, 68.0, 6.0, 53.0, 26.0, 2.0, 2.0, 32.0)
"""Litres, and litres an hour, of a man of 73 kg (after Brown 1997); arteries, veins and the depot make 16 states with them."""
ADDITIVE = 0.005
"""sd of what is added to every observation, in its unit."""
PARTITION = (0.8, 1.2, 0.9, 4.0, 1.5, 0.6, 2.0, 1.5, 1.8, 3.0, 2.0, 1.0, 1.0)


@dataclass(frozen=True)
class Twin:
    """A design, its typical values with the sds of their logs, and the equations."""

    subjects: int
    typical: dict[str, float]
    sd: dict[str, float]
    units: dict[str, str]
    residual: dict[str, float]
    """sd of the log of every output; there is ADDITIVE beside it."""
    states: int
    design: Callable[[np.random.Generator, int], list[dict[str, float]]]
    """Records of a subject without DV."""
    rate: Callable[[float, np.ndarray, Values], np.ndarray]
    initial: Callable[[Values], np.ndarray]
    output: Callable[[np.ndarray, int, Values], float]
    """The prediction of output number DVID."""
    correlation: float = 0.0
    occasions: dict[str, float] | None = None
    """sds of what is new on each occasion, by parameter."""
    covariate: Callable[[Values, Values], Values] = lambda p, record: p


def dose(time: float, amount: float, rate: float = 0.0, **more: float) -> dict[str, float]:
    return {"TIME": time, "AMT": amount, "RATE": rate, "EVID": 1, "DVID": 0, **more}


def sample(time: float, output: int = 1, **more: float) -> dict[str, float]:
    return {"TIME": time, "AMT": 0.0, "RATE": 0.0, "EVID": 0, "DVID": output, **more}


# ---- the twins ---------------------------------------------------------------------------------------------------------


def _cycles(rng: np.random.Generator, who: int) -> list[dict[str, float]]:
    records = []
    for cycle in range(3):
        begins, albumin = 504.0 * cycle, float(np.round(rng.normal(37.0, 4.0), 1))
        records.append(dose(begins, 300.0, 100.0, ALB=albumin))
        if cycle == 0:
            records += [sample(begins + t, 1, ALB=albumin) for t in (2.9, 6.0, 24.0)]
        days = rng.choice([6, 8, 10, 12, 14, 17, 20], size=3, replace=False)
        records += [sample(begins + 24.0 * d, 2, ALB=albumin) for d in sorted(days)]
    return records if who % 2 else records[:-1]


def _neutrophils(t: float, a: np.ndarray, p: Values) -> np.ndarray:
    c, k = a[0] / p["V1"], 4.0 / p["MTT"]
    drug = -(p["CL"] + p["Q"]) * c + p["Q"] * a[1] / p["V2"]
    feedback = (p["BASE"] / a[6]) ** p["GAMMA"]
    proliferation = k * a[2] * ((1 - p["SLOPE"] * c) * feedback - 1)
    chain = [k * (a[i - 1] - a[i]) for i in (3, 4, 5, 6)]
    return np.array([drug, p["Q"] * (c - a[1] / p["V2"]), proliferation, *chain])


def _antibody(rng: np.random.Generator, who: int) -> list[dict[str, float]]:
    times = np.array([0.1, 0.3, 1, 2, 4, 7, 10, 14, 18, 21, 25, 28, 35, 42, 49, 56])
    amount = (3.0, 10.0, 30.0, 100.0)[who % 4]
    records = [dose(0.0, amount)] + [sample(t, 1) for t in times]
    return sorted(records + [sample(t, 2) for t in times[: 15 + (who % 3 != 0)]], key=lambda r: (r["TIME"], r["EVID"] != 1))


def _target_mediated(t: float, a: np.ndarray, p: Values) -> np.ndarray:
    free, receptor, bound = a
    binding = p["KON"] * free * receptor - p["KOFF"] * bound
    return np.array(
        [
            -p["CL"] / p["V"] * free - binding + p["LEAK"] * bound,
            p["KDEG"] * (p["R0"] - receptor) - binding,
            binding - (p["KINT"] + p["LEAK"]) * bound,
        ]
    )


def _six_occasions(rng: np.random.Generator, who: int) -> list[dict[str, float]]:
    records = []
    for occasion in range(6):
        begins = 72.0 * occasion
        records.append(dose(begins, 100.0, OCC=occasion + 1))
        records += [sample(begins + t, 1, OCC=occasion + 1) for t in (0.5, 1.0, 1.75, 3.0, 6.0, 12.0, 24.0)]
    return records


def _transit(t: float, a: np.ndarray, p: Values) -> np.ndarray:
    since = t - p["LAST"]
    k = (p["N"] + 1) / p["MTT"]
    coming = 0.0
    if since > 0:
        coming = p["LASTAMT"] * np.exp(np.log(k) * (p["N"] + 1) + p["N"] * np.log(since) - k * since - gammaln(p["N"] + 1))
    return np.array([coming - p["KA"] * a[0], p["KA"] * a[0] - p["CL"] / p["V"] * a[1]])


def _organs(rng: np.random.Generator, who: int) -> list[dict[str, float]]:
    doses = [dose(24.0 * k, 50.0) for k in range(4)]
    times = [0.25, 0.5, 1, 2, 4, 8, 12, 23.9, 72.5, 73, 74, 76, 80, 84, 96]
    return sorted(doses + [sample(t, 1) for t in times], key=lambda r: r["TIME"])


def _pbpk(t: float, a: np.ndarray, p: Values) -> np.ndarray:
    depot, artery, vein, organs = a[0], a[1] / 1.7, a[2] / 3.9, a[3:]
    flows, leaving = np.array(ORGAN_FLOWS), organs / (np.array(ORGAN_VOLUMES) * np.array(PARTITION) * p["KP"])
    liver, gut, spleen = (ORGANS.index(name) for name in ("liver", "gut", "spleen"))
    rate = flows * (artery - leaving)
    portal = flows[gut] * leaving[gut] + flows[spleen] * leaving[spleen]
    whole = flows[liver] + flows[gut] + flows[spleen]
    rate[liver] = flows[liver] * artery + portal - (whole + p["CLI"]) * leaving[liver] + p["KA"] * depot
    returned = flows @ leaving - portal + (whole - flows[liver]) * leaving[liver]
    total = flows.sum()
    renal = p["CLR"] * artery
    return np.concatenate([[-p["KA"] * depot, total * (vein - artery) - renal, returned - total * vein], rate])


def _anticoagulant(rng: np.random.Generator, who: int) -> list[dict[str, float]]:
    early = [0.5, 1, 2, 3, 6] if who % 2 else [9]
    conc = [*early, 12, 24, 36, 48, 72, 96, 120]
    records = [dose(0.0, 100.0)] + [sample(t, 1) for t in conc] + [sample(t, 2) for t in (24, 36, 48, 72, 96, 120, 144)]
    return sorted(records, key=lambda r: (r["TIME"], r["EVID"] != 1))


def _pkpd(t: float, a: np.ndarray, p: Values) -> np.ndarray:
    conc = a[2] / p["V"]
    inhibition = 1 - p["EMAX"] * conc / (p["EC50"] + conc)
    return np.array(
        [
            -p["KTR"] * a[0],
            p["KTR"] * a[0] - p["KA"] * a[1],
            p["KA"] * a[1] - p["CL"] * conc,
            p["KOUT"] * (p["E0"] * inhibition - a[3]),
        ]
    )


def _both(rng: np.random.Generator, who: int) -> list[dict[str, float]]:
    times = [0.25, 0.5, 1, 2, 3, 4, 6, 8, 12, 16, 24, 36]
    return sorted([dose(0.0, 100.0)] + [sample(t, k) for t in times for k in (1, 2)], key=lambda r: (r["TIME"], r["EVID"] != 1))


def _metabolite(t: float, a: np.ndarray, p: Values) -> np.ndarray:
    parent, metabolite = a[0] / p["VP"], a[2] / p["VM"]
    return np.array(
        [
            -(p["CLP"] + p["CLPM"] + p["Q"]) * parent + p["Q"] * a[1] / p["V2"],
            p["Q"] * (parent - a[1] / p["V2"]),
            p["CLPM"] * parent - (p["CLM"] + p["QM"]) * metabolite + p["QM"] * a[3] / p["VM2"],
            p["QM"] * (metabolite - a[3] / p["VM2"]),
        ]
    )


TWINS = {
    "neutrophils": Twin(
        46,
        {"CL": 35.0, "V1": 15.0, "Q": 20.0, "V2": 100.0, "MTT": 90.0, "BASE": 5.0, "SLOPE": 0.4, "GAMMA": 0.17},
        {"CL": 0.3, "V1": 0.3, "MTT": 0.2, "BASE": 0.4, "SLOPE": 0.4},
        {"CL": "L/h", "V1": "L", "Q": "L/h", "V2": "L", "MTT": "h", "BASE": "1e9/L", "SLOPE": "L/mg", "GAMMA": "1"},
        {"conc": 0.2, "cells": 0.25},
        7,
        _cycles,
        _neutrophils,
        lambda p: np.array([0.0, 0.0, *[p["BASE"]] * 5]),
        lambda a, output, p: a[0] / p["V1"] if output == 1 else a[6],
        covariate=lambda p, record: {**p, "CL": p["CL"] * (record["ALB"] / 37.0) ** 0.8},
    ),
    "target_mediated": Twin(
        50,
        {"CL": 0.3, "V": 3.0, "KON": 50.0, "KOFF": 5.0, "KINT": 0.5, "KDEG": 0.8, "R0": 2.0, "LEAK": 0.05},
        {"CL": 0.3, "V": 0.2, "KON": 0.3, "KOFF": 0.3, "KINT": 0.3, "KDEG": 0.3, "R0": 0.4, "LEAK": 0.3},
        {"CL": "L/d", "V": "L", "KON": "1/nmol/d", "KOFF": "1/d", "KINT": "1/d", "KDEG": "1/d", "R0": "nmol", "LEAK": "1/d"},
        {"conc": 0.15, "receptor": 0.15},
        3,
        _antibody,
        _target_mediated,
        lambda p: np.array([0.0, p["R0"], 0.0]),
        lambda a, output, p: a[0] / p["V"] if output == 1 else a[1] + a[2],
        correlation=0.3,
    ),
    "transit": Twin(
        250,
        {"CL": 18.0, "V": 70.0, "KA": 1.5, "MTT": 1.2, "N": 5.3},
        {"CL": 0.25, "V": 0.2, "KA": 0.4, "MTT": 0.3, "N": 0.3},
        {"CL": "L/h", "V": "L", "KA": "1/h", "MTT": "h", "N": "1"},
        {"conc": 0.15},
        2,
        _six_occasions,
        _transit,
        lambda p: np.zeros(2),
        lambda a, output, p: a[1] / p["V"],
        occasions={"KA": 0.3, "MTT": 0.3},
    ),
    "pbpk": Twin(
        120,
        {"KA": 0.8, "CLI": 25.0, "CLR": 5.0, "KP": 1.0},
        {"KA": 0.4, "CLI": 0.3, "CLR": 0.3, "KP": 0.2},
        {"KA": "1/h", "CLI": "L/h", "CLR": "L/h", "KP": "1"},
        {"conc": 0.15},
        16,
        _organs,
        _pbpk,
        lambda p: np.zeros(16),
        lambda a, output, p: a[2] / 3.9,
    ),
    "pkpd": Twin(
        32,
        {"KTR": 1.0, "KA": 1.2, "CL": 0.135, "V": 8.0, "E0": 96.0, "KOUT": 0.05, "EC50": 1.1, "EMAX": 0.95},
        {"KTR": 0.5, "KA": 0.5, "CL": 0.27, "V": 0.2, "E0": 0.05, "KOUT": 0.1, "EC50": 0.4, "EMAX": 0.02},
        {"KTR": "1/h", "KA": "1/h", "CL": "L/h", "V": "L", "E0": "%", "KOUT": "1/h", "EC50": "mg/L", "EMAX": "1"},
        {"conc": 0.1, "pca": 0.05},
        4,
        _anticoagulant,
        _pkpd,
        lambda p: np.array([0.0, 0.0, 0.0, p["E0"]]),
        lambda a, output, p: a[2] / p["V"] if output == 1 else a[3],
    ),
    "metabolite": Twin(
        80,
        {"CLP": 4.0, "CLPM": 8.0, "VP": 20.0, "Q": 6.0, "V2": 40.0, "CLM": 12.0, "VM": 30.0, "QM": 5.0, "VM2": 50.0},
        {"CLP": 0.3, "CLPM": 0.3, "VP": 0.2, "Q": 0.3, "V2": 0.3, "CLM": 0.3, "VM": 0.3},
        {n: "L/h" if n.startswith(("CL", "Q")) else "L" for n in ("CLP", "CLPM", "VP", "Q", "V2", "CLM", "VM", "QM", "VM2")},
        {"parent": 0.15, "metabolite": 0.15},
        4,
        _both,
        _metabolite,
        lambda p: np.zeros(4),
        lambda a, output, p: a[0] / p["VP"] if output == 1 else a[2] / p["VM"],
    ),
}


# ---- simulation --------------------------------------------------------------------------------------------------------


def simulate(name: str, seed: int = 1, subjects: int | None = None, spread: float = 1.0) -> pd.DataFrame:
    """A twin's data set in NONMEM's columns; `spread` is a factor of all random effects and errors."""
    twin, rng = TWINS[name], np.random.default_rng([seed, zlib.crc32(name.encode())])
    rows = []
    for who in range(twin.subjects if subjects is None else subjects):
        rows += [{"ID": who + 1, **record} for record in _subject(twin, rng, who, spread)]
    frame = pd.DataFrame(rows)
    order = ["ID", "TIME", "DV", "AMT", "RATE", "EVID", "DVID", *[c for c in ("ALB", "OCC") if c in frame]]
    return frame[order] if len(twin.residual) > 1 else frame[[c for c in order if c != "DVID"]]


def _subject(twin: Twin, rng: np.random.Generator, who: int, spread: float) -> list[dict[str, float]]:
    names = list(twin.sd)
    root = np.linalg.cholesky(np.full((len(names),) * 2, twin.correlation) + (1 - twin.correlation) * np.eye(len(names)))
    sds = spread * np.array(list(twin.sd.values()))
    eta = dict(zip(names, sds * (root @ rng.standard_normal(len(names))), strict=True))
    own: dict[str, float] = {n: v * np.exp(eta.get(n, 0.0)) for n, v in twin.typical.items()}
    kappas = {n: spread * sd * rng.standard_normal(6) for n, sd in (twin.occasions or {}).items()}
    records = twin.design(rng, who)
    errors = [spread * rng.standard_normal(2) for _ in records]
    amounts, now, running, stop, last = twin.initial(own), 0.0, 0.0, np.inf, {"LAST": -np.inf, "LASTAMT": 0.0}
    for record, error in zip(records, errors, strict=True):
        occasion = {n: own[n] * np.exp(k[int(record["OCC"]) - 1]) for n, k in kappas.items()}
        p = twin.covariate({**own, **occasion, **last}, record)
        for until in sorted({min(stop, record["TIME"]), record["TIME"]}):
            amounts, now = _advanced(twin, amounts, now, until, running, p), until
            if until == stop:
                running, stop = 0.0, np.inf
        if record["EVID"] == 1:
            if twin.occasions is not None:
                last = {"LAST": record["TIME"], "LASTAMT": record["AMT"]}
            elif record["RATE"] > 0:
                running, stop = record["RATE"], record["TIME"] + record["AMT"] / record["RATE"]
            else:
                amounts = amounts + record["AMT"] * (np.arange(twin.states) == 0)
            record["DV"] = np.nan
        else:
            sd = list(twin.residual.values())[int(record["DVID"]) - 1]
            record["DV"] = float(twin.output(amounts, int(record["DVID"]), p) * np.exp(sd * error[0]) + ADDITIVE * error[1])
    return records


def _advanced(twin: Twin, amounts: np.ndarray, start: float, end: float, rate: float, p: Values) -> np.ndarray:
    if end <= start:
        return amounts
    into = rate * (np.arange(twin.states) == 0)
    found = solve_ivp(
        lambda t, a: twin.rate(t, a, p) + into, (start, end), amounts, method="LSODA", rtol=1e-8, atol=1e-10, max_step=24.0
    )
    return found.y[:, -1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--only", nargs="*", choices=list(TWINS), default=list(TWINS))
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--subjects", type=int)
    asked = parser.parse_args()
    asked.out.mkdir(parents=True, exist_ok=True)
    for name in asked.only:
        twin = TWINS[name]
        simulate(name, asked.seed, asked.subjects).to_csv(asked.out / f"{name}.csv", index=False, float_format="%.6g")
        truth = {"typical": twin.typical, "sd_of_log": twin.sd, "units": twin.units, "residual_sd_of_log": twin.residual}
        truth |= {"sd_by_occasion": twin.occasions} if twin.occasions else {}
        (asked.out / f"{name}.json").write_text(json.dumps(truth, indent=1) + "\n")


if __name__ == "__main__":
    main()
