"""What a status says of coordinates without effect."""

import numpy as np
import pytest
from models import TheophyllineZeroOrder

from nlmefit.estimate.coordinates import Coordinates
from nlmefit.estimate.status import at_bounds, unused
from nlmefit.population.latent import PopulationModel


@pytest.mark.parametrize("gone", ["omega_CL", "omega_V"])
def test_what_follows_from_a_collapsed_omega_is_told_once(gone):
    coordinates = Coordinates(PopulationModel(TheophyllineZeroOrder()).parameters())
    theta = {p.name: np.asarray(p.start, float) for p in coordinates.free}
    idle = np.isin(coordinates.names, [gone, "corr_CL_V"])
    assert f"does not depend on {', '.join(np.array(coordinates.names)[idle])}:" in unused(coordinates, theta, idle)[0]
    theta[gone] = theta[gone] * 1e-6
    assert unused(coordinates, theta, idle) == [] and f"{gone} has collapsed to 0" in at_bounds(coordinates, theta)[0]
    (said,) = unused(coordinates, theta, idle | np.isin(coordinates.names, ["V"]))
    assert "does not depend on V:" in said
