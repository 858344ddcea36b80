"""What everything stands on: array names, errors, settings of JAX, keys, progress, Gaussian algebra, networks."""
