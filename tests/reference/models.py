"""The published models as nlmefit models, with the map from NONMEM's parameters to ours.

Each `Case` says how a run's recorded parameters (THETA1, OMEGA(1,1), SIGMA(1,1): variances) become ours (sds, correlations).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np
from numpyro import distributions as dist

import nlmefit as nm


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


WANG = {
    "prop": Decay(),
    "add": Decay(y=nm.Additive(0.1**0.5)),
    "pow0.5": Decay(y=nm.PowerError(0.1**0.5, exponent=nm.Fixed(0.5))),
    "add+prop combined2": Decay(y=nm.Additive(0.1**0.5) + nm.Proportional(0.1**0.5)),
    "add+prop combined1": Decay(y=nm.CombinedSD(0.1**0.5, 0.1**0.5)),
    "propMod(sd=f*f2)": DecayModified(),
    "propF(sd=sqrt.1*f2)": DecayModified(scale=nm.Theta(0.1**0.5, fixed=True), power=nm.Theta(0.0, fixed=True)),
}


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


class Theophylline(nm.Model):
    """Oral theophylline, dose in mg, additive error."""

    ka = nm.LogNormal(1.5, iiv=0.6, unit="1/h")
    CL = nm.LogNormal(2.8, iiv=0.3, unit="L/h")
    V = nm.LogNormal(32.0, iiv=0.15, unit="L")
    dynamics = nm.OneCompartment(absorption="first-order")

    def observe(self, t, A, p):
        return {"conc": A.central / p.V}

    conc = nm.Additive(0.7, unit="mg/L")


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


Names = Mapping[str, str]


@dataclass(frozen=True)
class Case:
    """One published run: its model, method, data, and what NONMEM's parameters are called here.

    `names` maps "THETA1" to a parameter of ours, with "exp:" in front where NONMEM's is the log of ours (or, for a
    coefficient, "log:" where NONMEM's is the exponential).
    """

    case: str
    run: str
    model: nm.Model
    method: object
    names: Names
    etas: tuple[str, ...]
    residuals: Names
    columns: Names | None = None
    exact_start: bool = True

    def values(self, recorded: Mapping[str, float]) -> dict[str, float]:
        """Our values from recorded ones."""
        result = {}
        for theirs, ours in self.names.items():
            kind, name = ours.split(":") if ":" in ours else ("", ours)
            result[name] = {"exp": np.exp, "log": np.log, "": float}[kind](recorded[theirs])
        sd = [recorded[f"OMEGA({k},{k})"] ** 0.5 for k in range(1, len(self.etas) + 1)]
        for i, a in enumerate(self.etas):
            result[f"omega_{a}"] = sd[i]
            for j in range(i):
                name = f"corr_{self.etas[j]}_{a}"
                if name in self.model.values:
                    result[name] = recorded.get(f"OMEGA({i + 1},{j + 1})", 0.0) / (sd[i] * sd[j])
        for theirs, ours in self.residuals.items():
            result[ours] = recorded[theirs] ** 0.5 if theirs.startswith("SIGMA") else recorded[theirs]
        return result

    def standard_error(self, theirs: str, fit: nm.Fit) -> float | None:
        """Our standard error of one of NONMEM's parameters, on NONMEM's scale; None for one that is not ours."""
        if theirs in self.names:
            kind, name = self.names[theirs].split(":") if ":" in self.names[theirs] else ("", self.names[theirs])
            factor = {"exp": 1 / fit.estimates[name], "log": np.exp(fit.estimates[name]), "": 1.0}[kind]
            return fit.standard_errors[name] * factor
        if theirs in self.residuals:
            name = self.residuals[theirs]
            return fit.standard_errors[name] * (2 * fit.estimates[name] if theirs.startswith("SIGMA") else 1.0)
        i, j = (int(k) - 1 for k in theirs.removeprefix("OMEGA(").removesuffix(")").split(","))
        return float(_covariance_se(self.etas, i, j, fit))


def _covariance_se(etas: tuple[str, ...], i: int, j: int, fit: nm.Fit) -> float:
    """Delta method for Omega[i, j] = corr sd_i sd_j."""
    a, b = f"omega_{etas[i]}", f"omega_{etas[j]}"
    gradient = dict.fromkeys(fit.estimates.index, 0.0)
    if i == j:
        gradient[a] = 2 * fit.estimates[a]
    else:
        corr = f"corr_{etas[j]}_{etas[i]}"
        gradient[corr] = fit.estimates[a] * fit.estimates[b]
        gradient[a] = fit.estimates[corr] * fit.estimates[b]
        gradient[b] = fit.estimates[corr] * fit.estimates[a]
    g = np.array(list(gradient.values()))
    return np.sqrt(g @ fit.covariance.to_numpy() @ g)


PROPORTIONAL = {"SIGMA(1,1)": "conc_proportional"}
FOCEI = nm.FOCE(interaction=True)

_BAUER504 = {
    "THETA1": "exp:CL", "THETA2": "exp:V", "THETA3": "beta_CL_WT", "THETA4": "beta_V_WT", "THETA5": "beta_CL_AGE",
    "THETA6": "beta_V_AGE", "THETA7": "beta_CL_SEX", "THETA8": "beta_V_SEX",
}  # fmt: skip
_BAUER504_NATURAL = {
    **_BAUER504, "THETA1": "CL", "THETA2": "V", "THETA7": "log:beta_CL_SEX", "THETA8": "log:beta_V_SEX",
}  # fmt: skip


def _reduced() -> nm.Model:
    weight, sex = nm.Power("WT", reference=70, exponent=0.75, fixed=True), nm.Exponential("SEX", fixed=True)
    cl = [weight, nm.Power("AGE", reference=50), sex]
    v = [nm.Power("WT", reference=70, exponent=1, fixed=True), nm.Power("AGE", reference=50, fixed=True), sex]
    return Bauer504(CL=nm.LogNormal(2.0, iiv=0.3, covariates=cl), V=nm.LogNormal(20.0, iiv=0.3, covariates=v))


CASES = [
    Case("pheno_real", "FOCEI", Pheno(), FOCEI, {"THETA1": "CL", "THETA2": "V", "THETA3": "apgar"}, ("CL", "V"), PROPORTIONAL),
    Case("pheno_base", "FOCEI", PhenoBase(), FOCEI, {"THETA1": "CL", "THETA2": "V"}, ("CL", "V"), PROPORTIONAL),
    Case("pheno_base", "FO", PhenoBase(), nm.FO(), {"THETA1": "CL", "THETA2": "V"}, ("CL", "V"), PROPORTIONAL),
    Case("wang2007_residuals", "FOCEI (fit, prop error)", Decay(), FOCEI, {"THETA1": "ke"}, ("ke",), {"THETA2": "y_proportional"},
         exact_start=False),
    Case("theopp_fo_block3", "FO", TheophyllineBlock(), nm.FO(), {"THETA1": "ka", "THETA2": "K", "THETA3": "slope"},
         ("ka", "K", "slope"), {"SIGMA(1,1)": "conc_additive"}, {"DOSE": "AMT", "CP": "DV"}),
    Case("bauer402_2cmt_iv", "FOCEI", Bauer402(), FOCEI, {"THETA1": "V1", "THETA2": "CL", "THETA3": "V2", "THETA4": "Q"},
         ("V1", "CL", "V2", "Q"), PROPORTIONAL),
    Case("bauer504_1cmt_cov", "FOCEI", Bauer504(), FOCEI, _BAUER504, ("CL", "V"), PROPORTIONAL),
    Case("bauer504_1cmt_cov", "FOCEI-natural-scale", Bauer504(), FOCEI, _BAUER504_NATURAL, ("CL", "V"), PROPORTIONAL),
    Case("bauer504_1cmt_cov", "FOCEI with TH3=.75,TH4=1,TH6=0,TH7=TH8=1 fixed", _reduced(), FOCEI, _BAUER504_NATURAL, ("CL", "V"),
         PROPORTIONAL),
    Case("warfarin_pk", "FOCEI", WarfarinPK(), FOCEI, {"THETA1": "exp:ka", "THETA2": "exp:CL", "THETA3": "exp:V"},
         ("ka", "CL", "V"), {"THETA4": "cp_proportional", "THETA5": "cp_additive"}),
]  # fmt: skip
"""Runs with a recorded start, objective there, optimum, estimates and (mostly) standard errors and per-subject values."""


SEX_START = {"ka": 2.77, "K": 0.0781, "slope": 0.0363, "ka_other": 1.5}
SEX_THETA = {"KA(SEX=0)": "ka", "K": "K", "SLP": "slope", "KA(SEX=1)": "ka_other"}
ADD, BOTH = nm.Additive(0.388**0.5), nm.Additive(0.388**0.5) + nm.Proportional(0.3**0.5)
SEX_RUNS: dict[str, tuple[nm.Model, object]] = {
    "FO (OMEGA full block 3)": (TheophyllineSexFO(), nm.FO()),
    "FOCE (no interaction), additive": (TheophyllineSex(), nm.FOCE()),
    "FOCEI, add+prop": (TheophyllineSex(conc=BOTH), FOCEI),
    "FOCE (no interaction), add+prop": (TheophyllineSex(conc=BOTH), nm.FOCE()),
    "LAPLACE (no interaction), additive": (TheophyllineSex(), nm.Laplace(interaction=False)),
    "LAPLACE INTERACTION, add+prop": (TheophyllineSex(conc=BOTH), nm.Laplace()),
}
Evaluate = Callable[..., nm.Fit]
