"""Random effects that are a flow of normal ones: `nm.Flow`."""

from functools import cache

import jax
import numpy as np
import pandas as pd
import pytest
from scipy import integrate, stats

import nlmefit as nm
from nlmefit.population.random_effects import flowed

QUIET = {"progress": False}


class Level(nm.Model):
    """A level of each subject, seen with error."""

    level = nm.Normal(5.0, iiv=1.0)
    flow = nm.Flow("level")

    def observe(self, t, A, p):
        return {"y": p.level + 0 * t}

    y = nm.Additive(0.3)


class NormalLevel(nm.Model):
    level = nm.Normal(5.0, iiv=1.0)

    def observe(self, t, A, p):
        return {"y": p.level + 0 * t}

    y = nm.Additive(0.3)


class Decay(nm.Model):
    """Two parameters with a joint flow, one of them also between occasions."""

    A0 = nm.LogNormal(10.0, iiv=0.3)
    k = nm.LogNormal(0.1, iiv=0.4, iov=0.1)
    flow = nm.Flow("A0 k", order=2)
    occasion = "OCC"

    def observe(self, t, A, p):
        return {"y": p.A0 * jax.numpy.exp(-p.k * t)}

    y = nm.Additive(0.3)


class NormalDecay(nm.Model):
    A0 = nm.LogNormal(10.0, iiv=0.3)
    k = nm.LogNormal(0.1, iiv=0.4, iov=0.1)
    occasion = "OCC"

    def observe(self, t, A, p):
        return {"y": p.A0 * jax.numpy.exp(-p.k * t)}

    y = nm.Additive(0.3)


WEIGHTS = {f"flow_level_{k + 1}": w for k, w in enumerate((0.8, -0.7, 0.3, -0.2, 0.2, 0.1))}
JOINT = {"flow_A0_1": 0.5, "flow_A0_2": -0.6, "flow_k_1": -0.4, "flow_k_2": 0.5}
JOINT |= {"flow_k_A0_0": 0.7, "flow_k_A0_1": -0.5, "flow_k_A0_2": 0.8}


def effect(eta: np.ndarray, weights: dict[str, float], omega: float = 1.0) -> np.ndarray:
    order = len(weights)
    flow = nm.Flow("level", order=order)
    theta = {f"flow_level_{k}": weights[f"flow_level_{k}"] for k in range(1, order + 1)} | {"omega_level": omega}
    return np.asarray(flowed(flow, theta, {"level": np.asarray(eta)})["level"])


def mixture(size: int = 300, seed: int = 4) -> tuple[pd.DataFrame, np.ndarray]:
    """Three in ten subjects are lower by 2.2 (sds of 0.5), seen four times each."""
    rng = np.random.default_rng(seed)
    level = 5.0 + np.where(rng.random(size) < 0.3, -2.2, 0.0) + 0.5 * rng.normal(size=size)
    ids = np.repeat(np.arange(1, size + 1), 4)
    data = {"ID": ids, "TIME": np.tile(np.arange(4.0), size), "DV": level[ids - 1] + 0.3 * rng.normal(size=4 * size)}
    return pd.DataFrame(data), level


def two_occasions() -> pd.DataFrame:
    rng = np.random.default_rng(1)
    rows = [(i, t, 10 * np.exp(-0.1 * t) + rng.normal(), 1 + (t > 5)) for i in range(1, 9) for t in (0.0, 2.0, 6.0, 9.0)]
    return pd.DataFrame(rows, columns=["ID", "TIME", "DV", "OCC"])


def test_without_weights_it_is_the_normal_distribution() -> None:
    data, _ = mixture()
    for method in (nm.Laplace(), nm.FO()):
        flow, normal = (nm.evaluate(model, data, method) for model in (Level(), NormalLevel()))
        assert flow.ofv == pytest.approx(normal.ofv, abs=1e-9)
    occasions = two_occasions()
    flow, normal = (nm.evaluate(model, occasions, nm.FOCE(interaction=True)) for model in (Decay(), NormalDecay()))
    assert flow.ofv == pytest.approx(normal.ofv, abs=1e-9)


def test_mean_0_variance_omega_squared_and_monotone() -> None:
    def moment(power: int) -> float:
        found = integrate.quad(
            lambda x: float(effect(np.array([x]), WEIGHTS, 0.4)[0]) ** power * stats.norm.pdf(x), -9, 9, limit=200
        )
        return found[0]

    assert moment(1) == pytest.approx(0.0, abs=1e-9)
    assert moment(2) == pytest.approx(0.16, abs=1e-9)
    assert np.all(np.diff(effect(np.linspace(-6, 6, 1001), WEIGHTS)) > 0)
    skewed = effect(np.linspace(-3, 3, 7), {"flow_level_1": 1.0})
    assert skewed[-1] > -skewed[0]  # a positive first weight: skewed to the right


def test_moments_of_a_joint_flow() -> None:
    """Of both etas, by a product rule that knows nothing of the knots."""
    x, w = np.polynomial.hermite_e.hermegauss(80)
    a, b = (grid.ravel() for grid in np.meshgrid(x, x))
    weight = np.outer(w, w).ravel() / w.sum() ** 2
    flow, theta = nm.Flow("A0 k", order=2), {**JOINT, "omega_A0": 0.3, "omega_k": 0.4}
    found = jax.vmap(lambda a, b: flowed(flow, theta, {"A0": a, "k": b}))(a, b)
    for name, sd in (("A0", 0.3), ("k", 0.4)):
        values = np.asarray(found[name])
        assert weight @ values == pytest.approx(0.0, abs=1e-4)
        assert weight @ values**2 == pytest.approx(sd**2, rel=1e-3)
    assert abs(weight @ (np.asarray(found["A0"]) * np.asarray(found["k"]))) > 0.02  # they depend on each other


