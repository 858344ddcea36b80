"""The verbs: fit, evaluate, check, predict, compare and their kin."""
