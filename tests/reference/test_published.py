"""NONMEM's, Pumas' and nlmixr2's published objective functions, estimates and standard errors.

Sources are in the reference folder's cases.json, run by run.
"""

from dataclasses import replace

import numpy as np
import pytest
from cases import CASES, FOCEI, SEX_RUNS, SEX_THETA, WANG, Case
from models import Decay, DecayT, PanelIV, PanelOral, Theophylline

import nlmefit as nm

METHODS = {
    "FO": nm.FO(),
    "FOCE": nm.FOCE(),
    "FOCEI": FOCEI,
    "LAPLACE": nm.Laplace(interaction=False),
    "LAPLACEI": nm.Laplace(),
    "exact": nm.Quadrature(nodes=21),
}
by_case = pytest.mark.parametrize("case", CASES, ids=lambda c: f"{c.case}-{c.run[:20]}")


def _data(case: Case, reference):
    return reference.data(case.case).rename(columns=case.columns or {})


@by_case
def test_objective_where_the_reference_started(case, reference):
    run = reference.run(case.case, case.run)
    model = case.model.at(case.values(run["initial_parameters"]))
    got = nm.evaluate(model, _data(case, reference), case.method).ofv
    # Exact parameters: 1e-5. warfarin_pk's data reach NONMEM with fewer digits: an independent computation is 8.9e-6 off too.
    allowed = 1e-5 if case.exact_start else 1e-4
    assert got == pytest.approx(run["objective_at_initial"], abs=allowed)


@by_case
def test_objective_and_subjects_at_the_printed_estimates(case, reference):
    run = reference.run(case.case, case.run)
    model = case.model.at(case.values(run["estimates"]))
    fit = nm.evaluate(model, _data(case, reference), case.method)
    assert fit.ofv == pytest.approx(run["objective"], abs=1e-4)
    if "per_subject_file" not in run:
        return
    table = reference.file(run["per_subject_file"]).set_index("ID")
    # Estimates are printed to 6 digits, which moves single subjects by up to 2e-4 while the sum stays put.
    np.testing.assert_allclose(fit.contributions["ofv"].reindex(table.index), table["OBJ"], atol=3e-4)
    if not isinstance(case.method, nm.FO):  # NONMEM's FO prints zeros for eta
        etas = table[[name for name in table if name.startswith("ETA")]].to_numpy()
        np.testing.assert_allclose(fit.eta.reindex(table.index).to_numpy(), etas, atol=1e-5)


@by_case
def test_fit_from_the_reference_start(case, reference):
    run = reference.run(case.case, case.run)
    model = case.model.at(case.values(run["initial_parameters"]))
    # Bauer's tutorial runs ask NONMEM for MATRIX=R (with "R" all standard errors agree to 1 %, with the sandwich to 26 %).
    method = replace(case.method, covariance="R") if case.case == "bauer504_1cmt_cov" else case.method
    fit = nm.fit(model, _data(case, reference), method)
    assert fit.status, fit.status
    assert fit.ofv <= run["objective"] + 0.002
    for name, value in case.values(run["estimates"]).items():
        assert fit.estimates[name] == pytest.approx(value, rel=0.005), name
    for name, se in run.get("se", {}).items():
        if name in fit_names(case) and se > 0 and not _is_fixed(case, name, fit):
            assert case.standard_error(name, fit) == pytest.approx(se, rel=0.05), name


def fit_names(case: Case) -> set[str]:
    q = len(case.etas)
    omegas = {f"OMEGA({i},{i})" for i in range(1, q + 1)}
    if case.model.specification.blocks:
        omegas |= {f"OMEGA({i},{j})" for i in range(1, q + 1) for j in range(1, i)}
    return {*case.names, *case.residuals, *omegas}


def _is_fixed(case: Case, theirs: str, fit: nm.Fit) -> bool:
    ours = case.names.get(theirs, "").split(":")[-1]
    return ours in fit.fixed


@pytest.mark.parametrize("residual", WANG)
@pytest.mark.parametrize("method", METHODS)
def test_wang_2007(residual, method, reference):
    recorded = reference.run("wang2007_residuals", "independent evaluation (ours)")["values"][residual][method]
    got = nm.evaluate(WANG[residual], reference.data("wang2007_residuals"), METHODS[method]).ofv
    assert got == pytest.approx(recorded, abs=1e-7)


@pytest.mark.parametrize("run", ["FO/FOCE/FOCEI evaluation", "FO/FOCE/FOCEI evaluation (nlmixr2est expected values)"])
def test_wang_2007_as_published(run, reference):
    for residual, values in reference.run("wang2007_residuals", run)["values"].items():
        name = "add+prop combined1" if residual == "add+prop combined1" else residual
        for method, value in values.items():
            got = nm.evaluate(WANG[name], reference.data("wang2007_residuals"), METHODS[method]).ofv
            assert round(got, 3) == pytest.approx(value, abs=1.1e-3), (residual, method)


@pytest.mark.parametrize("method", ["FO", "FOCE", "FOCEI", "LAPLACE", "LAPLACEI"])
def test_pumas_simple_model(method, reference):
    got = nm.evaluate(Decay(), reference.data("sim_data_model1"), METHODS[method])
    assert got.ofv == pytest.approx(reference.run("sim_data_model1", method)["objective"], abs=1e-6)
    recorded = {"LAPLACE": ("ebes_laplace", 1e-4), "LAPLACEI": ("ebes_laplaceI", 5e-5)}.get(method)
    if recorded:
        # printed to 4 and 6 digits; Pumas' own search leaves up to 4e-5
        etas = reference.run("sim_data_model1", "EBE")[recorded[0]]
        np.testing.assert_allclose(got.eta["ke"], etas, atol=recorded[1])


