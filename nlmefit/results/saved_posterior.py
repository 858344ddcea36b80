"""The posteriors of random effects as plain content for an archive, and back: arrays, numbers and names, no code."""

from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from nlmefit.estimate.mcmc.nuts import Draws
from nlmefit.estimate.posterior import AbstractPosterior, Gaussian, Weighted
from nlmefit.estimate.variational.encoded import Amortized, Seen
from nlmefit.estimate.variational.encoder import Reader, SetNetwork
from nlmefit.estimate.variational.families import FullRank, MeanField, TriangularFlow
from nlmefit.estimate.variational.vi import Variational

FAMILIES: Mapping[str, Any] = {"FullRank": FullRank, "MeanField": MeanField, "TriangularFlow": TriangularFlow}


def posterior_content(posterior: AbstractPosterior) -> dict[str, Any] | None:
    """A posterior as content; None for one of another package's making (its class, family or network), which would not come
    back."""
    kind, parts = type(posterior).__name__, _parts(posterior)
    if kind not in RESTORE:
        return None
    if isinstance(posterior, Variational):
        family = posterior.family
        if type(family).__name__ not in FAMILIES:
            return None
        parts["family"] = {"kind": type(family).__name__, **_parts(family)}
    if isinstance(posterior, Amortized):
        if not isinstance(posterior.network, SetNetwork):
            return None
        parts["network"] = {"kind": "SetNetwork", **posterior.network.content()}
        parts["reader"] = {name: _plain(x) for name, x in _parts(posterior.reader).items()}
        parts["seen"] = posterior.seen._asdict()
    return {"kind": kind, **parts}


def restored_posterior(saved: Mapping[str, Any]) -> AbstractPosterior:
    """The posterior, from its content. Raises KeyError, TypeError or ValueError where it is none."""
    parts = dict(saved)
    found: AbstractPosterior = RESTORE[parts.pop("kind")](parts)
    return found


def _variational(parts: dict[str, Any]) -> Variational:
    family = dict(parts.pop("family"))
    return Variational(family=FAMILIES[family.pop("kind")](**family), **parts)


def _amortized(parts: dict[str, Any]) -> Amortized:
    network = dict(parts.pop("network"))
    if network.pop("kind") != "SetNetwork":
        raise ValueError("a network of an unknown kind")
    reader: dict[str, Any] = {name: tuple(x) if isinstance(x, list) else x for name, x in parts.pop("reader").items()}
    reader = {name: jnp.asarray(x) if isinstance(x, np.ndarray) else x for name, x in reader.items()}
    seen = Seen(**parts.pop("seen"))
    return Amortized(network=SetNetwork.restored(**network), reader=Reader(**reader), seen=seen, **parts)


RESTORE: Mapping[str, Callable[[dict[str, Any]], AbstractPosterior]] = {
    "Gaussian": lambda parts: Gaussian(**parts),
    "Weighted": lambda parts: Weighted(**parts),
    "Draws": lambda parts: Draws(**parts),
    "Variational": _variational,
    "Amortized": _amortized,
}


def _parts(value: Any) -> dict[str, Any]:
    return {field.name: getattr(value, field.name) for field in fields(value)}


def _plain(value: Any) -> Any:
    return np.asarray(value) if isinstance(value, jax.Array) else value
