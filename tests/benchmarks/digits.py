"""Handwritten digits: the held-out log-likelihood of VAEs, of PPCA and of factor analysis, against other packages' figures.

    pip install scikit-learn && OMP_NUM_THREADS=1 python tests/benchmarks/digits.py

prints a markdown table in nats per image. The images are scikit-learn's (1797 of 8 x 8 pixels, 0 to 16; Alpaydin and Kaynak
1998), dequantised to (x + u) / 17 with u uniform in [0, 1); 1437 are trained on, of which deep models hold out 200, and 360 are
tested on. Of deep models the figure is the bound of 500 importance-weighted draws, of linear ones log p(x) itself. CPU seconds
are of all threads together and include compilation, unless it was cached by an earlier run.

The peers' figures: scikit-learn 1.9 (PCA.score, FactorAnalysis.score) and VAEs in PyTorch 2.13 of the same architecture (two
hidden layers of 100 units, 10 latent variables; the linear ones 400 and 250 epochs of Adam), measured on two cores.
"""

import argparse
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import nlmefit as nm
from nlmefit import generative as gen

HELD_OUT = 200 / 1437


def data() -> tuple[np.ndarray, np.ndarray]:
    """Rows to train on and to test on."""
    raw = load_digits().data
    noisy = (raw + np.random.default_rng(0).uniform(size=raw.shape)) / 17
    return tuple(train_test_split(noisy, test_size=360, random_state=0))  # type: ignore[return-value]


def deep(width: int = 100, sd: Any = "decoded") -> gen.VAE:
    net = gen.MLP(width, 2)
    return gen.VAE(10, net, net, gen.GaussianLikelihood(sd))


def linear(sd: Any) -> gen.VAE:
    return gen.VAE(10, gen.MLP(depth=0), gen.MLP(depth=0), gen.GaussianLikelihood(sd), "full")


def bound(steps: int, batch: int = 128, rate: float = 2e-3, weighted: int = 1, held_out: float = HELD_OUT, **others: Any) -> Any:
    training = gen.Training(steps=steps, batch=batch, rate=rate, held_out=held_out, precision="float32", **others)
    return gen.VariationalBound(weighted=weighted, training=training)


def exact(model: gen.VAE) -> gen.FactorAnalysis:
    """A linear VAE's decoder as the factor analysis that it is, whose log p(x) is known."""
    z, none = jnp.zeros(model.latent), jnp.zeros(0)
    weights = jax.jacfwd(lambda z: model.decoded(z, none))(z)
    scale: Any = model.emission(z, none)
    return gen.FactorAnalysis(model.latent, *(np.asarray(p) for p in (weights, model.decoded(z, none), scale.scale)))


def trained(model: gen.VAE, method: Any) -> Callable[[np.ndarray], Any]:
    return lambda train: nm.fit(model, train, method, progress=False).model


def cases(minute: bool) -> dict[str, tuple[str, Callable[[np.ndarray], Any]]]:
    """By name the peer's figure, and what makes the model."""
    whole = bound(3000, 256, 1e-2, held_out=0.0)
    found: dict[str, tuple[str, Callable[[np.ndarray], Any]]] = {
        "PPCA, closed form": ("19.374 (scikit-learn)", lambda x: gen.PPCA(10).maximum_likelihood(x)),
        "factor analysis": ("44.058 (scikit-learn, 0.4 s)", lambda x: gen.FactorAnalysis(10).maximum_likelihood(x)),
        "linear VAE, one sd": ("train 20.985 (PyTorch, 11.6 s)", trained(linear("shared"), whole)),
        "linear VAE, sd by pixel": ("train 45.998 (PyTorch, 5.2 s)", trained(linear("column"), whole)),
        "VAE, sd by pixel": ("55.884 (PyTorch, 10.4 s)", trained(deep(sd="column"), bound(1500))),
        "VAE, decoded sd": ("55.884 (PyTorch, 10.4 s)", trained(deep(), bound(1500))),
    }
    if minute:
        method = bound(1800, weighted=16, average=0.98, decay=0.05)
        found["VAE, decoded sd, 16 weighted draws"] = ("55.884 (PyTorch, 10.4 s)", trained(deep(200), method))
    return found


def score(model: Any, X: np.ndarray) -> float:
    """Per image."""
    if isinstance(model, gen.VAE) and model.decoder.depth == 0:
        return exact(model).score(X)
    return model.score(X) if hasattr(model, "score") else model.log_marginal(X, draws=500).value / len(X)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minute", action="store_true", help="also the model that takes a minute")
    train, test = data()
    print("| model | train | test | CPU s | peer's test |\n|---|---|---|---|---|")
    for name, (peer, make) in cases(parser.parse_args().minute).items():
        began = time.process_time()
        model = make(train)
        seconds = time.process_time() - began
        print(f"| {name} | {score(model, train):.3f} | {score(model, test):.3f} | {seconds:.2f} | {peer} |", flush=True)


if __name__ == "__main__":
    main()
