"""The networks that generative models are made of."""

from nlmefit.core.networks import MLP as MLP
