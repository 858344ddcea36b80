"""Latent-variable and generative models on the same engine: `from nlmefit import generative as gen`."""

from nlmefit.generative.ppca import PPCA

__all__ = ["PPCA"]
