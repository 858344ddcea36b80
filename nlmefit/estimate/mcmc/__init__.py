"""Full Bayes by NUTS."""
