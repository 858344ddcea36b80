"""Regimens and populations simulated: profiles, exposure, attainment of targets, optimal doses."""
