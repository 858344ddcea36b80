"""Neural parts of a model: the function itself, its weights as population parameters, and what tables and equations show."""

from itertools import pairwise

import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from numpyro import distributions as dist

import nlmefit as nm


class Elimination(nm.Model):
    """A clearance that a network makes depend on the concentration."""

    V = nm.LogNormal(20.0, iiv=0.2, unit="L")
    CL = nm.LogNormal(2.0, iiv=0.3, unit="L/h")
    g = nm.Network(inputs=1, width=3)

    def dynamics(self, t, A, p):
        c = A.central / p.V
        return {"central": -p.CL * jnp.exp(p.g(c / 5)) * c}

    def observe(self, t, A, p):
        return {"conc": A.central / p.V}

    conc = nm.Proportional(0.1)


class Curve(nm.Model):
    """A curve in time and weight, of two outputs."""

    z = nm.Normal(0.0, iiv=nm.Fixed(1.0), fixed=True)
    g = nm.Network(inputs=3, outputs=2, width=2, depth=2, activation="softplus", prior=dist.Normal(0.0, 2.0))

    def observe(self, t, A, p):
        level, slope = p.g(t / 10, p.WT / 70, p.z)
        return {"y": level + slope * t}

    y = nm.Additive(0.5)


def perceptron(weights, x, sizes, activation):
    """The textbook's formula on numbers: layers as matrix by rows, then constants."""
    for layer, (n, m) in enumerate(pairwise(sizes)):
        matrix, constants, weights = weights[: n * m].reshape(m, n), weights[n * m : n * m + m], weights[n * m + m :]
        x = matrix @ x + constants
        x = activation(x) if layer < len(sizes) - 2 else x
    assert len(weights) == 0
    return x


def test_the_function_is_a_multilayer_perceptron():
    names = [name for name in Curve().values if name.startswith("g_")]
    weights = np.random.default_rng(1).normal(size=len(names))
    assert len(names) == (3 * 2 + 2) + (2 * 2 + 2) + (2 * 2 + 2)
    model = Curve().at(dict(zip(names, weights, strict=True)))
    data = pd.DataFrame({"ID": [1, 1, 2], "TIME": [0.0, 5.0, 7.0], "WT": [70.0, 70.0, 50.0]})
    eta = pd.DataFrame({"z": [0.3, -1.2]}, index=[1, 2])
    found = nm.predict(model, data, eta=eta)["y"]
    for value, t, weight, z in zip(found, data["TIME"], data["WT"], [0.3, 0.3, -1.2], strict=True):
        level, slope = perceptron(weights, np.array([t / 10, weight / 70, z]), (3, 2, 2, 2), lambda x: np.log1p(np.exp(x)))
        assert value == pytest.approx(level + slope * t, abs=1e-10)


def test_it_starts_near_zero_and_by_its_seed():
    start = nm.predict(Elimination(), dosed(2), eta=None)["conc"]

    class Plain(nm.Model):
        V, CL = nm.LogNormal(20.0, iiv=0.2), nm.LogNormal(2.0, iiv=0.3)
        dynamics = nm.OneCompartment()

        def observe(self, t, A, p):
            return {"conc": A.central / p.V}

        conc = nm.Proportional(0.1)

    plain = nm.predict(Plain(), dosed(2), eta=None)["conc"]
    np.testing.assert_allclose(start, plain, rtol=0.35)
    assert not np.allclose(start, plain, rtol=1e-4)
    other = Elimination(g=nm.Network(inputs=1, width=3, seed=1))
    assert Elimination().values == Elimination().values
    assert Elimination().values["g_1"] != other.values["g_1"]


def test_models_with_other_activations_are_other_models():
    """Their weights may be equal one by one; a program of one must not be used for the other."""
    weights = {name: 0.7 for name in Covariate().values if name.startswith("g_")}
    data = dosed(1).assign(WT=80.0)
    curves = [
        nm.predict(Covariate(g=nm.Network(1, width=2, activation=a)).at(weights), data)["conc"] for a in ("tanh", "softplus")
    ]
    assert not np.allclose(*curves, rtol=1e-3)


