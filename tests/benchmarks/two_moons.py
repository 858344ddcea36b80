"""Held-out negative log-likelihood of two moons and of eight Gaussians, by normalizing flows and a CNF trained by flow matching.

    python tests/benchmarks/two_moons.py

10,000 rows to train on and as many held out. Moons: angles uniform on [0, pi], noise of sd 0.1; Gaussians: the toy data of FFJORD
(radius 4, sd 0.5, divided by 1.414). "Truth" is minus the mean log density of the held-out rows under the law that they are from;
peers were measured on other draws from the same laws, so that it is the excess over the truth that compares.
"""

import time
from typing import Any

import numpy as np
from scipy.special import logsumexp

import nlmefit as nm
from nlmefit import generative as gen

ROWS = 10_000
PEERS = {  # excess over the truth in nats
    "moons": {
        "GMM, best of 8/16/32 (scikit-learn)": 0.0080,
        "NSF (zuko)": 0.017,
        "RealNVP (zuko)": 0.027,
        "MAF-RQS (flowjax)": 0.062,
    },
    "8 Gaussians": {"GMM, best of 8/16/32 (scikit-learn)": 0.0092, "NSF (zuko)": 0.0283},
}


def moons(n: int, rng: np.random.Generator) -> np.ndarray:
    angle, upper = rng.uniform(0, np.pi, n), rng.random(n) < 0.5
    first = np.column_stack([np.cos(angle), np.sin(angle)])
    second = np.column_stack([1 - np.cos(angle), 0.5 - np.sin(angle)])
    return np.where(upper[:, None], first, second) + 0.1 * rng.normal(size=(n, 2))


def _centers(nodes: int = 4000) -> np.ndarray:
    angle = (np.arange(nodes) + 0.5) / nodes * np.pi
    first = np.column_stack([np.cos(angle), np.sin(angle)])
    return np.concatenate([first, np.column_stack([1, 0.5]) - first])


def _corners() -> np.ndarray:
    angle = np.arange(8) * np.pi / 4
    return 4 * np.column_stack([np.cos(angle), np.sin(angle)]) / 1.414


def gaussians(n: int, rng: np.random.Generator) -> np.ndarray:
    return _corners()[rng.integers(0, 8, n)] + 0.5 / 1.414 * rng.normal(size=(n, 2))


def mixture_log_density(X: np.ndarray, centers: np.ndarray, sd: float) -> np.ndarray:
    blocks = []
    for block in np.array_split(X, 50):
        square = np.sum((block[:, None] - centers) ** 2, axis=-1)
        blocks.append(logsumexp(-0.5 * square / sd**2, axis=1) - np.log(len(centers)) - np.log(2 * np.pi * sd**2))
    return np.concatenate(blocks)


def methods() -> dict[str, tuple[Any, Any]]:
    def likelihood(steps: int) -> gen.MaximumLikelihood:
        return gen.MaximumLikelihood(training=gen.Training(steps=steps, batch=512, rate=3e-3, average=0.995, precision="float32"))

    matching = gen.FlowMatching(training=gen.Training(steps=20_000, batch=512, rate=3e-3, average=0.999, precision="float32"))
    return {
        "spline flow, 4 layers of 5 bins": (gen.NormalizingFlow(4, gen.SplineCoupling(gen.MLP(32, 2), bins=5)), likelihood(6000)),
        "affine flow (RealNVP), 12 layers": (gen.NormalizingFlow(12, gen.AffineCoupling(gen.MLP(32, 2))), likelihood(6000)),
        "CNF by flow matching": (gen.CNF(network=gen.MLP(64, 3)), matching),
    }


def main() -> None:
    laws = {
        "moons": (moons, _centers(), 0.1),
        "8 Gaussians": (gaussians, _corners(), 0.5 / 1.414),
    }
    print("| data | model | held-out NLL | truth | excess | CPU s |\n|---|---|---|---|---|---|")
    for data, (draw, centers, sd) in laws.items():
        rng = np.random.default_rng(0)
        train, test = draw(ROWS, rng), draw(ROWS, rng)
        truth = -float(np.mean(mixture_log_density(test, centers, sd)))
        for name, excess in PEERS[data].items():
            print(f"| {data} | peer: {name} | | | {excess:.4f} | |")
        for name, (model, method) in methods().items():
            began = time.process_time()
            fit = nm.fit(model, train, method, progress=False)
            spent = time.process_time() - began
            value = -fit.model.score(test)
            print(f"| {data} | {name} | {value:.4f} | {truth:.4f} | {value - truth:.4f} | {spent:.0f} |", flush=True)


if __name__ == "__main__":
    main()
