"""Generative models that are not pharmacometric, on the same engine."""

from nlmefit.generative import divergence, transport
from nlmefit.generative.capability import NotTractableError
from nlmefit.generative.maximum_likelihood import MaximumLikelihood
from nlmefit.generative.method import GenerativeFit
from nlmefit.generative.networks import MLP
from nlmefit.generative.ppca import PPCA
from nlmefit.generative.training import Training

__all__ = ["MLP", "PPCA", "GenerativeFit", "MaximumLikelihood", "NotTractableError", "Training", "divergence", "transport"]