@pytest.mark.parametrize("method", [nm.FOCE(interaction=True), nm.Laplace()], ids=["FOCE", "Laplace"])
def test_the_gradient_is_that_of_central_differences(method: object) -> None:
    from nlmefit.estimate.modes.objective import Objective
    from nlmefit.estimate.problem import Problem
    from nlmefit.population.latent import PopulationModel

    model = Decay().at(JOINT)
    subjects = nm.Subjects.from_frame(two_occasions(), model)
    objective = Objective(Problem(PopulationModel.of(model, subjects), subjects), method)
    u = objective.coordinates.start()
    gradient = objective.contributions(u).gradient.sum(axis=0)
    step = 1e-5
    for k in range(len(u)):
        up, down = (float(objective.contributions(u + s * step * np.eye(len(u))[k]).value.sum()) for s in (1, -1))
        assert gradient[k] == pytest.approx((up - down) / (2 * step), rel=1e-5, abs=1e-5), objective.coordinates.names[k]


@cache
def fits() -> dict[str, nm.Fit]:
    data, _ = mixture()
    return {
        "normal": nm.fit(NormalLevel(), data, nm.Laplace(), **QUIET),
        "flow": nm.fit(Level(), data, nm.Laplace(), **QUIET),
    }


def test_a_mixed_population_is_found() -> None:
    """The distribution that the subjects came from, which the normal model misses; marginal likelihood tells."""
    data, level = mixture()
    found = {name: nm.log_marginal(fit, data, nm.Quadrature(nodes=30)) for name, fit in fits().items()}
    assert fits()["flow"].status
    assert found["flow"].value - found["normal"].value > 30.0  # 6 weights: AIC asks for 6
    distance = {name: stats.ks_2samp(drawn(fit), level).statistic for name, fit in fits().items()}
    assert distance["flow"] < 0.06 < 0.1 < distance["normal"], distance


def drawn(fit: nm.Fit) -> np.ndarray:
    """Levels of new subjects."""
    eta = np.random.default_rng(0).normal(size=20000)
    values = fit.estimates
    if "flow_level_1" not in values:
        return values["level"] + values["omega_level"] * eta
    return values["level"] + effect(eta, {n: v for n, v in values.items() if n.startswith("flow")}, values["omega_level"])


def test_flow_posteriors_find_the_same_distribution() -> None:
    data, _ = mixture(40)
    best = nm.fit(Level(), data, nm.Quadrature(nodes=15), start=fits()["flow"], **QUIET)
    found = nm.fit(Level(), data, nm.VI(family=nm.TriangularFlow(units=1), draws=100), start=fits()["flow"], **QUIET)
    value, other = (nm.log_marginal(fit, data, nm.Quadrature(nodes=30)).value for fit in (best, found))
    assert other == pytest.approx(value, abs=1.0)


@pytest.mark.parametrize("method", [nm.SAEM(), nm.ImportanceEM(), nm.ITS()], ids=lambda m: type(m).__name__)
def test_em_refuses_it(method: object) -> None:
    with pytest.raises(nm.MethodError, match=r"would learn the flow of level \(nm.Flow\) so slowly"):
        nm.fit(Level(), mixture(20)[0], method, **QUIET)


def test_new_subjects_are_drawn_from_it() -> None:
    model = Level().at(WEIGHTS)
    data, _ = mixture(3000)
    simulated = nm.simulate(model, subjects=data, times=[0.0], key=1, **QUIET).frame()["y"]
    assert simulated.mean() == pytest.approx(5.0, abs=4 / np.sqrt(3000))
    assert simulated.std() == pytest.approx(1.0, abs=4 / np.sqrt(2 * 3000) * 1.5)
    exact = 5.0 + effect(np.random.default_rng(2).normal(size=20000), WEIGHTS)
    assert stats.ks_2samp(simulated, exact).pvalue > 0.001


def test_it_is_printed_and_saved(tmp_path: object) -> None:
    fit = fits()["flow"]
    assert "level_i = level + omega_level·T_level(eta_level)" in Level().equations()
    assert r"\omega_{\mathrm{level}} \, T_{\mathrm{level}}(\eta_{\mathrm{level}})" in Level().latex()
    assert fit.omega_table().loc["level", "sd"] == pytest.approx(fit.estimates["omega_level"])
    fit.save(tmp_path / "flow.nlme")
    again = nm.load(tmp_path / "flow.nlme", model=Level())
    assert again.model.values == fit.model.values


def test_the_figure() -> None:
    figure = nm.plot.random_effects(fits()["flow"])
    line = figure.axes[0].get_lines()[0]
    area = np.trapezoid(line.get_ydata(), line.get_xdata())
    assert area == pytest.approx(1.0, abs=0.02)
    with pytest.raises(nm.NlmefitError, match=r"nm\.plot\.etas shows those"):
        nm.plot.random_effects(fits()["normal"])


def test_errors() -> None:
    for bad, message in (
        (lambda: nm.Flow(), "needs the parameters"),
        (lambda: nm.Flow("CL V", "CL"), "found twice: CL"),
        (lambda: nm.Flow("CL", order=0), r"Flow\(order=...\) must be a whole number from 1 up, got 0"),
        (lambda: type("Wrong", (NormalLevel,), {"flow": nm.Flow("lvel")}), "did you mean `level`"),
        (lambda: type("Wrong", (NormalLevel,), {"flow": "level"}), r"`flow` must be nm.Flow\(...\)"),
        (lambda: type("Wrong", (NormalDecay,), {"flow": nm.Flow("A0 k"), "omega": nm.Blocks("A0 k")}), "take them out of one"),
    ):
        with pytest.raises(nm.ModelError, match=message):
            bad()
