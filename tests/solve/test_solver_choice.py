"""Which solver a model gets, what it may ask for, and what is refused in words."""

import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest

import nlmefit as nm
from nlmefit.population.latent import PopulationModel

RECORDS = pd.DataFrame(
    {"ID": 1, "TIME": [0.0, 1.0, 2.0, 6.0], "DV": [0.0, 1.0, 2.0, 1.0], "AMT": [10.0, 0, 0, 0], "EVID": [1, 0, 0, 0], "WT": 70.0}
)


def model(**body):
    """One compartment with the parts that `body` replaces."""
    parts = {
        "CL": nm.LogNormal(2.0, iiv=0.3),
        "V": nm.LogNormal(10.0, iiv=0.3),
        "observe": lambda self, t, A, p: {"conc": A.central / p.V},
        "conc": nm.Additive(0.5),
    }
    return type("Example", (nm.Model,), parts | body)()


def written(rate):
    return model(dynamics=lambda self, t, A, p: {"central": rate(t, A.central, p)})


def solver_of(m, data=RECORDS, **options):
    return PopulationModel.of(m, nm.Subjects.from_frame(data, m, **options)).solver


@pytest.mark.parametrize(
    ("rate", "linear"),
    [
        (lambda t, A, p: -p.CL / p.V * A, True),
        (lambda t, A, p: 3.0 - p.CL / p.V * A, True),
        (lambda t, A, p: -p.CL / p.V * A * p.WT, True),
        (lambda t, A, p: -p.CL * A / (p.V + A), False),
        (lambda t, A, p: -p.CL / p.V * A * jnp.exp(-t), False),
        (lambda t, A, p: jnp.cos(t) - p.CL / p.V * A, False),
        (lambda t, A, p: -p.CL / p.V * jnp.maximum(A, 0.0), False),
    ],
)
def test_linear_dynamics_are_recognised(rate, linear):
    assert isinstance(solver_of(written(rate)), nm.MatrixExponential if linear else nm.RungeKutta)


def test_compartments_are_solved_in_closed_form_and_others_as_linear_systems():
    assert isinstance(solver_of(model(dynamics=nm.OneCompartment())), nm.ClosedForm)
    chain = model(dynamics=nm.OneCompartment(absorption=nm.Transit(compartments=3)), ka=nm.LogNormal(1.0), mtt=nm.LogNormal(1.0))
    assert isinstance(solver_of(chain), nm.MatrixExponential)


def test_a_stiff_system_gets_implicit_steps():
    """An exchange 1e5 times faster than elimination."""
    fast = model(
        dynamics=lambda self, t, A, p: {
            "central": -p.CL / p.V * A.central / (1 + A.central) - 1e5 * A.central + 1e5 * A.bound,
            "bound": 1e5 * A.central - 1e5 * A.bound,
        }
    )
    assert isinstance(solver_of(fast), nm.Rosenbrock)


@pytest.mark.parametrize(
    ("m", "words"),
    [
        (
            model(dynamics=lambda self, t, A, p: {"central": -p.CL * A.central}, solver=nm.ClosedForm()),
            "nm.ClosedForm() is for nm.One",
        ),
        (
            model(dynamics=lambda self, t, A, p: {"central": -(A.central**2)}, solver=nm.MatrixExponential()),
            "needs dynamics that are linear in the amounts",
        ),
    ],
)
def test_a_solver_that_the_dynamics_do_not_allow_is_refused(m, words):
    with pytest.raises(nm.ModelError) as caught:
        nm.predict(m, RECORDS)
    assert words in str(caught.value)


def test_covariates_that_run_linearly_are_solved_in_steps_or_refused():
    growing = RECORDS.assign(WT=[60.0, 70, 80, 90])
    weighed = {"CL": nm.LogNormal(2.0, iiv=0.3, covariates=[nm.Power("WT", reference=70, exponent=0.75)])}
    assert isinstance(solver_of(model(dynamics=nm.OneCompartment(), **weighed), growing, covariates="linear"), nm.RungeKutta)
    with pytest.raises(nm.DataError, match=r"E136 covariate WT runs linearly between records and enters CL, which"):
        solver_of(model(dynamics=nm.OneCompartment(), solver=nm.ClosedForm(), **weighed), growing, covariates="linear")


