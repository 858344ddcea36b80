"""The shipped data sets hold what their descriptions say, and the simulator's truth is the truth."""

from __future__ import annotations

import importlib.util
import itertools
import json
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.special import lambertw

DATASETS = Path(__file__).resolve().parents[2] / "datasets"
FROM_R = ("theophylline", "indomethacin", "phenobarbital", "quinidine", "remifentanil")
SIMULATED = ("oral_1cpt_single", "infusion_2cpt_multiple")
SHIPPED = FROM_R + SIMULATED
REQUIRED = ("ID", "TIME", "DV", "AMT", "EVID", "CMT", "MDV")
# name: (subjects, dose rows, observation rows, other rows), as each .md states
COUNTS = {
    "theophylline": (12, 12, 132, 0),
    "indomethacin": (6, 6, 66, 0),
    "phenobarbital": (59, 589, 155, 0),
    "quinidine": (136, 1028, 361, 82),
    "remifentanil": (65, 65, 1992, 0),
    "oral_1cpt_single": (120, 120, 2280, 0),
    "infusion_2cpt_multiple": (120, 120, 2280, 0),
}


def load_simulator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("simulate_panels", DATASETS / "simulate_panels.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their own module up while it is being run
    spec.loader.exec_module(module)
    return module


panels = load_simulator()
DESIGNS = {d.name: d for d in panels.all_designs()}


def read(name: str) -> pd.DataFrame:
    return pd.read_csv(DATASETS / f"{name}.csv")


@pytest.fixture(scope="module", params=SHIPPED)
def shipped(request: pytest.FixtureRequest) -> tuple[str, pd.DataFrame]:
    return request.param, read(request.param)


def test_columns_are_numeric_and_upper_case(shipped: tuple[str, pd.DataFrame]) -> None:
    _, data = shipped
    assert set(REQUIRED) <= set(data.columns)
    assert all(c == c.upper() for c in data.columns)
    assert all(np.issubdtype(t, np.number) for t in data.dtypes)


def test_counts(shipped: tuple[str, pd.DataFrame]) -> None:
    name, data = shipped
    rows = [int(data.EVID.eq(event).sum()) for event in (1, 0, 2)]
    assert (data.ID.nunique(), *rows) == COUNTS[name]
    assert sum(rows) == len(data)


def test_description_states_the_counts(shipped: tuple[str, pd.DataFrame]) -> None:
    name, data = shipped
    text = (DATASETS / f"{name}.md").read_text()
    subjects, doses, observations, _ = COUNTS[name]
    for phrase in (f"{subjects} subjects", f"{doses} dose rows", f"{observations} observation rows"):
        assert phrase in text
    assert all(f"| {c} |" in text for c in data.columns)


def test_records_are_consistent(shipped: tuple[str, pd.DataFrame]) -> None:
    _, data = shipped
    dose, seen = data.EVID == 1, data.EVID == 0
    assert data.DV.notna().equals(seen)
    assert data.AMT.notna().equals(dose)
    assert (data.AMT[dose] > 0).all() and (data.DV[seen] >= 0).all()
    assert ((data.MDV == 0) == seen).all()


def test_times_and_order(shipped: tuple[str, pd.DataFrame]) -> None:
    _, data = shipped
    assert (data.TIME >= 0).all()
    assert (data.groupby("ID").TIME.diff().dropna() >= 0).all()
    assert data.ID.is_monotonic_increasing
    # Sorting doses before observations at equal times must change nothing.
    assert data.assign(LATE=data.EVID == 0).sort_values(["ID", "TIME", "LATE"], kind="stable").index.equals(data.index)


def test_covariates_are_complete(shipped: tuple[str, pd.DataFrame]) -> None:
    _, data = shipped
    covariates = data.columns.difference([*REQUIRED, "RATE", "II", "ADDL", "SS"])
    assert not data[covariates].isna().to_numpy().any()


@pytest.mark.parametrize("name", [n for n in SHIPPED if n != "quinidine"])
def test_every_subject_starts_with_a_dose_at_time_zero(name: str) -> None:
    first = read(name).groupby("ID").head(1)
    assert (first.EVID == 1).all() and (first.TIME == 0).all()


def test_theophylline_dose_and_time_zero_observations() -> None:
    data = read("theophylline")
    assert data.AMT[0] == pytest.approx(4.02 * 79.6, abs=1e-12)
    assert (data[data.TIME == 0].groupby("ID").EVID.apply(list).apply(tuple) == (1, 0)).all()


def test_phenobarbital_doses_are_whole_doses_in_mg() -> None:
    data = read("phenobarbital")
    first = data.groupby("ID").head(1)
    assert first.iloc[0][["AMT", "WT", "APGAR"]].tolist() == [25, 1.4, 7]
    assert data.DV[1] == 17.3
    assert 15 < (first.AMT / first.WT).median() < 25
    assert ((data.APGAR >= 5) == (data.APGARIND == 1)).all()


def test_quinidine_steady_state_codes() -> None:
    data = read("quinidine")
    doses = data[data.EVID == 1]
    assert int(doses.SS.sum()) == 249
    assert ((doses.SS == 1) == (doses.II > 0)).all()
    assert data.loc[data.EVID != 1, ["SS", "II"]].isna().to_numpy().all()


def test_remifentanil_infusions() -> None:
    data = read("remifentanil")
    doses = data[data.EVID == 1]
    assert doses.ID.is_unique and (doses.RATE > 0).all()
    hours = (doses.AMT / doses.RATE).to_numpy()
    assert hours.min() > 3.99 and hours.max() < 20.01


@pytest.mark.parametrize("name", SIMULATED)
def test_simulated_truth_file(name: str) -> None:
    facts = json.loads((DATASETS / f"{name}.json").read_text())
    assert facts == panels.truth(DESIGNS[name])
    assert facts["design"]["observations"] == COUNTS[name][2]


def test_script_reproduces_the_shipped_simulations(tmp_path: Path) -> None:
    script = str(DATASETS / "simulate_panels.py")
    subprocess.run([sys.executable, script, "--out", str(tmp_path), "--only", *SIMULATED], check=True)
    written = sorted(p.name for p in tmp_path.iterdir())
    assert written == sorted(n + end for n in SIMULATED for end in (".csv", ".json"))
    for file in written:
        assert (tmp_path / file).read_bytes() == (DATASETS / file).read_bytes()


def r_is_ready() -> bool:
    if shutil.which("Rscript") is None:
        return False
    query = 'quit(status = !(requireNamespace("nlme", quietly = TRUE) && packageVersion("nlme") >= "3.1.158"))'
    return subprocess.run(["Rscript", "-e", query], capture_output=True).returncode == 0


def test_r_script_reproduces_the_shipped_data(tmp_path: Path) -> None:
    if not r_is_ready():
        pytest.skip("needs R with nlme 3.1-158 or later")
    subprocess.run(["Rscript", str(DATASETS / "from_r.R"), str(tmp_path)], check=True)
    for name in FROM_R:
        assert (tmp_path / f"{name}.csv").read_bytes() == (DATASETS / f"{name}.csv").read_bytes()


def test_there_are_24_designs() -> None:
    assert len(DESIGNS) == 24
    assert "oral_2cpt_mm_multiple" in DESIGNS


@pytest.mark.parametrize("name", sorted(DESIGNS))
def test_every_design_runs(name: str, tmp_path: Path) -> None:
    panels.main(["--out", str(tmp_path), "--only", name, "--subjects", "4"])
    data = pd.read_csv(tmp_path / f"{name}.csv")
    assert data.ID.nunique() == 4
    assert sorted(data.AMT.dropna()) == list(panels.DOSES)
    observed = data[data.EVID == 0]
    assert len(observed) == 4 * 19 and (observed.DV > 0).all()
    assert ("ADDL" in data) == DESIGNS[name].multiple and ("RATE" in data) == (DESIGNS[name].route == "infusion")
    facts = json.loads((tmp_path / f"{name}.json").read_text())
    assert list(facts["population"]) == DESIGNS[name].parameters


def test_seed_and_name_decide_the_draws() -> None:
    design = DESIGNS["bolus_1cpt_single"]
    same, again = panels.simulate(design, 3, 4), panels.simulate(design, 3, 4)
    other = panels.simulate(design, 4, 4)
    assert same.equals(again) and not same.equals(other)


def some_parameters(design: Any) -> tuple[dict[str, np.ndarray], np.ndarray]:
    doses = panels.dose_levels(4)
    return panels.draw_parameters(design, 4, panels.generator(design.name, 7)), doses


def superpose(design: Any, doses: np.ndarray, unit: Any) -> np.ndarray:
    """Sum a unit-dose response, a function of the (1, times) matrix of times after dose, over the doses."""
    total = np.zeros((len(doses), len(design.sample_times)))
    for start in design.dose_times:
        after = design.sample_times - start
        total += np.where(after >= 0, unit(np.maximum(after, 0)[None, :]), 0.0)
    return doses[:, None] * total


def one_compartment_unit(route: str, p: dict[str, np.ndarray], t: np.ndarray) -> np.ndarray:
    v, k = p["V1"][:, None], (p["CL"] / p["V1"])[:, None]
    if route == "bolus":
        return np.exp(-k * t) / v
    if route == "oral":
        ka = p["KA"][:, None]
        return ka / (v * (ka - k)) * (np.exp(-k * t) - np.exp(-ka * t))
    hours = panels.INFUSION_HOURS
    return (np.exp(-k * np.maximum(t - hours, 0)) - np.exp(-k * t)) / (hours * k * v)


@pytest.mark.parametrize("dosing", ("single", "multiple"))
@pytest.mark.parametrize("route", ("bolus", "infusion", "oral"))
def test_one_compartment_closed_forms(route: str, dosing: str) -> None:
    design = DESIGNS[f"{route}_1cpt_{dosing}"]
    p, doses = some_parameters(design)
    expected = superpose(design, doses, lambda t: one_compartment_unit(route, p, t))
    np.testing.assert_allclose(panels.concentrations(design, p, doses), expected, rtol=1e-10)


def test_two_compartment_bolus_closed_form() -> None:
    design = DESIGNS["bolus_2cpt_multiple"]
    p, doses = some_parameters(design)
    k10, k12, k21 = p["CL"] / p["V1"], p["Q"] / p["V1"], p["Q"] / p["V2"]
    total = k10 + k12 + k21
    root = np.sqrt(total**2 - 4 * k10 * k21)
    fast, slow = (total + root) / 2, (total - root) / 2

    def unit(t: np.ndarray) -> np.ndarray:
        a = ((fast - k21) / (fast - slow) / p["V1"])[:, None]
        b = ((k21 - slow) / (fast - slow) / p["V1"])[:, None]
        return a * np.exp(-fast[:, None] * t) + b * np.exp(-slow[:, None] * t)

    expected = superpose(design, doses, unit)
    np.testing.assert_allclose(panels.concentrations(design, p, doses), expected, rtol=1e-10)


def test_michaelis_menten_bolus_closed_form() -> None:
    design = DESIGNS["bolus_1cpt_mm_single"]
    p, doses = some_parameters(design)
    km, c0 = p["KM"][:, None], (doses / p["V1"])[:, None]
    exponent = (c0 - (p["VM"] / p["V1"])[:, None] * design.sample_times) / km
    expected = km * lambertw(c0 / km * np.exp(exponent)).real
    np.testing.assert_allclose(panels.concentrations(design, p, doses), expected, rtol=1e-7)


CELLS = list(itertools.product(("bolus", "infusion", "oral"), (1, 2), ("single", "multiple")))


@pytest.mark.parametrize(("route", "compartments", "dosing"), CELLS)
def test_saturable_solver_meets_the_linear_one(route: str, compartments: int, dosing: str) -> None:
    """With KM far above every concentration, elimination is linear with clearance VM / KM."""
    linear = DESIGNS[f"{route}_{compartments}cpt_{dosing}"]
    saturable = DESIGNS[f"{route}_{compartments}cpt_mm_{dosing}"]
    p, doses = some_parameters(linear)
    km = 1e9
    q = {**p, "KM": np.full(4, km), "VM": p["CL"] * km}
    np.testing.assert_allclose(panels.concentrations(saturable, q, doses), panels.concentrations(linear, p, doses), rtol=1e-7)
