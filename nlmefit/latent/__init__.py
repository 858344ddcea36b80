"""The seam between models and methods: a latent-variable model, and its NumPyro programs."""
