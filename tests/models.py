"""The models of the tests: examples on shipped or simulated data, and those of published runs."""

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pandas as pd
from numpyro import distributions as dist

import nlmefit as nm

DATASETS = Path(__file__).parents[1] / "datasets"


class Theophylline(nm.Model):
    """One compartment, first-order absorption, additive error."""

    ka = nm.LogNormal(1.5, iiv=0.6, unit="1/h")
    CL = nm.LogNormal(2.8, iiv=0.3, unit="L/h")
    V = nm.LogNormal(32.0, iiv=0.15, unit="L")
    dynamics = nm.OneCompartment(absorption="first-order")

    def observe(self, t, A, p):
        return {"conc": A.central / p.V}

    conc = nm.Additive(0.7, unit="mg/L")


class TheophyllineZeroOrder(nm.Model):
    """Zero-order absorption with a lag, correlated CL and V, combined error.

    Tk0 has no random effect: the density has a kink in it wherever the input ends at an observation time."""

    Tk0 = nm.Theta(1.8, lower=0, unit="h")
    tlag = nm.Theta(0.1, lower=0, upper=0.24, unit="h")
    CL = nm.LogNormal(2.8, iiv=0.3, unit="L/h")
    V = nm.LogNormal(32.0, iiv=0.15, unit="L")
    omega = nm.Blocks("CL V")
    dynamics = nm.OneCompartment(absorption="zero-order")

    def dosing(self, p):
        return {"central": nm.Dosing(lag=p.tlag)}

    def observe(self, t, A, p):
        return {"conc": A.central / p.V}

    conc = nm.Proportional(0.1) + nm.Additive(0.5)


class Indomethacin(nm.Model):
    """Two compartments, bolus, proportional error."""

    CL = nm.LogNormal(8.0, iiv=0.2, unit="L/h")
    V1 = nm.LogNormal(8.0, iiv=0.3, unit="L")
    Q = nm.LogNormal(7.0, iiv=0.3, unit="L/h")
    V2 = nm.LogNormal(18.0, iiv=0.3, unit="L")
    dynamics = nm.TwoCompartment()

    def observe(self, t, A, p):
        return {"conc": A.central / p.V1}

    conc = nm.Proportional(0.15)


class Phenobarbital(nm.Model):
    """One compartment, many doses, weight and a step in the Apgar score by `individual`."""

    CL = nm.LogNormal(0.005, iiv=0.2)
    V = nm.LogNormal(1.0, iiv=0.2)
    apgar = nm.Theta(0.1)
    dynamics = nm.OneCompartment()

    def individual(self, theta, eta, x):
        return {
            "CL": theta.CL * x.WT * jnp.exp(eta.CL),
            "V": theta.V * x.WT * (1 + theta.apgar * (x.APGAR < 5)) * jnp.exp(eta.V),
        }

    def observe(self, t, A, p):
        return {"conc": A.central / p.V}

    conc = nm.Proportional(0.12)


class PhenobarbitalCovariates(nm.Model):
    """The same with declared covariate effects of every kind and a full block."""

    CL = nm.LogNormal(0.007, iiv=0.2, covariates=[nm.Power("WT", reference=1.5, exponent=0.9)])
    V = nm.LogNormal(
        1.4,
        iiv=0.2,
        covariates=[nm.Power("WT", reference=1.5, exponent=1, fixed=True), nm.Linear("APGAR", reference=7, value=-0.02)],
    )
    omega = nm.Blocks("CL V")
    dynamics = nm.OneCompartment()

    def observe(self, t, A, p):
        return {"conc": A.central / p.V}

    conc = nm.CombinedSD(nm.Fixed(0.5), 0.1)


class Remifentanil(nm.Model):
    """Three compartments, infusion, power error."""

    CL = nm.LogNormal(2.5, iiv=0.2)
    V1 = nm.LogNormal(5.0, iiv=0.3)
    Q2 = nm.LogNormal(2.0, iiv=0.3)
    V2 = nm.LogNormal(9.0)
    Q3 = nm.LogNormal(0.1)
    V3 = nm.LogNormal(5.0)
    dynamics = nm.ThreeCompartment()

    def observe(self, t, A, p):
        return {"conc": A.central / p.V1}

    conc = nm.PowerError(0.2, exponent=nm.Fixed(0.9))


