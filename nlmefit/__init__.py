"""nlmefit: nonlinear mixed-effects modelling for pharmacometrics.

The public names are those of `__init__.pyi`, by what they are for. Each is imported when it is first asked for. Importing nlmefit
itself only switches JAX to float64 for the process and turns on JAX's persistent compilation cache.
"""

import lazy_loader

from nlmefit.core.backend import configure

configure()  # before anything makes an array

__version__ = "0.1.0"

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
