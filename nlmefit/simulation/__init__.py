"""Profiles under counterfactual regimens, their exposure, target attainment and optimum doses."""
