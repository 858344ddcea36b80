"""Structural models under their names."""