class Fraction(nm.Model):
    """A bounded individual parameter: f = 10 (1 - Emax t / (t + 2)), Emax logit-normal, base normal."""

    Emax = nm.LogitNormal(0.7, iiv=0.8)
    base = nm.Normal(10.0, iiv=1.5)

    def observe(self, t, A, p):
        return {"y": p.base * (1 - p.Emax * t / (t + 2))}

    y = nm.Additive(0.5)


class Counts(nm.Model):
    """Poisson counts with a dose covariate: the density itself, no residual model."""

    rate = nm.LogNormal(3.0, iiv=0.5)
    ed50 = nm.Theta(0.5, lower=0)

    def observe(self, t, A, p):
        return {"count": dist.Poisson(p.rate * (1 - p.DOSE / (p.DOSE + p.ed50)) + 0.0 * t)}


class PKPD(nm.Model):
    """Two endpoints: concentration, and a direct effect with proportional error."""

    CL = nm.LogNormal(4.0, iiv=0.3)
    V = nm.LogNormal(70.0, iiv=0.3)
    ka = nm.LogNormal(1.0, iiv=0.3)
    E0 = nm.LogNormal(20.0, iiv=0.2)
    EC50 = nm.Theta(0.5, lower=0)
    dynamics = nm.OneCompartment(absorption="first-order")

    def observe(self, t, A, p):
        conc = A.central / p.V
        return {"cp": conc, "effect": p.E0 * (1 - conc / (p.EC50 + conc))}

    cp = nm.Proportional(0.2)
    effect = nm.Additive(1.0)


class Turnover(nm.Model):
    """Oral drug with saturable elimination, indirect response: differential equations, lag, initial amounts by parameters."""

    ka = nm.LogNormal(1.2, iiv=0.3)
    tlag = nm.Theta(0.3, lower=0)
    Vmax = nm.LogNormal(8.0, iiv=0.2)
    Km = nm.Theta(1.5, lower=0)
    V = nm.Theta(20.0, lower=0)
    base = nm.LogNormal(50.0, iiv=0.2)
    kout = nm.Theta(0.2, lower=0)
    EC50 = nm.LogNormal(2.0, iiv=0.3)

    def dosing(self, p):
        return {"depot": nm.Dosing(lag=p.tlag)}

    def initial(self, p):
        return {"response": p.base}

    def dynamics(self, t, A, p):
        conc = A.central / p.V
        return {
            "depot": -p.ka * A.depot,
            "central": p.ka * A.depot - p.Vmax * conc / (p.Km + conc),
            "response": p.kout * (p.base * p.EC50 / (p.EC50 + conc) - A.response),
        }

    def observe(self, t, A, p):
        return {"conc": A.central / p.V, "pca": A.response}

    conc = nm.Proportional(0.15) + nm.Additive(0.1)
    pca = nm.Additive(3.0)


class TheophyllineOccasions(Theophylline):
    """Clearance and absorption vary between the day and the night."""

    ka = nm.LogNormal(1.5, iiv=0.6, iov=0.2)
    CL = nm.LogNormal(2.8, iiv=0.3, iov=0.15)
    occasion = "NIGHT"


class TheophyllineGrowing(Theophylline):
    """A weight that changes in time."""

    CL = nm.LogNormal(2.8, iiv=0.3, covariates=[nm.Power("WEIGHT", reference=70, exponent=0.75)])


class TheophyllineWritten(nm.Model):
    """The equations written out: linear, so solved by the matrix exponential."""

    ka = nm.LogNormal(1.5, iiv=0.6)
    CL = nm.LogNormal(2.8, iiv=0.3)
    V = nm.LogNormal(32.0, iiv=0.15)

    def dynamics(self, t, A, p):
        return {"depot": -p.ka * A.depot, "central": p.ka * A.depot - p.CL / p.V * A.central}

    def observe(self, t, A, p):
        return {"conc": A.central / p.V}

    conc = nm.Additive(0.7)


# ---- of published runs ------------------------------------------------------------------------------------------------


class Pheno(nm.Model):
    """Phenobarbital in neonates with covariates."""

    CL = nm.LogNormal(0.005, iiv=0.2)
    V = nm.LogNormal(1.0, iiv=0.2)
    apgar = nm.Theta(0.1)
    dynamics = nm.OneCompartment()

    def individual(self, theta, eta, x):
        return {
            "CL": theta.CL * x.WGT * jnp.exp(eta.CL),
            "V": theta.V * x.WGT * (1 + theta.apgar * (x.APGR < 5)) * jnp.exp(eta.V),
        }

    def observe(self, t, A, p):
        return {"conc": A.central / p.V}

    conc = nm.Proportional(0.1)


