# isort: skip_file
# The public names of generative models, by what they are for.

# Methods and training
from .networks import MLP as MLP
from .capability import NotTractableError as NotTractableError
from .maximum_likelihood import MaximumLikelihood as MaximumLikelihood
from .trainer import GenerativeFit as GenerativeFit
from .training import Training as Training

# Linear Gaussian models
from .linear.factor_analysis import FactorAnalysis as FactorAnalysis
from .linear.ppca import PPCA as PPCA

# Variational autoencoders
from .variational.bound import VariationalBound as VariationalBound
from .variational.hvae import HierarchicalVAE as HierarchicalVAE
from .variational.likelihood import BernoulliLikelihood as BernoulliLikelihood, GaussianLikelihood as GaussianLikelihood
from .variational.vae import VAE as VAE

# Diffusion models
from .diffusion.denoising import DenoisingScoreMatching as DenoisingScoreMatching
from .diffusion.diffusion import Diffusion as Diffusion
from .diffusion.guidance import ClassifierFreeGuidance as ClassifierFreeGuidance, ClassifierGuidance as ClassifierGuidance
from .diffusion.reverse_time import DDIM as DDIM, ProbabilityFlow as ProbabilityFlow, ReverseSDE as ReverseSDE
from .diffusion.schedule import Cosine as Cosine, LearnedSchedule as LearnedSchedule
from .diffusion.schedule import LinearBeta as LinearBeta, LinearLogSNR as LinearLogSNR

# Energy-based models
from .energy.energy import EnergyModel as EnergyModel
from .energy.score_matching import ScoreMatching as ScoreMatching

# Adversarial networks
from .adversarial.adversarial import Adversarial as Adversarial
from .adversarial.critic import lipschitz_bound as lipschitz_bound
from .adversarial.game import JensenShannon as JensenShannon, Wasserstein as Wasserstein
from .adversarial.gan import GAN as GAN

# Normalizing flows
from .flows.coupling_layers import AffineCoupling as AffineCoupling
from .flows.coupling_layers import MixtureCoupling as MixtureCoupling, SplineCoupling as SplineCoupling
from .flows.flow import NormalizingFlow as NormalizingFlow
from .flows.glow import Glow as Glow

# Velocity fields and transport
from . import transport as transport
from .transport.cnf import CNF as CNF, Hutchinson as Hutchinson
from .transport.couplings import Independent as Independent, LearnedCoupling as LearnedCoupling
from .transport.couplings import OptimalTransport as OptimalTransport, Reflow as Reflow
from .transport.flow_matching import FlowMatching as FlowMatching, straightness as straightness
from .transport.neural_ode import Adaptive as Adaptive, Euler as Euler, RungeKutta as RungeKutta
from .transport.velocity import VelocityField as VelocityField

# Comparing samples
from . import divergence as divergence
from .two_sample import energy_distance as energy_distance, two_sample_test as two_sample_test
