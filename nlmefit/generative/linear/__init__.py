"""Linear Gaussian models: PPCA, factor analysis."""