class PhenoBase(nm.Model):
    """The same without covariates."""

    CL = nm.LogNormal(0.005, iiv=0.2)
    V = nm.LogNormal(1.0, iiv=0.2)
    dynamics = nm.OneCompartment()

    def observe(self, t, A, p):
        return {"conc": A.central / p.V}

    conc = nm.Proportional(0.1)


class Decay(nm.Model):
    """f = 10 exp(-ke t) (Wang 2007), proportional error."""

    ke = nm.LogNormal(0.5, iiv=0.2)

    def observe(self, t, A, p):
        return {"y": 10 * jnp.exp(-p.ke * t)}

    y = nm.Proportional(0.1**0.5)


class DecayT(nm.Model):
    """The same with Student-t residuals, 30 degrees of freedom."""

    ke = nm.LogNormal(0.5, iiv=0.2)

    def observe(self, t, A, p):
        f = 10 * jnp.exp(-p.ke * t)
        return {"y": dist.StudentT(30, f, f * 0.1**0.5)}


class DecayModified(nm.Model):
    """The same with a residual sd of scale * f^power * f / (f + 5), given as a distribution by `observe`."""

    ke = nm.LogNormal(0.5, iiv=0.2)
    scale = nm.Theta(1.0, fixed=True)
    power = nm.Theta(1.0, fixed=True)

    def observe(self, t, A, p):
        f = 10 * jnp.exp(-p.ke * t)
        return {"y": dist.Normal(f, p.scale * f**p.power * f / (f + 5))}


class TheophyllineBlock(nm.Model):
    """Theophylline with additive etas on ka, K and CL, full Omega (NONMEM's CONTROL5)."""

    ka = nm.Normal(3.0, iiv=2.0)
    K = nm.Normal(0.08, iiv=0.01)
    slope = nm.Normal(0.04, iiv=0.6)
    omega = nm.Blocks("ka K slope")
    dynamics = nm.OneCompartment(absorption="first-order")

    def individual(self, theta, eta, x):
        CL, K = theta.slope * x.WT + eta.slope, theta.K + eta.K
        return {"ka": theta.ka + eta.ka, "CL": CL, "V": CL / K}

    def observe(self, t, A, p):
        return {"conc": A.central / (p.V / p.WT)}

    conc = nm.Additive(0.6)


class TheophyllineSexFO(nm.Model):
    """ka by sex, additive etas on ka, K and CL, full Omega."""

    ka = nm.Normal(2.77, iiv=5.55**0.5)
    K = nm.Normal(0.0781, iiv=0.0024**0.5)
    slope = nm.Normal(0.0363, iiv=0.515**0.5)
    ka_other = nm.Theta(1.5, lower=0.1, upper=5)
    omega = nm.Blocks("ka K slope")
    dynamics = nm.OneCompartment(absorption="first-order")

    def individual(self, theta, eta, x):
        CL, K = theta.slope * x.WT + eta.slope, theta.K + eta.K
        ka = jnp.where(x.SEX == 0, theta.ka, theta.ka_other) + eta.ka
        return {"ka": ka, "CL": CL, "V": CL / K}

    def observe(self, t, A, p):
        return {"conc": A.central / (p.V / p.WT)}

    conc = nm.Additive(0.388**0.5)


class TheophyllineSex(nm.Model):
    """ka by sex, additive etas on ka and CL."""

    ka = nm.Normal(2.77, iiv=5.55**0.5)
    slope = nm.Normal(0.0363, iiv=0.515**0.5)
    ka_other = nm.Theta(1.5, lower=0.1, upper=5)
    K = nm.Theta(0.0781, lower=0.0008, upper=0.5)
    dynamics = nm.OneCompartment(absorption="first-order")

    def individual(self, theta, eta, x):
        CL = theta.slope * x.WT + eta.slope
        ka = jnp.where(x.SEX == 0, theta.ka, theta.ka_other) + eta.ka
        return {"ka": ka, "CL": CL, "V": CL / theta.K}

    def observe(self, t, A, p):
        return {"conc": A.central / (p.V / p.WT)}

    conc = nm.Additive(0.388**0.5)


