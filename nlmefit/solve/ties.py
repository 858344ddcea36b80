"""What comes first of events at the same time: resets, ends of infusions, doses that have no record of their own there (they
lagged, or ADDL made them), then the records in the file's order, and last what only divides the time.

At a record of a dose in steady state that state is there first, then the dose itself: the record shows the system just after it.
"""

from typing import Any

import jax.numpy as jnp

RESET = -9.0
INFUSION_ENDS = -2.0
UNRECORDED = -1.0
"""A dose without a record at its time."""
STEADY_STATE, DOSE = -0.5, -0.25
"""Relative to the record's place in the file, 0, 1, ..., which is the rank of its observation."""
DIVIDER = 1e9
"""Bounds of epochs, and records that are no rows."""


def of_dose(order: Any, lagged: Any) -> Any:
    """The rank of doses (d,) whose records have that order; `lagged` says which arrive later, None where none does."""
    own = order + DOSE
    return own if lagged is None else jnp.where(lagged, UNRECORDED, own)
