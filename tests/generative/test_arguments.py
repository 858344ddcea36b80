"""Arguments of the wrong kind to every public class of the generative family: an error of nlmefit's that names the argument."""

import inspect

import numpy as np
import pytest

import nlmefit as nm
from nlmefit import generative as gen

X = np.random.default_rng(0).normal(size=(30, 2))
WRONG = [
    3,
    2.5,
    "x",
    None,
    [1],
    np.nan,
    -1,
    True,
    {},
    (1, 2, 3, 4),
    np.ones((2, 2)),
    gen.PPCA(latent=1),
    gen.MLP,
]
NEEDED = {
    "latent": 2,
    "latents": (2, 1),
    "shape": (4, 4),
    "model": gen.Diffusion(),
    "source": X,
    "classifier": len,
    "earlier": gen.CNF(),
}
FILLED_IN = {"networks", "standard", "map", "players", "game", "dynamics", "frame", "condition", "scales", "source", "straight"}
FILLED_IN |= {"weights", "mean", "correction"}  # what a fit fills in, or arrays
CLASSES = [
    name
    for name in gen.__all__
    if isinstance(getattr(gen, name), type) and name not in ("NotTractableError", "GenerativeFit", "BernoulliLikelihood")
]


@pytest.mark.filterwarnings("ignore:.*set as static")  # equinox, of arrays
@pytest.mark.parametrize("name", CLASSES)
def test_wrong_kinds(name):
    """None of the arguments takes more than a few of the wrong values, and none ends in another error."""
    kind = getattr(gen, name)
    parameters = inspect.signature(kind).parameters
    needed = {p: NEEDED[p] for p in parameters if p in NEEDED and parameters[p].default is inspect.Parameter.empty}
    kind(**needed)
    for argument in parameters.keys() - FILLED_IN - ({"noise"} if name in ("PPCA", "FactorAnalysis") else set()):
        taken = []
        for value in WRONG:
            try:
                kind(**{**needed, argument: value})
                taken.append(value)
            except nm.NlmefitError as error:
                assert len(str(error)) < 400
        assert len(taken) <= 4, (argument, taken)


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (
            lambda: nm.fit(gen.VAE(latent=2), X, gen.VariationalBound(training=100)),
            r"VariationalBound\(training=...\).*gen.Training",
        ),
        (lambda: gen.CNF(3), r"CNF\(network=...\) must be gen.MLP"),
        (lambda: gen.Glow((4, 4), coupling=3), r"Glow\(coupling=...\) must be gen.AffineCoupling.* or gen.MixtureCoupling"),
        (lambda: gen.Reflow(gen.Diffusion()), r"Reflow\(earlier=...\) must be gen.CNF.* or gen.VelocityField"),
        (lambda: gen.DDIM(gen.VAE(latent=2)), r"DDIM\(model=...\) must be .*gen.Diffusion.*got VAE"),
        (lambda: nm.fit(gen.VAE(latent=2), X, gen.MaximumLikelihood()), r"fitted by gen.VariationalBound\(\), nm.Laplace"),
        (lambda: nm.fit(gen.GAN(latent=2), X, nm.Laplace()), r"GAN is fitted by gen.Adversarial\(\), not by Laplace"),
        (lambda: nm.fit(gen.GAN(latent=2), X, "laplace"), r"GAN is fitted by gen.Adversarial\(\), not by 'laplace'"),
        (lambda: nm.fit(gen.VAE(latent=2), X, gen.FlowMatching()), r"VAE is fitted by gen.VariationalBound\(\), nm.Laplace"),
        (lambda: nm.fit(gen.VAE, X, nm.Laplace()), r"VAE is a class; pass an instance: gen.VAE\(...\)"),
    ],
)
def test_messages_name_what_fits(call, match):
    with pytest.raises(nm.NlmefitError, match=match):
        call()


@pytest.mark.parametrize(
    ("model", "method"), [(gen.NormalizingFlow(layers=2), gen.MaximumLikelihood()), (gen.CNF(), gen.FlowMatching())]
)
def test_a_constant_column_has_no_density(model, method):
    with pytest.raises(nm.DataError, match="constant, the first of them column 1"):
        nm.fit(model, np.c_[X[:, 0], np.ones(30)], method, progress=False)