@pytest.mark.parametrize("field", ["lag", "duration", "rate"])
@pytest.mark.parametrize("solver", [nm.ClosedForm(), nm.MatrixExponential(), nm.RungeKutta()], ids=lambda s: type(s).__name__)
def test_a_dose_with_an_impossible_property_is_no_number(field, solver):
    """Never a dose that silently goes missing, or a bolus in place of an infusion."""
    rate = {"lag": 0.0, "duration": -2.0, "rate": -1.0}[field]
    wrong = model(
        dynamics=nm.OneCompartment(), solver=solver, dosing=lambda self, p: {"central": nm.Dosing(**{field: -0.5 * p.V / 10})}
    )
    with pytest.raises(nm.DataError, match="is not a finite number"):
        nm.predict(wrong, RECORDS.assign(RATE=[rate, 0, 0, 0]))


def test_a_solve_that_gives_up_is_no_number():
    few = model(
        dynamics=lambda self, t, A, p: {"central": -p.CL * A.central / (p.V + A.central)}, solver=nm.RungeKutta(max_steps=2)
    )
    with pytest.raises(nm.DataError, match="is not a finite number"):
        nm.predict(few, RECORDS)


def saturable(solver):
    return model(
        CL=nm.LogNormal(8.0, iiv=1.5),
        dynamics=lambda self, t, A, p: {"central": -p.CL * A.central / (p.V + A.central)},
        solver=solver,
    )


def test_failed_solves_are_passed_over_counted_and_told():
    """Large trial clearances need more steps than allowed; the modes do not."""
    rng = np.random.default_rng(3)
    rows = []
    for who in range(1, 7):
        rows.append((who, 0.0, np.nan, 100.0, 1))
        rows += [(who, t, 8 * np.exp(-0.2 * t + 0.1 * rng.normal()), 0.0, 0) for t in (0.5, 2.0, 6.0)]
    data = pd.DataFrame(rows, columns=["ID", "TIME", "DV", "AMT", "EVID"])
    short, long = (nm.evaluate(saturable(nm.RungeKutta(max_steps=n)), data, nm.FOCE(interaction=True)) for n in (40, 5000))
    assert short.contributions["converged"].all()
    assert short.ofv == pytest.approx(long.ofv, abs=1e-4)
    assert "trial points of random effects, which were passed over" in str(short)
    assert "passed over" not in str(long)


class Cells(nm.Model):
    """A fast drug on slow cells: explicit steps run out where it is followed for long."""

    k = nm.LogNormal(40.0, iiv=0.5)
    slow = nm.LogNormal(0.02, iiv=0.2)

    def initial(self, p):
        return {"cells": 7.0}

    def dynamics(self, t, A, p):
        return {"drug": -p.k * A.drug + 0.1 * A.drug**2 / (1 + A.drug**2), "cells": p.slow * (7.0 / (1 + A.drug) - A.cells)}

    def observe(self, t, A, p):
        return {"wbc": A.cells}

    wbc = nm.Proportional(0.1)


def followed(who, last):
    amounts = {"AMT": [10.0, 0, 0], "CMT": [1, 2, 2], "DV": [np.nan, 7.0, 7.0]}
    return pd.DataFrame({"ID": who, "TIME": [0.0, last / 10, last], "EVID": [1, 0, 0], **amounts})


def test_one_subject_beyond_explicit_steps_among_many_that_are_not():
    frame = pd.concat([*(followed(k, 4.0) for k in range(2, 22)), followed(1, 6000.0)])
    alone = nm.predict(Cells(), followed(3, 4.0)).query("EVID == 0")["wbc"]
    shown = nm.predict(Cells(), frame).query("EVID == 0")
    np.testing.assert_allclose(shown.query("ID == 1")["wbc"], 7.0, rtol=1e-4)
    np.testing.assert_allclose(shown.query("ID == 3")["wbc"], alone, rtol=1e-5)


def test_subjects_whom_their_random_effects_make_stiff():
    """At eta = 0 explicit steps do; at a subject's own they don't."""

    class Slow(Cells):
        k = nm.LogNormal(2.0, iiv=0.5)

    frame = pd.concat([followed(1, 1000.0), followed(2, 1000.0)])
    eta = {1: {"k": 0.0, "slow": 0.0}, 2: {"k": 6.0, "slow": 0.0}}
    np.testing.assert_allclose(nm.predict(Slow(), frame, eta).query("EVID == 0")["wbc"].iloc[-1], 7.0, rtol=1e-4)
    table = pd.DataFrame.from_dict(eta, orient="index")
    shown = nm.simulate(Slow(), subjects=frame, eta=table, residual=False, progress=False).frame()
    np.testing.assert_allclose(shown["wbc"].iloc[-1], 7.0, rtol=1e-4)


def test_a_message_names_the_steps():
    class Few(Cells):
        solver = nm.RungeKutta(max_steps=50)

    for call in (nm.predict, lambda model, data: nm.evaluate(model, data, nm.Laplace())):
        with pytest.raises(nm.DataError, match="max_steps=50"):
            call(Few(), followed(1, 400.0))
