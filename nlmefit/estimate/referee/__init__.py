"""Importance sampling: the marginal likelihood of whatever fit, one step ahead too."""
