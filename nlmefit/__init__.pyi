# isort: skip_file
# The public names, by what they are for.

# Models
from .population.model import Model as Model
from .declare.parameters import LogNormal as LogNormal, LogitNormal as LogitNormal, Normal as Normal, Theta as Theta
from .declare.values import Fixed as Fixed
from .declare.omega import Blocks as Blocks
from .declare.flow import Flow as Flow
from .declare.covariates import Category as Category, Effect as Effect, Exponential as Exponential
from .declare.covariates import Linear as Linear, Power as Power
from .declare.dosing import Dosing as Dosing
from .declare.network import Network as Network

# Residual models
from .declare.residual import Additive as Additive, CombinedSD as CombinedSD
from .declare.residual import PowerError as PowerError, Proportional as Proportional

# Structural models
from .declare.compartments import OneCompartment as OneCompartment, ThreeCompartment as ThreeCompartment
from .declare.compartments import TwoCompartment as TwoCompartment
from .declare.library.absorption import ParallelAbsorption as ParallelAbsorption, Transit as Transit
from .declare.library.effect_compartment import EffectCompartment as EffectCompartment
from .declare.library.friberg import Friberg as Friberg
from .declare.library.indirect_response import IndirectResponse as IndirectResponse
from .declare.library.michaelis_menten import MichaelisMenten as MichaelisMenten
from .declare.library.tmdd import TMDD as TMDD
from .declare.library.tumour_growth import TumourGrowth as TumourGrowth

# Solvers
from .declare.solver import ClosedForm as ClosedForm, Diffrax as Diffrax, MatrixExponential as MatrixExponential
from .declare.solver import Rosenbrock as Rosenbrock, RungeKutta as RungeKutta

# Data
from .data.regimen import Regimen as Regimen
from .data.subjects import Subjects as Subjects
from .analysis.check import check as check

# Methods
from .estimate.modes.fo import FO as FO
from .estimate.modes.foce import FOCE as FOCE
from .estimate.modes.laplace import Laplace as Laplace
from .estimate.modes.map import MAP as MAP
from .estimate.modes.quadrature import Quadrature as Quadrature
from .estimate.em.importance_em import ITS as ITS, ImportanceEM as ImportanceEM
from .estimate.em.saem import SAEM as SAEM
from .estimate.variational.amortized import AmortizedVI as AmortizedVI
from .estimate.variational.encoder import SetEncoder as SetEncoder
from .estimate.variational.families import FullRank as FullRank, MeanField as MeanField, TriangularFlow as TriangularFlow
from .estimate.variational.vi import VI as VI
from .estimate.mcmc.nuts import NUTS as NUTS
from .estimate.referee.marginal import ImportanceSampling as ImportanceSampling
from .estimate.referee.sequential_importance import SequentialImportance as SequentialImportance

# Fitting
from .analysis.fit import evaluate as evaluate, fit as fit
from .analysis.bootstrap import bootstrap as bootstrap
from .results.fit import Fit as Fit
from .results.load import load as load

# What follows from a fit
from .analysis.compare import compare as compare, log_marginal as log_marginal
from .analysis.fit_quality import fit_quality as fit_quality
from .analysis.one_step_ahead import one_step_ahead as one_step_ahead
from .analysis.posterior import posterior as posterior
from .analysis.predict import predict as predict

# Diagnostics
from .diagnostics.diagnose import diagnose as diagnose
from .diagnostics.vpc import VPC as VPC, vpc as vpc
from . import plot as plot
from .reports.report import report as report

# Simulation
from .simulation.attainment import target_attainment as target_attainment
from .simulation.covariate_model import CovariateModel as CovariateModel, covariate_model as covariate_model
from .simulation.exposure import exposure as exposure
from .simulation.optimize_dose import OptimalDose as OptimalDose, Target as Target, optimize_dose as optimize_dose
from .simulation.profiles import Simulation as Simulation
from .simulation.simulate import simulate as simulate

# Generative models
from . import generative as generative

# Errors
from .core.errors import DataError as DataError, MethodError as MethodError, ModelError as ModelError
from .core.errors import NlmefitError as NlmefitError, ProcessError as ProcessError

__version__: str
