"""Velocity fields: flow matching, continuous flows. `gen.transport` is optimal transport between samples."""

from nlmefit.generative.transport.optimal_transport import normalized_path_energy as normalized_path_energy
from nlmefit.generative.transport.optimal_transport import pairing as pairing
from nlmefit.generative.transport.optimal_transport import path_energy as path_energy
from nlmefit.generative.transport.optimal_transport import sinkhorn as sinkhorn
from nlmefit.generative.transport.optimal_transport import wasserstein as wasserstein
