"""Figures: each function returns a matplotlib Figure, drawn without pyplot and without touching matplotlib's settings."""

from nlmefit.plot.attainment import attainment
from nlmefit.plot.comparison import comparison
from nlmefit.plot.convergence import convergence
from nlmefit.plot.denoising import denoising
from nlmefit.plot.density import density
from nlmefit.plot.differences import differences
from nlmefit.plot.etas import etas
from nlmefit.plot.field import field
from nlmefit.plot.forest import forest
from nlmefit.plot.gof import gof
from nlmefit.plot.individuals import individuals
from nlmefit.plot.latent import latent
from nlmefit.plot.npde import npde
from nlmefit.plot.random_effects import random_effects
from nlmefit.plot.reconstruction import reconstruction
from nlmefit.plot.regimens import regimens
from nlmefit.plot.samples import samples
from nlmefit.plot.schedule import schedule
from nlmefit.plot.training import training
from nlmefit.plot.vpc import vpc

__all__ = [
    "attainment",
    "comparison",
    "convergence",
    "denoising",
    "density",
    "differences",
    "etas",
    "field",
    "forest",
    "gof",
    "individuals",
    "latent",
    "npde",
    "random_effects",
    "reconstruction",
    "regimens",
    "samples",
    "schedule",
    "training",
    "vpc",
]
