"""Methods of estimation. They see theta, eta, Omega and the joint density of a latent-variable model, nothing else."""
