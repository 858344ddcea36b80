"""Published runs as models of ours, with the map from NONMEM's parameters to ours.

Each `Case` says how a run's recorded parameters (THETA1, OMEGA(1,1), SIGMA(1,1): variances) become ours (sds, correlations).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from models import (
    Bauer402,
    Bauer504,
    Decay,
    DecayModified,
    Pheno,
    PhenoBase,
    TheophyllineBlock,
    TheophyllineSex,
    TheophyllineSexFO,
    WarfarinPK,
)

import nlmefit as nm

WANG = {
    "prop": Decay(),
    "add": Decay(y=nm.Additive(0.1**0.5)),
    "pow0.5": Decay(y=nm.PowerError(0.1**0.5, exponent=nm.Fixed(0.5))),
    "add+prop combined2": Decay(y=nm.Additive(0.1**0.5) + nm.Proportional(0.1**0.5)),
    "add+prop combined1": Decay(y=nm.CombinedSD(0.1**0.5, 0.1**0.5)),
    "propMod(sd=f*f2)": DecayModified(),
    "propF(sd=sqrt.1*f2)": DecayModified(scale=nm.Theta(0.1**0.5, fixed=True), power=nm.Theta(0.0, fixed=True)),
}


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