def dosed(subjects):
    """Three doses so different that saturation shows."""
    times = [0.5, 1.0, 2.0, 4.0, 8.0, 16.0]
    doses = pd.DataFrame({"ID": range(subjects), "TIME": 0.0, "AMT": [(50.0, 150.0, 400.0)[i % 3] for i in range(subjects)]})
    samples = pd.DataFrame({"ID": np.repeat(range(subjects), len(times)), "TIME": np.tile(times, subjects), "AMT": 0.0})
    rows = pd.concat([doses.assign(EVID=1), samples.assign(EVID=0)]).sort_values(["ID", "TIME"], kind="stable")
    return rows.reset_index(drop=True)


def test_equations_name_the_network_and_not_its_weights():
    text = Elimination().equations()
    assert "dA_central/dt = -CL·exp(g(A_central/V/5))·A_central/V" in text
    assert "g: 1 input, 1 layer of 3 tanh units, 1 output; weights g_1 to g_10" in text
    assert "g_1 " not in text.replace("weights g_1 to", "")
    assert "f = g_1(t/10, WT/70, z) + g_2(t/10, WT/70, z)·t" in Curve().equations()
    assert r"e^{\operatorname{g}\left(" in Elimination().latex()


class Covariate(nm.Model):
    """Clearance by a network of weight."""

    CL = nm.LogNormal(3.0, iiv=0.2, unit="L/h")
    V = nm.LogNormal(20.0, iiv=0.1, unit="L")
    g = nm.Network(inputs=1, width=2)
    dynamics = nm.OneCompartment()

    def individual(self, theta, eta, x):
        return {"CL": theta.CL * jnp.exp(theta.g((x.WT - 70) / 20) + eta.CL), "V": theta.V * jnp.exp(eta.V)}

    def observe(self, t, A, p):
        return {"conc": A.central / p.V}

    conc = nm.Proportional(0.1)


@pytest.fixture(scope="module")
def fitted():
    """Clearance has its largest value at 70 kg, which no power of weight can follow."""
    rng = np.random.default_rng(5)
    data = dosed(40).assign(WT=lambda d: 40 + 60 * d["ID"] / 39)
    WT = data.groupby("ID")["WT"].first().to_numpy()
    CL = 3 * np.exp(-(((WT - 70) / 25) ** 2) + 0.1 * rng.normal(size=40))
    V = 20 * np.exp(0.1 * rng.normal(size=40))
    dose = data.groupby("ID")["AMT"].first().to_numpy()
    i = data["ID"].to_numpy()
    conc = dose[i] / V[i] * np.exp(-CL[i] / V[i] * data["TIME"]) * (1 + 0.1 * rng.normal(size=len(data)))
    data = data.assign(DV=conc)
    return nm.fit(Covariate(), data, nm.MAP(nm.FOCE(interaction=True)), progress=False), data


def test_it_learns_what_no_power_can(fitted):
    fit, data = fitted
    assert fit.status, fit.status

    class Power(nm.Model):
        CL = nm.LogNormal(3.0, iiv=0.2, covariates=[nm.Power("WT", reference=70)])
        V = nm.LogNormal(20.0, iiv=0.1)
        dynamics = nm.OneCompartment()

        def observe(self, t, A, p):
            return {"conc": A.central / p.V}

        conc = nm.Proportional(0.1)

    power = nm.fit(Power(), data, nm.FOCE(interaction=True), progress=False)
    assert fit.ofv < power.ofv - 50
    assert fit.estimates["omega_CL"] < 0.16 < power.estimates["omega_CL"]
    weights = np.array([45.0, 70.0, 95.0])
    people = pd.DataFrame({"ID": [1, 2, 3], "WT": weights})
    typical = nm.simulate(fit, nm.Regimen(100.0), times=[5.0], covariates=people, subjects=3, eta="typical", progress=False)
    CL = -np.log(typical.frame()["conc"] * fit.estimates["V"] / 100) * fit.estimates["V"] / 5
    np.testing.assert_allclose(CL, 3 * np.exp(-(((weights - 70) / 25) ** 2)), rtol=0.12)


