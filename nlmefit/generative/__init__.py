"""Generative models that are not pharmacometric, on the same engine. The public names are those of `__init__.pyi`."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
