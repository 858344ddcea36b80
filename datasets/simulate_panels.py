"""Simulate panels of population PK data sets with known truth.

The 24 designs cross route (bolus, infusion, oral), compartments (1, 2), elimination (linear,
Michaelis-Menten) and dosing (single, multiple). Each has 120 subjects on four dose levels and
19 samples a subject. Concentrations come from the matrix exponential (linear) or from a tightly
controlled Runge-Kutta integration (Michaelis-Menten), so they are an independent check on the
solvers of any package that fits them.

    python datasets/simulate_panels.py --out DIR [--only NAME ...] [--seed N] [--subjects N]

writes NAME.csv (NONMEM columns) and NAME.json (the true parameters and the design) to DIR.
"""

from __future__ import annotations

import argparse
import itertools
import json
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.integrate import solve_ivp
from scipy.linalg import expm

ROUTES = ("bolus", "infusion", "oral")
DOSES = (10.0, 30.0, 60.0, 120.0)
DEFAULT_SEED = 1
DEFAULT_SUBJECTS = 120
INTERIND_SD = 0.3
RESIDUAL_SD = 0.2
INFUSION_HOURS = 2.0
INTERVAL_HOURS = 24.0
ADDITIONAL_DOSES = 6

# VM / KM equals CL, so that both kinds of elimination agree at low concentrations, and the higher doses
# pass KM, so that a saturable fit can tell VM from KM.
POPULATION = {"CL": 4.0, "VM": 5.0, "KM": 1.25, "V1": 70.0, "Q": 4.0, "V2": 40.0, "KA": 1.0}
PARAMETER_UNITS = {"CL": "L/h", "VM": "mg/h", "KM": "mg/L", "V1": "L", "Q": "L/h", "V2": "L", "KA": "1/h"}

SINGLE_TIMES = (0.25, 0.5, 0.75, 1, 1.5, 2, 3, 4, 6, 8, 10, 12, 16, 20, 24, 30, 36, 42, 48)
# No sample lies on a dose time, so the order of doses and observations is never ambiguous.
FIRST_INTERVAL_TIMES = (0.25, 0.5, 1, 2, 4, 8, 12, 18, 23.75)
LAST_INTERVAL_TIMES = (-0.25, 0.25, 0.5, 1, 2, 4, 8, 12, 18, 24)

Params = dict[str, np.ndarray]


@dataclass(frozen=True)
class Design:
    """One cell of the panel."""

    route: str
    compartments: int
    michaelis_menten: bool
    multiple: bool

    @property
    def name(self) -> str:
        parts = [self.route, f"{self.compartments}cpt"]
        parts += ["mm"] if self.michaelis_menten else []
        return "_".join([*parts, "multiple" if self.multiple else "single"])

    @property
    def parameters(self) -> list[str]:
        names = ["VM", "KM", "V1"] if self.michaelis_menten else ["CL", "V1"]
        names += ["Q", "V2"] if self.compartments == 2 else []
        return names + (["KA"] if self.route == "oral" else [])

    @property
    def central(self) -> int:
        """Index of the central compartment in the state vector: after the depot, if there is one."""
        return 1 if self.route == "oral" else 0

    @property
    def states(self) -> int:
        return self.central + self.compartments

    @property
    def dose_times(self) -> np.ndarray:
        return INTERVAL_HOURS * np.arange(1 + ADDITIONAL_DOSES if self.multiple else 1)

    @property
    def sample_times(self) -> np.ndarray:
        if not self.multiple:
            return np.array(SINGLE_TIMES, dtype=float)
        last = self.dose_times[-1] + np.array(LAST_INTERVAL_TIMES)
        return np.concatenate([np.array(FIRST_INTERVAL_TIMES), last])


def all_designs() -> list[Design]:
    cells = itertools.product(ROUTES, (1, 2), (False, True), (False, True))
    return [Design(*cell) for cell in cells]