class TheophyllineSexDeclared(nm.Model):
    """The same with both errors and declared effects: ka by sex is ka exp(beta), slope WT is CL WT / 70."""

    ka = nm.Normal(2.77, iiv=5.55**0.5, covariates=[nm.Exponential("SEX", value=-0.6)])
    CL = nm.Normal(2.54, iiv=0.515**0.5, covariates=[nm.Power("WT", reference=70, exponent=1, fixed=True)])
    K = nm.Theta(0.0781, lower=0.0008, upper=0.5)

    def dynamics(self, t, A, p):
        return {"depot": -p.ka * A.depot, "central": p.ka * A.depot - p.K * A.central}

    def observe(self, t, A, p):
        return {"conc": A.central * p.K / p.CL * p.WT}

    conc = nm.Additive(0.388**0.5) + nm.Proportional(0.3**0.5)


class Bauer402(nm.Model):
    """Two compartments, bolus, proportional error."""

    V1 = nm.LogNormal(9.8, iiv=0.1)
    CL = nm.LogNormal(3.7, iiv=0.1)
    V2 = nm.LogNormal(8.6, iiv=0.1)
    Q = nm.LogNormal(31.0, iiv=0.1)
    dynamics = nm.TwoCompartment()

    def observe(self, t, A, p):
        return {"conc": A.central / p.V1}

    conc = nm.Proportional(0.1)


_COVARIATES = [nm.Power("WT", reference=70), nm.Power("AGE", reference=50), nm.Exponential("SEX")]


class Bauer504(nm.Model):
    """One compartment, bolus or infusion, six covariate effects, correlated CL and V."""

    CL = nm.LogNormal(2.0, iiv=0.3, covariates=_COVARIATES)
    V = nm.LogNormal(20.0, iiv=0.3, covariates=_COVARIATES)
    omega = nm.Blocks("CL V")
    dynamics = nm.OneCompartment()

    def observe(self, t, A, p):
        return {"conc": A.central / p.V}

    conc = nm.Proportional(0.2)


class WarfarinPK(nm.Model):
    """Oral warfarin, one compartment, combined error."""

    ka = nm.LogNormal(1.0, iiv=1.0)
    CL = nm.LogNormal(0.1, iiv=1.0)
    V = nm.LogNormal(8.0, iiv=1.0)
    dynamics = nm.OneCompartment(absorption="first-order")

    def observe(self, t, A, p):
        return {"cp": A.central / p.V}

    cp = nm.Proportional(0.2) + nm.Additive(0.5)


class WarfarinLag(nm.Model):
    """Oral warfarin with a lag time, sds of the error that add."""

    tlag = nm.LogNormal(0.8, iiv=0.5)
    ka = nm.LogNormal(1.3, iiv=0.7)
    V = nm.LogNormal(8.0, iiv=0.2)
    CL = nm.LogNormal(0.13, iiv=0.3)
    dynamics = nm.OneCompartment(absorption="first-order")

    def dosing(self, p):
        return {"depot": nm.Dosing(lag=p.tlag)}

    def observe(self, t, A, p):
        return {"cp": A.central / p.V}

    cp = nm.CombinedSD(0.3, 0.1)


class PanelIV(nm.Model):
    """One compartment, bolus or infusion, proportional error."""

    CL = nm.LogNormal(np.exp(1.6), iiv=0.1**0.5)
    V = nm.LogNormal(np.exp(4.5), iiv=0.1**0.5)
    dynamics = nm.OneCompartment()

    def observe(self, t, A, p):
        return {"conc": A.central / p.V}

    conc = nm.Proportional(0.3)


class PanelOral(nm.Model):
    """One compartment, first-order absorption, proportional error."""

    CL = nm.LogNormal(np.exp(1.6), iiv=0.1**0.5)
    V = nm.LogNormal(np.exp(4.5), iiv=0.1**0.5)
    ka = nm.LogNormal(np.exp(0.2), iiv=0.1**0.5)
    dynamics = nm.OneCompartment(absorption="first-order")

    def observe(self, t, A, p):
        return {"conc": A.central / p.V}

    conc = nm.Proportional(0.3)


# ---- models with data -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Example:
    name: str
    model: nm.Model
    data: pd.DataFrame
    gaussian: bool = True


def _shipped(name: str, subjects: int | None = None) -> pd.DataFrame:
    data = pd.read_csv(DATASETS / f"{name}.csv")
    return data if subjects is None else data[data["ID"].isin(data["ID"].unique()[:subjects])]