def test_tables_show_one_line_and_keep_the_weights(fitted, tmp_path):
    fit, _ = fitted
    text = str(fit)
    assert "network: 7 weights, g_1 to g_7, root mean square" in text
    assert "  g_3 " not in text
    assert "g_3" in fit.estimates and "g_3" in fit.summary().index
    assert list(fit.individual.columns) == ["CL", "V"]
    fit.save(tmp_path / "fit")
    assert str(nm.load(tmp_path / "fit")) == text
    again = nm.load(tmp_path / "fit", model=Covariate())
    assert again.model.values == pytest.approx(fit.model.values, rel=1e-12)
    page = nm.report(fit, tmp_path / "report.html").read_text(encoding="utf-8")
    assert "Network g: 7 weights" in page


def test_every_weight_has_the_prior_of_the_network():
    population = Curve().population()
    assert all(p.prior.scale == 2.0 for p in population.values() if p.kind == "network")
    assert all(p.prior is None for p in Elimination().population().values())


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"inputs": 0}, r"Network\(inputs=...\) must be a whole number from 1 up, got 0"),
        ({"inputs": 1, "outputs": 1.5}, r"Network\(outputs=...\) must be a whole number from 1 up, got 1.5"),
        ({"inputs": 1, "width": 0}, r"\(width=...\) must be a whole number from 1 up, got 0"),
        ({"inputs": 1, "activation": "tan"}, "must be one of tanh, relu"),
        ({"inputs": 1, "prior": 3.0}, "Network's prior must be a NumPyro distribution, got 3.0"),
        ({"inputs": 1, "seed": "a"}, r"Network\(seed=...\) must be a whole number, got 'a'"),
    ],
)
def test_options_out_of_range(options, said):
    with pytest.raises(nm.ModelError, match=said):
        nm.Network(**options)


def test_wrong_calls_are_told_when_the_class_is_defined():
    with pytest.raises(nm.ModelError, match="network `g` has 1 input, got 2"):

        class Two(nm.Model):
            g = nm.Network(inputs=1)

            def observe(self, t, A, p):
                return {"y": p.g(t, t)}

            y = nm.Additive(1.0)

    with pytest.raises(nm.ModelError, match="`g_2` is declared and is also a weight of the network `g`"):

        class Twice(nm.Model):
            g = nm.Network(inputs=1)
            g_2 = nm.Theta(1.0)

            def observe(self, t, A, p):
                return {"y": p.g(t) + p.g_2}

            y = nm.Additive(1.0)

    with pytest.raises(nm.ModelError, match=r"`g = Network` lacks its value"):

        class Forgotten(nm.Model):
            g = nm.Network

            def observe(self, t, A, p):
                return {"y": t}

            y = nm.Additive(1.0)


@pytest.mark.slow
def test_a_neural_clearance_finds_saturation():
    """As good as the mechanism that made the data: Michaelis and Menten's."""

    class Saturable(Elimination):
        g = nm.Theta(2.0, lower=0.0)

        def dynamics(self, t, A, p):
            c = A.central / p.V
            return {"central": -5 * p.CL * c / (p.g + c)}

    data = nm.simulate(Saturable(), subjects=dosed(30), residual=True, key=1, progress=False).frame()
    data = data.rename(columns={"conc": "DV"})[["ID", "TIME", "DV"]].query("DV > 0.05").assign(AMT=0.0, EVID=0)
    data = pd.concat([dosed(30).query("EVID == 1"), data]).sort_values(["ID", "TIME"], kind="stable")
    neural = nm.fit(Elimination(), data, nm.MAP(nm.FOCE(interaction=True)), progress=False)
    mechanism = nm.fit(Saturable(), data, nm.FOCE(interaction=True), progress=False)
    assert neural.status, neural.status
    assert neural.ofv < mechanism.ofv + 5
