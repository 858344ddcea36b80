"""Figures: each function returns a matplotlib Figure, drawn without pyplot and without touching matplotlib's settings."""

from nlmefit.plot.attainment import attainment
from nlmefit.plot.comparison import comparison
from nlmefit.plot.convergence import convergence
from nlmefit.plot.differences import differences
from nlmefit.plot.etas import etas
from nlmefit.plot.forest import forest
from nlmefit.plot.gof import gof
from nlmefit.plot.individuals import individuals
from nlmefit.plot.npde import npde
from nlmefit.plot.regimens import regimens
from nlmefit.plot.vpc import vpc

__all__ = [
    "attainment",
    "comparison",
    "convergence",
    "differences",
    "etas",
    "forest",
    "gof",
    "individuals",
    "npde",
    "regimens",
    "vpc",
]