def _fraction() -> pd.DataFrame:
    rng = np.random.default_rng(5)
    rows = []
    for i in range(15):
        emax, base = 1 / (1 + np.exp(-(0.8 + 0.8 * rng.normal()))), 10 + 1.5 * rng.normal()
        for t in (0.5, 1.0, 2.0, 4.0, 8.0):
            rows.append((i + 1, t, base * (1 - emax * t / (t + 2)) + 0.5 * rng.normal()))
    return pd.DataFrame(rows, columns=["ID", "TIME", "DV"])


def _counts() -> pd.DataFrame:
    rng = np.random.default_rng(6)
    rows = []
    for i in range(12):
        rate = 3 * np.exp(0.5 * rng.normal())
        for t in range(6):
            dose = float(t // 2)
            rows.append((i + 1, t, rng.poisson(rate * (1 - dose / (dose + 0.5))), dose))
    return pd.DataFrame(rows, columns=["ID", "TIME", "DV", "DOSE"])


def _pkpd() -> pd.DataFrame:
    rng = np.random.default_rng(7)
    rows = []
    for i in range(10):
        CL, V, ka, E0 = np.array([4.0, 70.0, 1.0, 20.0]) * np.exp([0.3, 0.3, 0.3, 0.2] * rng.normal(size=4))
        k = CL / V
        rows.append((i + 1, 0.0, np.nan, 100.0, 1, 1))
        for t in (0.5, 1.0, 2.0, 4.0, 8.0, 12.0, 24.0):
            conc = 100 * ka / V / (ka - k) * (np.exp(-k * t) - np.exp(-ka * t))
            rows.append((i + 1, t, conc * (1 + 0.2 * rng.normal()), 0.0, 0, 1))
            rows.append((i + 1, t, E0 * (1 - conc / (0.5 + conc)) + rng.normal(), 0.0, 0, 2))
    return pd.DataFrame(rows, columns=["ID", "TIME", "DV", "AMT", "EVID", "DVID"])


def _turnover() -> pd.DataFrame:
    """Every other subject gets a second dose, and an infusion into the central compartment."""
    rng = np.random.default_rng(8)
    rows: list[tuple[float, ...]] = []
    for i in range(1, 7):
        rows.append((i, 0.0, np.nan, 100.0, 1, 1, 1, 0.0))
        if i % 2:
            rows += [(i, 6.0, np.nan, 80.0, 1, 1, 1, 0.0), (i, 10.0, np.nan, 30.0, 1, 2, 1, 2.0)]
        for t in (1.0, 2.0, 4.0, 8.0, 12.0, 24.0):
            conc = 5 * np.exp(-0.15 * t) * (1 + 0.15 * rng.normal()) * (1 - np.exp(-1.2 * t))
            rows.append((i, t, conc, 0.0, 0, 1, 1, 0.0))
            rows.append((i, t, 50 - 6 * conc + 3 * rng.normal(), 0.0, 0, 1, 2, 0.0))
    frame = pd.DataFrame(rows, columns=["ID", "TIME", "DV", "AMT", "EVID", "CMT", "DVID", "DUR"])
    return frame.sort_values(["ID", "TIME"], kind="stable")


def _by_time() -> pd.DataFrame:
    """Theophylline with columns that change in time."""
    data = _shipped("theophylline", 6)
    return data.assign(NIGHT=(data["TIME"] > 6) * 1, WEIGHT=70 + data["TIME"])


@cache
def examples() -> dict[str, Example]:
    """All examples by name."""
    found = [
        Example("theophylline", Theophylline(), _shipped("theophylline")),
        Example("zero-order", TheophyllineZeroOrder(), _shipped("theophylline")),
        Example("indomethacin", Indomethacin(), _shipped("indomethacin")),
        Example("phenobarbital", Phenobarbital(), _shipped("phenobarbital", 20)),
        Example("covariates", PhenobarbitalCovariates(), _shipped("phenobarbital", 20)),
        Example("remifentanil", Remifentanil(), _shipped("remifentanil", 6)),
        Example("fraction", Fraction(), _fraction()),
        Example("counts", Counts(), _counts(), gaussian=False),
        Example("pkpd", PKPD(), _pkpd()),
        Example("turnover", Turnover(), _turnover()),
        Example("occasions", TheophyllineOccasions(), _by_time()),
        Example("growing", TheophyllineGrowing(), _by_time()),
        Example("written", TheophyllineWritten(), _shipped("theophylline", 6)),
    ]
    return {e.name: e for e in found}
