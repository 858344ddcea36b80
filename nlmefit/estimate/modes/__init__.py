"""Methods around the modes of random effects: FO, FOCE, Laplace, quadrature, MAP."""
