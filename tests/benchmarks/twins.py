"""The twins of `datasets/simulate_twins.py` as models, started where their data were simulated."""

import sys
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pandas as pd

import nlmefit as nm

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "datasets"))
from simulate_twins import ORGAN_FLOWS, ORGAN_VOLUMES, ORGANS, PARTITION, simulate


class Neutrophils(nm.Model):
    """Friberg's transit cells under a two-compartment drug; albumin changes from cycle to cycle."""

    CL = nm.LogNormal(35.0, iiv=0.3, covariates=[nm.Power("ALB", reference=37, exponent=0.8)])
    V1 = nm.LogNormal(15.0, iiv=0.3)
    Q = nm.Theta(20.0, lower=0)
    V2 = nm.Theta(100.0, lower=0)
    MTT = nm.LogNormal(90.0, iiv=0.2)
    BASE = nm.LogNormal(5.0, iiv=0.4)
    SLOPE = nm.LogNormal(0.4, iiv=0.4)
    GAMMA = nm.Theta(0.17, lower=0)

    def initial(self, p):
        return dict.fromkeys(("proliferating", "first", "second", "third", "circulating"), p.BASE)

    def dynamics(self, t, A, p):
        c, k = A.central / p.V1, 4.0 / p.MTT
        return {
            "central": -(p.CL + p.Q) * c + p.Q * A.peripheral / p.V2,
            "peripheral": p.Q * (c - A.peripheral / p.V2),
            "proliferating": k * A.proliferating * ((1 - p.SLOPE * c) * (p.BASE / A.circulating) ** p.GAMMA - 1),
            "first": k * (A.proliferating - A.first),
            "second": k * (A.first - A.second),
            "third": k * (A.second - A.third),
            "circulating": k * (A.third - A.circulating),
        }

    def observe(self, t, A, p):
        return {"conc": A.central / p.V1, "cells": A.circulating}

    conc = nm.Proportional(0.2) + nm.Additive(0.005)
    cells = nm.Proportional(0.25)


class TargetMediated(nm.Model):
    """Antibody, receptor, complex."""

    CL = nm.LogNormal(0.3, iiv=0.3)
    V = nm.LogNormal(3.0, iiv=0.2)
    KON = nm.LogNormal(50.0, iiv=0.3)
    KOFF = nm.LogNormal(5.0, iiv=0.3)
    KINT = nm.LogNormal(0.5, iiv=0.3)
    KDEG = nm.LogNormal(0.8, iiv=0.3)
    R0 = nm.LogNormal(2.0, iiv=0.4)
    LEAK = nm.LogNormal(0.05, iiv=0.3)
    omega = nm.Blocks("CL V KON KOFF KINT KDEG R0 LEAK")

    def initial(self, p):
        return {"receptor": p.R0}

    def dynamics(self, t, A, p):
        binding = p.KON * A.free * A.receptor - p.KOFF * A.bound
        return {
            "free": -p.CL / p.V * A.free - binding + p.LEAK * A.bound,
            "receptor": p.KDEG * (p.R0 - A.receptor) - binding,
            "bound": binding - (p.KINT + p.LEAK) * A.bound,
        }

    def observe(self, t, A, p):
        return {"conc": A.free / p.V, "receptor": A.receptor + A.bound}

    conc = nm.Proportional(0.15) + nm.Additive(0.005)
    receptor = nm.Proportional(0.15) + nm.Additive(0.005)


class Transit(nm.Model):
    """Gamma absorption on six occasions: 17 random effects."""

    CL = nm.LogNormal(18.0, iiv=0.25)
    V = nm.LogNormal(70.0, iiv=0.2)
    ka = nm.LogNormal(1.5, iiv=0.4, iov=0.3)
    mtt = nm.LogNormal(1.2, iiv=0.3, iov=0.3)
    n = nm.LogNormal(5.3, iiv=0.3)
    occasion = "OCC"
    dynamics = nm.OneCompartment(absorption=nm.Transit())

    def observe(self, t, A, p):
        return {"conc": A.central / p.V}

    conc = nm.Proportional(0.15) + nm.Additive(0.005)


