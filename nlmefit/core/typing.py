"""Names for arrays that appear everywhere.

Axes: N subjects, n observation rows of a subject, d doses of a subject, c compartments,
q random effects, p free population parameters.
"""

from collections.abc import Mapping

from jaxtyping import Array, Float

Theta = Mapping[str, Array]
"""Population parameters by name, on their natural scale."""

Scalar = Float[Array, ""]
Eta = Float[Array, "q"]
Unconstrained = Float[Array, "p"]
"""Free population parameters as one vector of unbounded, scaled coordinates."""
