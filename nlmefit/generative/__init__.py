"""Generative models that are not pharmacometric, on the same engine."""

from nlmefit.generative import divergence, transport
from nlmefit.generative.adversarial import Adversarial
from nlmefit.generative.bound import VariationalBound
from nlmefit.generative.capability import NotTractableError
from nlmefit.generative.cnf import CNF, Hutchinson
from nlmefit.generative.coupling_layers import AffineCoupling, MixtureCoupling, SplineCoupling
from nlmefit.generative.couplings import Independent, LearnedCoupling, OptimalTransport, Reflow
from nlmefit.generative.critic import lipschitz_bound
from nlmefit.generative.denoising import DenoisingScoreMatching
from nlmefit.generative.diffusion import Diffusion
from nlmefit.generative.energy import EnergyModel
from nlmefit.generative.factor_analysis import FactorAnalysis
from nlmefit.generative.flow import NormalizingFlow
from nlmefit.generative.flow_matching import FlowMatching, straightness
from nlmefit.generative.game import JensenShannon, Wasserstein
from nlmefit.generative.gan import GAN
from nlmefit.generative.glow import Glow
from nlmefit.generative.guidance import ClassifierFreeGuidance, ClassifierGuidance
from nlmefit.generative.hvae import HierarchicalVAE
from nlmefit.generative.likelihood import BernoulliLikelihood, GaussianLikelihood
from nlmefit.generative.maximum_likelihood import MaximumLikelihood
from nlmefit.generative.method import GenerativeFit
from nlmefit.generative.neural_ode import Adaptive, Euler, RungeKutta
from nlmefit.generative.ppca import PPCA
from nlmefit.generative.reverse_time import DDIM, ProbabilityFlow, ReverseSDE
from nlmefit.generative.schedule import Cosine, LearnedSchedule, LinearBeta, LinearLogSNR
from nlmefit.generative.score_matching import ScoreMatching
from nlmefit.generative.training import Training
from nlmefit.generative.two_sample import energy_distance, two_sample_test
from nlmefit.generative.vae import VAE
from nlmefit.generative.velocity import VelocityField
from nlmefit.networks import MLP

__all__ = [
    "CNF",
    "DDIM",
    "GAN",
    "MLP",
    "PPCA",
    "VAE",
    "Adaptive",
    "Adversarial",
    "AffineCoupling",
    "BernoulliLikelihood",
    "ClassifierFreeGuidance",
    "ClassifierGuidance",
    "Cosine",
    "DenoisingScoreMatching",
    "Diffusion",
    "EnergyModel",
    "Euler",
    "FactorAnalysis",
    "FlowMatching",
    "GaussianLikelihood",
    "GenerativeFit",
    "Glow",
    "HierarchicalVAE",
    "Hutchinson",
    "Independent",
    "JensenShannon",
    "LearnedCoupling",
    "LearnedSchedule",
    "LinearBeta",
    "LinearLogSNR",
    "MaximumLikelihood",
    "MixtureCoupling",
    "NormalizingFlow",
    "NotTractableError",
    "OptimalTransport",
    "ProbabilityFlow",
    "Reflow",
    "ReverseSDE",
    "RungeKutta",
    "ScoreMatching",
    "SplineCoupling",
    "Training",
    "VariationalBound",
    "VelocityField",
    "Wasserstein",
    "divergence",
    "energy_distance",
    "lipschitz_bound",
    "straightness",
    "transport",
    "two_sample_test",
]
