"""nlmefit: nonlinear mixed-effects modelling for pharmacometrics.

Importing it switches JAX to float64 for the process and turns on JAX's persistent compilation cache.
"""

import sys
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_called = sys.orig_argv[-3:]
if _called[-1] == "--version" and (_called[:2] == ["-m", "nlmefit.cli"] or Path(_called[-2]).stem == "nlmefit"):
    print(f"nlmefit {__version__}")  # the command line's question, answered before JAX, which takes seconds to import
    raise SystemExit(0)

from nlmefit.backend import configure  # noqa: E402

configure()  # before anything else makes an array

from nlmefit import generative  # noqa: E402
from nlmefit.bootstrap import bootstrap  # noqa: E402
from nlmefit.check import check  # noqa: E402
from nlmefit.compare import compare, log_marginal  # noqa: E402
from nlmefit.data.regimen import Regimen  # noqa: E402
from nlmefit.data.subjects import Subjects  # noqa: E402
from nlmefit.declare.compartments import OneCompartment, ThreeCompartment, TwoCompartment  # noqa: E402
from nlmefit.declare.covariates import Category, Effect, Exponential, Linear, Power  # noqa: E402
from nlmefit.declare.dosing import Dosing  # noqa: E402
from nlmefit.declare.flow import Flow  # noqa: E402
from nlmefit.declare.library.absorption import ParallelAbsorption, Transit  # noqa: E402
from nlmefit.declare.library.effect_compartment import EffectCompartment  # noqa: E402
from nlmefit.declare.library.friberg import Friberg  # noqa: E402
from nlmefit.declare.library.indirect_response import IndirectResponse  # noqa: E402
from nlmefit.declare.library.michaelis_menten import MichaelisMenten  # noqa: E402
from nlmefit.declare.library.tmdd import TMDD  # noqa: E402
from nlmefit.declare.library.tumour_growth import TumourGrowth  # noqa: E402
from nlmefit.declare.network import Network  # noqa: E402
from nlmefit.declare.omega import Blocks  # noqa: E402
from nlmefit.declare.parameters import LogitNormal, LogNormal, Normal, Theta  # noqa: E402
from nlmefit.declare.residual import Additive, CombinedSD, PowerError, Proportional  # noqa: E402
from nlmefit.declare.solver import ClosedForm, Diffrax, MatrixExponential, Rosenbrock, RungeKutta  # noqa: E402
from nlmefit.declare.values import Fixed  # noqa: E402
from nlmefit.diagnose.diagnose import diagnose  # noqa: E402
from nlmefit.diagnose.vpc import VPC, vpc  # noqa: E402
from nlmefit.errors import DataError, MethodError, ModelError, NlmefitError, ProcessError  # noqa: E402
from nlmefit.estimate.amortized import AmortizedVI  # noqa: E402
from nlmefit.estimate.encoder import SetEncoder  # noqa: E402
from nlmefit.estimate.families import FullRank, MeanField, TriangularFlow  # noqa: E402
from nlmefit.estimate.fo import FO  # noqa: E402
from nlmefit.estimate.foce import FOCE  # noqa: E402
from nlmefit.estimate.importance_em import ITS, ImportanceEM  # noqa: E402
from nlmefit.estimate.laplace import Laplace  # noqa: E402
from nlmefit.estimate.map import MAP  # noqa: E402
from nlmefit.estimate.marginal import ImportanceSampling  # noqa: E402
from nlmefit.estimate.nuts import NUTS  # noqa: E402
from nlmefit.estimate.quadrature import Quadrature  # noqa: E402
from nlmefit.estimate.saem import SAEM  # noqa: E402
from nlmefit.estimate.sequential_importance import SequentialImportance  # noqa: E402
from nlmefit.estimate.vi import VI  # noqa: E402
from nlmefit.fit import evaluate, fit  # noqa: E402
from nlmefit.fit_quality import fit_quality  # noqa: E402
from nlmefit.load import load  # noqa: E402
from nlmefit.model import Model  # noqa: E402
from nlmefit.one_step_ahead import one_step_ahead  # noqa: E402
from nlmefit.posterior import posterior  # noqa: E402
from nlmefit.predict import predict  # noqa: E402
from nlmefit.report.report import report  # noqa: E402
from nlmefit.results import Fit  # noqa: E402
from nlmefit.simulation.attainment import target_attainment  # noqa: E402
from nlmefit.simulation.covariate_model import CovariateModel, covariate_model  # noqa: E402
from nlmefit.simulation.exposure import exposure  # noqa: E402
from nlmefit.simulation.optimize_dose import OptimalDose, Target, optimize_dose  # noqa: E402
from nlmefit.simulation.profiles import Simulation  # noqa: E402
from nlmefit.simulation.simulate import simulate  # noqa: E402

if TYPE_CHECKING:
    from nlmefit import plot

__all__ = [
    "FO",
    "FOCE",
    "ITS",
    "MAP",
    "NUTS",
    "SAEM",
    "TMDD",
    "VI",
    "VPC",
    "Additive",
    "AmortizedVI",
    "Blocks",
    "Category",
    "ClosedForm",
    "CombinedSD",
    "CovariateModel",
    "DataError",
    "Diffrax",
    "Dosing",
    "Effect",
    "EffectCompartment",
    "Exponential",
    "Fit",
    "Fixed",
    "Flow",
    "Friberg",
    "FullRank",
    "ImportanceEM",
    "ImportanceSampling",
    "IndirectResponse",
    "Laplace",
    "Linear",
    "LogNormal",
    "LogitNormal",
    "MatrixExponential",
    "MeanField",
    "MethodError",
    "MichaelisMenten",
    "Model",
    "ModelError",
    "Network",
    "NlmefitError",
    "Normal",
    "OneCompartment",
    "OptimalDose",
    "ParallelAbsorption",
    "Power",
    "PowerError",
    "ProcessError",
    "Proportional",
    "Quadrature",
    "Regimen",
    "Rosenbrock",
    "RungeKutta",
    "SequentialImportance",
    "SetEncoder",
    "Simulation",
    "Subjects",
    "Target",
    "Theta",
    "ThreeCompartment",
    "Transit",
    "TriangularFlow",
    "TumourGrowth",
    "TwoCompartment",
    "bootstrap",
    "check",
    "compare",
    "covariate_model",
    "diagnose",
    "evaluate",
    "exposure",
    "fit",
    "fit_quality",
    "generative",
    "load",
    "log_marginal",
    "one_step_ahead",
    "optimize_dose",
    "plot",
    "posterior",
    "predict",
    "report",
    "simulate",
    "target_attainment",
    "vpc",
]


def __getattr__(name: str) -> Any:
    """`nm.plot` when it is first asked for: matplotlib takes most of a second to import."""
    if name == "plot":
        return import_module("nlmefit.plot")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