class PBPK(nm.Model):
    """Thirteen perfusion-limited organs."""

    KA = nm.LogNormal(0.8, iiv=0.4)
    CLI = nm.LogNormal(25.0, iiv=0.3)
    CLR = nm.LogNormal(5.0, iiv=0.3)
    KP = nm.LogNormal(1.0, iiv=0.2)

    def dynamics(self, t, A, p):
        artery, vein, flows = A.artery / 1.7, A.vein / 3.9, np.array(ORGAN_FLOWS)
        organs = jnp.stack([A[name] for name in ORGANS])
        leaving = organs / (np.array(ORGAN_VOLUMES) * np.array(PARTITION) * p.KP)
        liver, gut, spleen = (ORGANS.index(name) for name in ("liver", "gut", "spleen"))
        portal = flows[gut] * leaving[gut] + flows[spleen] * leaving[spleen]
        whole = flows[liver] + flows[gut] + flows[spleen]
        rate = flows * (artery - leaving)
        rate = rate.at[liver].set(flows[liver] * artery + portal - (whole + p.CLI) * leaving[liver] + p.KA * A.depot)
        returned = flows @ leaving - portal + (whole - flows[liver]) * leaving[liver]
        return {
            "depot": -p.KA * A.depot,
            "artery": flows.sum() * (vein - artery) - p.CLR * artery,
            "vein": returned - flows.sum() * vein,
            **dict(zip(ORGANS, rate, strict=True)),
        }

    def observe(self, t, A, p):
        return {"conc": A.vein / 3.9}

    conc = nm.Proportional(0.15) + nm.Additive(0.005)


class PKPD(nm.Model):
    """Warfarin's concentration and prothrombin complex activity."""

    KTR = nm.LogNormal(1.0, iiv=0.5)
    KA = nm.LogNormal(1.2, iiv=0.5)
    CL = nm.LogNormal(0.135, iiv=0.27)
    V = nm.LogNormal(8.0, iiv=0.2)
    E0 = nm.LogNormal(96.0, iiv=0.05)
    KOUT = nm.LogNormal(0.05, iiv=0.1)
    EC50 = nm.LogNormal(1.1, iiv=0.4)
    EMAX = nm.LogitNormal(0.95, iiv=0.4)

    def initial(self, p):
        return {"pca": p.E0}

    def dynamics(self, t, A, p):
        conc = A.central / p.V
        return {
            "depot": -p.KTR * A.depot,
            "gut": p.KTR * A.depot - p.KA * A.gut,
            "central": p.KA * A.gut - p.CL * conc,
            "pca": p.KOUT * (p.E0 * (1 - p.EMAX * conc / (p.EC50 + conc)) - A.pca),
        }

    def observe(self, t, A, p):
        return {"conc": A.central / p.V, "effect": A.pca}

    conc = nm.Proportional(0.1) + nm.Additive(0.05)
    effect = nm.Additive(3.0)


class Metabolite(nm.Model):
    """Parent and metabolite, each with a peripheral compartment."""

    CLP = nm.LogNormal(4.0, iiv=0.3)
    CLPM = nm.LogNormal(8.0, iiv=0.3)
    VP = nm.LogNormal(20.0, iiv=0.2)
    Q = nm.LogNormal(6.0, iiv=0.3)
    V2 = nm.LogNormal(40.0, iiv=0.3)
    CLM = nm.LogNormal(12.0, iiv=0.3)
    VM = nm.LogNormal(30.0, iiv=0.3)
    QM = nm.Theta(5.0, lower=0)
    VM2 = nm.Theta(50.0, lower=0)

    def dynamics(self, t, A, p):
        parent, metabolite = A.central / p.VP, A.metabolite / p.VM
        return {
            "central": -(p.CLP + p.CLPM + p.Q) * parent + p.Q * A.peripheral / p.V2,
            "peripheral": p.Q * (parent - A.peripheral / p.V2),
            "metabolite": p.CLPM * parent - (p.CLM + p.QM) * metabolite + p.QM * A.deep / p.VM2,
            "deep": p.QM * (metabolite - A.deep / p.VM2),
        }

    def observe(self, t, A, p):
        return {"parent": A.central / p.VP, "metabolite": A.metabolite / p.VM}

    parent = nm.Proportional(0.15) + nm.Additive(0.005)
    metabolite = nm.Proportional(0.15) + nm.Additive(0.005)


MODELS: dict[str, type[nm.Model]] = {
    "neutrophils": Neutrophils,
    "target_mediated": TargetMediated,
    "transit": Transit,
    "pbpk": PBPK,
    "pkpd": PKPD,
    "metabolite": Metabolite,
}


def twin(name: str, subjects: int | None = None, spread: float = 1.0) -> tuple[nm.Model, pd.DataFrame]:
    """The model and its data, with endpoints by name where there are several."""
    model = MODELS[name]()
    data: Any = simulate(name, subjects=subjects, spread=spread)
    endpoints = model.endpoints
    if "DVID" in data and len(endpoints) > 1:
        data["DVID"] = data.DVID.map({0: endpoints[0], **{k + 1: e for k, e in enumerate(endpoints)}})
    return model, data
