"""Residuals, predictive checks, shrinkage and influence."""
