"""Variational inference by subject, and amortized by an encoder."""
