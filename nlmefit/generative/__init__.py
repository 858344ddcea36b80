"""Generative models that are not pharmacometric, on the same engine."""

from nlmefit.generative.maximum_likelihood import MaximumLikelihood
from nlmefit.generative.ppca import PPCA

__all__ = ["PPCA", "MaximumLikelihood"]
