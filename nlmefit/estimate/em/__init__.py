"""SAEM, importance-sampling EM and iterative two-stage."""
