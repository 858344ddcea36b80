"""Amounts in the compartments over time, for one subject."""