def dose_levels(subjects: int) -> np.ndarray:
    """Dose of each subject: equal blocks of consecutive subjects, lowest dose first."""
    return np.array(DOSES)[np.arange(subjects) * len(DOSES) // subjects]


def transfer_matrix(design: Design, params: Params) -> np.ndarray:
    """Rate constants of the linear part, one matrix a subject; saturable elimination is left out."""
    c = design.central
    a = np.zeros((len(params["V1"]), design.states, design.states))
    if design.route == "oral":
        a[:, 0, 0] = -params["KA"]
        a[:, c, 0] = params["KA"]
    if design.compartments == 2:
        k12, k21 = params["Q"] / params["V1"], params["Q"] / params["V2"]
        a[:, c, c] -= k12
        a[:, c + 1, c] = k12
        a[:, c, c + 1] = k21
        a[:, c + 1, c + 1] = -k21
    if not design.michaelis_menten:
        a[:, c, c] -= params["CL"] / params["V1"]
    return a


def advance_linear(a: np.ndarray, state: np.ndarray, rate: np.ndarray, central: int, hours: float) -> np.ndarray:
    """Exact step under a constant infusion: the input rides along as one more, constant, state."""
    subjects, n = state.shape
    augmented = np.zeros((subjects, n + 1, n + 1))
    augmented[:, :n, :n] = a
    augmented[:, central, n] = rate
    start = np.concatenate([state, np.ones((subjects, 1))], axis=1)
    return np.einsum("sij,sj->si", expm(augmented * hours), start)[:, :n]


def advance_saturable(
    a: np.ndarray, params: Params, state: np.ndarray, rate: np.ndarray, central: int, hours: float
) -> np.ndarray:
    """Runge-Kutta step of all subjects at once; the tolerances are far below the residual error."""
    shape = state.shape

    def slope(_: float, flat: np.ndarray) -> np.ndarray:
        x = flat.reshape(shape)
        conc = x[:, central] / params["V1"]
        dx = np.einsum("sij,sj->si", a, x)
        dx[:, central] += rate - params["VM"] * conc / (params["KM"] + conc)
        return dx.ravel()

    solution = solve_ivp(slope, (0.0, hours), state.ravel(), method="DOP853", rtol=1e-10, atol=1e-14)
    if not solution.success:
        raise RuntimeError(solution.message)
    return solution.y[:, -1].reshape(shape)


def breakpoints(design: Design) -> np.ndarray:
    ends = design.dose_times + INFUSION_HOURS if design.route == "infusion" else []
    return np.unique(np.concatenate([design.dose_times, ends, design.sample_times]))


def concentrations(design: Design, params: Params, doses: np.ndarray) -> np.ndarray:
    """True central concentrations: subjects in rows, sample times in columns."""
    a, c = transfer_matrix(design, params), design.central
    state, rate = np.zeros((len(doses), design.states)), np.zeros(len(doses))
    columns, now = [], 0.0
    for t in breakpoints(design):
        if t > now and design.michaelis_menten:
            state = advance_saturable(a, params, state, rate, c, t - now)
        elif t > now:
            state = advance_linear(a, state, rate, c, t - now)
        now = t
        if t in design.sample_times:
            columns.append(state[:, c] / params["V1"])
        starts = t in design.dose_times
        if design.route == "infusion":
            ended = t - INFUSION_HOURS in design.dose_times
            rate = doses / INFUSION_HOURS if starts else np.zeros_like(rate) if ended else rate
        elif starts:
            state[:, 0] += doses  # the first state is the depot (oral) or the central one (bolus)
    return np.column_stack(columns)


def generator(name: str, seed: int) -> np.random.Generator:
    """A stream of its own for each data set, so that --only never changes what a name contains."""
    return np.random.default_rng(np.random.SeedSequence([seed, zlib.crc32(name.encode())]))


def draw_parameters(design: Design, subjects: int, rng: np.random.Generator) -> Params:
    eta = INTERIND_SD * rng.standard_normal((subjects, len(design.parameters)))
    return {p: POPULATION[p] * np.exp(eta[:, j]) for j, p in enumerate(design.parameters)}


def add_residual(pred: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Proportional error, drawn again below zero (a five-sigma event) as concentrations are positive."""
    factor = 1.0 + RESIDUAL_SD * rng.standard_normal(pred.shape)
    while (low := factor <= 0).any():
        factor[low] = 1.0 + RESIDUAL_SD * rng.standard_normal(int(low.sum()))
    return pred * factor


def number(x: float) -> str:
    """Five significant digits without an exponent."""
    return np.format_float_positional(x, precision=5, unique=False, fractional=False, trim="-")


def columns_of(design: Design) -> list[str]:
    names = ["ID", "TIME", "DV", "AMT"]
    names += ["RATE"] if design.route == "infusion" else []
    names += ["II", "ADDL"] if design.multiple else []
    return [*names, "EVID", "CMT", "MDV", "DOSE"]


def dose_record(design: Design, subject: int, dose: float) -> dict[str, str]:
    return {
        "ID": str(subject), "TIME": "0", "AMT": number(dose), "RATE": number(dose / INFUSION_HOURS),
        "II": number(INTERVAL_HOURS), "ADDL": str(ADDITIONAL_DOSES), "EVID": "1", "CMT": "1", "MDV": "1",
        "DOSE": number(dose),
    }  # fmt: skip


def sample_records(design: Design, subject: int, dose: float, dv: np.ndarray) -> list[dict[str, str]]:
    cmt = str(design.central + 1)
    fixed = {"ID": str(subject), "EVID": "0", "CMT": cmt, "MDV": "0", "DOSE": number(dose)}
    pairs = zip(design.sample_times, dv, strict=True)
    return [{**fixed, "TIME": number(t), "DV": number(y)} for t, y in pairs]


def simulate(design: Design, seed: int = DEFAULT_SEED, subjects: int = DEFAULT_SUBJECTS) -> pd.DataFrame:
    """The data set as text cells: empty means missing."""
    rng = generator(design.name, seed)
    doses = dose_levels(subjects)
    params = draw_parameters(design, subjects, rng)
    dv = add_residual(concentrations(design, params, doses), rng)
    records: list[dict[str, str]] = []
    for i, dose in enumerate(doses):
        records.append(dose_record(design, i + 1, dose))
        records += sample_records(design, i + 1, dose, dv[i])
    return pd.DataFrame(records).reindex(columns=columns_of(design)).fillna("")


def describe_design(design: Design, subjects: int) -> dict[str, Any]:
    levels = dose_levels(subjects)
    out: dict[str, Any] = {
        "route": design.route,
        "compartments": design.compartments,
        "elimination": "michaelis-menten" if design.michaelis_menten else "linear",
        "dosing": "multiple" if design.multiple else "single",
        "subjects": subjects,
        "subjects_per_dose": {f"{d:g}": int((levels == d).sum()) for d in DOSES},
        "observations": subjects * len(design.sample_times),
        "dose_times": design.dose_times.tolist(),
        "sample_times": design.sample_times.tolist(),
    }
    if design.route == "infusion":
        out["infusion_duration"] = INFUSION_HOURS
    return out


def truth(design: Design, seed: int = DEFAULT_SEED, subjects: int = DEFAULT_SUBJECTS) -> dict[str, Any]:
    """Everything that a fit of the data set should be compared with."""
    names = design.parameters
    return {
        "name": design.name,
        "seed": seed,
        "units": {"TIME": "h", "AMT": "mg", "DV": "mg/L", **{p: PARAMETER_UNITS[p] for p in names}},
        "population": {p: POPULATION[p] for p in names},
        "interindividual": {
            "distribution": "log-normal: P_i = P * exp(eta_i), eta_i independent between parameters",
            "sd": {p: INTERIND_SD for p in names},
        },
        "residual": {"type": "proportional: DV = F * (1 + eps)", "sd": RESIDUAL_SD},
        "design": describe_design(design, subjects),
    }


def write(design: Design, out: Path, seed: int = DEFAULT_SEED, subjects: int = DEFAULT_SUBJECTS) -> None:
    text = simulate(design, seed, subjects).to_csv(index=False, lineterminator="\n")
    (out / f"{design.name}.csv").write_bytes(text.encode())
    facts = json.dumps(truth(design, seed, subjects), indent=2) + "\n"
    (out / f"{design.name}.json").write_bytes(facts.encode())


def positive_int(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return value


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    names = [d.name for d in all_designs()]
    parser = argparse.ArgumentParser(description="Simulate panels of PK data sets with known truth.")
    add = parser.add_argument
    add("--out", type=Path, required=True, help="folder to write to; made if it is not there")
    add("--only", nargs="+", choices=names, metavar="NAME", help="names to write; all by default")
    add("--seed", type=int, default=DEFAULT_SEED, help="default: %(default)s")
    add("--subjects", type=positive_int, default=DEFAULT_SUBJECTS, help="in all; default: %(default)s")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    args = parse_arguments(argv)
    args.out.mkdir(parents=True, exist_ok=True)
    for design in all_designs():
        if args.only is None or design.name in args.only:
            write(design, args.out, args.seed, args.subjects)


if __name__ == "__main__":
    main()
