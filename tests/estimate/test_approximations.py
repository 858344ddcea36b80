"""What each approximation of log p(y) is off by, on a model whose random effects enter nonlinearly."""

from models import examples

import nlmefit as nm


def test_b5_errors_fall_from_fo_to_laplace():
    """Theophylline at given values, against quadrature: 4.2 by FO, 0.67 by FOCE with interaction, 0.21 by Laplace."""
    example = examples()["theophylline"]
    exact = nm.evaluate(example.model, example.data, nm.Quadrature(nodes=9)).log_likelihood
    methods = (nm.FO(), nm.FOCE(interaction=True), nm.Laplace())
    fo, foce, laplace = (abs(nm.evaluate(example.model, example.data, m).log_likelihood - exact) for m in methods)
    assert fo > 2 * foce and foce > 2 * laplace
    assert 0 < laplace < 1
