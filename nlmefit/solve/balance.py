"""Time integrals of amounts by mass balance, where amounts have a closed form and parameters stay constant:

dA/dt = K A + input,  A = 0 at first    =>    int A dt = K^-1 (A(t) - what has come in)
"""

import jax.numpy as jnp
from jaxtyping import Array, Float

from nlmefit.declare.compartments import AbstractCompartments
from nlmefit.solve import superposition
from nlmefit.solve.amounts import Kinetics, prepared, superposes
from nlmefit.solve.arrivals import Arrivals


def integrals(kinetics: Kinetics) -> Float[Array, "n c"] | None:
    """int A dt of every compartment from the subject's last reset to its rows; None where it has no closed form."""
    dynamics, subject = kinetics.dynamics, kinetics.subject
    if not (isinstance(dynamics, AbstractCompartments) and dynamics.closed_form):
        return None
    coming = prepared(kinetics)[0]
    if not superposes(kinetics, coming) or (coming is not None and coming.steady is not None):
        return None
    size = len(dynamics.compartments)
    if coming is None:
        return jnp.zeros((*subject.time.shape, size))
    left = superposition.amounts(dynamics, kinetics.p, coming, subject, range(size))
    rates = superposition.disposition(dynamics, kinetics.p).matrix
    return jnp.linalg.solve(rates, (left - _arrived(coming, subject, size)).T).T


def _arrived(doses: Arrivals, subject: object, size: int) -> Float[Array, "n c"]:
    """What has come into each compartment since the last reset."""
    share = jnp.asarray(superposition.active(doses, subject), float)
    if doses.duration is not None:
        since = jnp.maximum(subject.time - doses.time[:, None], 0.0)  # type: ignore[attr-defined]
        running = (doses.duration > 0)[:, None]
        part = since / jnp.where(running, doses.duration[:, None], 1.0)
        share = jnp.where(running, share * jnp.minimum(part, 1.0), share)
    into = doses.compartment[:, None] == jnp.arange(size)
    return share.T @ jnp.where(into, doses.amount[:, None], 0.0)
