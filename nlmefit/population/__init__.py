"""A declared model and its solver as a latent-variable model."""