def test_pumas_student_t_residuals(reference):
    """Pumas leaves out n log(2 pi) for any density; nlmefit does so for normal observations only."""
    got = nm.evaluate(DecayT(), reference.data("sim_data_model1"), nm.Laplace())
    recorded = reference.run("sim_data_model1", "LAPLACEI, Student-t residual df=30")["objective"]
    assert got.ofv - 20 * np.log(2 * np.pi) == pytest.approx(recorded, abs=1e-5)


@pytest.mark.parametrize("name", SEX_RUNS)
def test_theophylline_with_sex(name, reference):
    model, method = SEX_RUNS[name]
    run, data = reference.run("theopp_sex", name), reference.data("theopp_sex")
    if run["objective_at_initial"] is not None:
        # the Laplace run's start is printed with 3 decimals
        allowed = 5e-4 if name.startswith("LAPLACE (no") else 1e-5
        assert nm.evaluate(model, data, method).ofv == pytest.approx(run["objective_at_initial"], abs=allowed)
    fit = nm.fit(model, data, method)
    assert fit.status, fit.status
    assert fit.ofv <= run["objective"] + 0.002
    for theirs, ours in SEX_THETA.items():
        assert fit.estimates[ours] == pytest.approx(run["estimates"][theirs], rel=0.005), ours
        if run["se"]:
            assert fit.standard_errors[ours] == pytest.approx(run["se"][theirs], rel=0.05), ours
    if "ebes" in run:
        np.testing.assert_allclose(fit.eta.to_numpy(), run["ebes"], atol=2e-3)  # at their estimates, printed to 6 digits


def test_theophylline_focei_optimum(reference):
    """116.803413, from nlmixr2's start and from the README's."""
    data = nm.Subjects.from_frame(_theophylline(reference), Theophylline())
    peer = {"ka": np.exp(0.45), "CL": np.exp(1), "V": np.exp(3.45), "omega_ka": 0.6**0.5}
    peer |= {"omega_CL": 0.3**0.5, "omega_V": 0.1**0.5}
    for start in ({}, peer):
        fit = nm.fit(Theophylline().at(start), data, FOCEI)
        assert fit.status, fit.status
        assert fit.ofv == pytest.approx(116.803413, abs=1e-4)


def _theophylline(reference):
    """The reference's theophylline with the dose in mg: dose per kg times weight."""
    data = reference.data("theopp_fo_block3").rename(columns={"DOSE": "AMT", "CP": "DV"})
    return data.assign(AMT=data["AMT"] * data["WT"])


@pytest.mark.parametrize(
    ("peer", "file", "model"),
    [
        ("nlmixr2_Bolus_1CPT_SD_lin_focei", "panel120_bolus_1cpt", PanelIV()),
        ("nlmixr2_Oral_1CPT_SD_lin_focei", "panel120_oral_1cpt", PanelOral()),
        ("nlmixr2_Infusion_1CPT_SD_lin_focei", "panel120_infusion_1cpt", PanelIV()),
    ],
)
def test_panels_end_at_or_below_nlmixr2(peer, file, model, reference):
    fit = nm.fit(model, reference.file(f"data/{file}.csv"), FOCEI)
    assert fit.status, fit.status
    assert fit.ofv <= reference.peers[peer]["objective"] + 1e-6


def test_nlmixr2_ode_objective_is_its_solver_error(reference):
    """nlmixr2's ODE run reports 0.029 less than its closed-form run: at its estimates the exact objective is not below the
    optimum, so the difference is the ODE solver's tolerance."""
    peer = reference.peers["nlmixr2_Bolus_1CPT_SD_ode_focei"]
    data = reference.file("data/panel120_bolus_1cpt.csv")
    theta, omega = peer["theta"], np.sqrt(np.diag(peer["omega"]["values"]))
    at = PanelIV().at(
        {
            "CL": np.exp(theta["lCl"]),
            "V": np.exp(theta["lVc"]),
            "omega_CL": omega[0],
            "omega_V": omega[1],
            "conc_proportional": theta["prop.err"],
        }
    )
    optimum = nm.fit(PanelIV(), data, FOCEI).ofv
    assert optimum <= nm.evaluate(at, data, FOCEI).ofv <= optimum + 0.01
    assert peer["objective"] < optimum


@pytest.mark.slow
def test_warfarin_by_quadrature(reference):
    """One node is Laplace; nodes 3, 5, 7, 9, 11 converge."""
    case = next(c for c in CASES if c.case == "warfarin_pk")
    data = reference.data("warfarin_pk")
    model = case.model.at(case.values(reference.run("warfarin_pk", "FOCEI")["estimates"]))
    laplace = nm.evaluate(model, data, nm.Laplace()).ofv
    values = [nm.evaluate(model, data, nm.Quadrature(nodes=n)).ofv for n in (1, 3, 5, 7, 9, 11)]
    assert values[0] == pytest.approx(laplace, abs=1e-8)
    steps = np.abs(np.diff(values[1:]))
    assert np.all(steps[1:] < 0.5 * steps[:-1]), values
