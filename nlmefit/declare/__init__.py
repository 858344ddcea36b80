"""What a modeller writes: parameters, covariates, Omega, residual models, doses, and the class that holds them."""
