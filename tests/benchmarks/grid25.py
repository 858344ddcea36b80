"""Modes of 25 Gaussians on a grid that a GAN's samples cover, by the data and the counts of PacGAN.

    OMP_NUM_THREADS=1 python tests/benchmarks/grid25.py --seeds 5

Means {-4, -2, 0, 2, 4}^2, sd 0.05, 100,000 rows to train on; of 2,500 samples: those within 3 sd of the nearest mean are of high
quality (of true rows 98.9 % are), a mode with one of them is covered, and reverse KL is that of the shares of samples nearest to
each mean from those of the rows. Each seed is of the data, the networks and the samples. Peers: table 1 of Lin, Khetan, Fanti and
Oh (2018), mean and standard error of 10 trials.
"""

import argparse
import time

import numpy as np

import nlmefit as nm
from nlmefit import generative as gen

ROWS, DRAWN, SD = 100_000, 2_500, 0.05
MEANS = np.stack(np.meshgrid(*[np.arange(-4.0, 5.0, 2.0)] * 2), axis=-1).reshape(-1, 2)
PEERS = (
    ("GAN", "17.3 +- 0.8", "94.8 +- 0.7", "0.70 +- 0.07"),
    ("ALI", "24.1 +- 0.4", "95.7 +- 0.6", "0.14 +- 0.03"),
    ("PacGAN2", "23.8 +- 0.7", "91.3 +- 0.8", "0.13 +- 0.04"),
    ("PacGAN3", "24.6 +- 0.4", "94.2 +- 0.4", "0.06 +- 0.02"),
    ("PacGAN4", "24.8 +- 0.2", "93.6 +- 0.6", "0.04 +- 0.01"),
)


def rows(n: int, rng: np.random.Generator) -> np.ndarray:
    return MEANS[rng.integers(0, len(MEANS), n)] + SD * rng.normal(size=(n, 2))


def counts(x: np.ndarray, data: np.ndarray) -> tuple[float, float, float]:
    """Modes covered, per cent of high quality, reverse KL."""

    def nearest(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        far = np.linalg.norm(x[:, None] - MEANS, axis=-1)
        return np.argmin(far, axis=1), np.min(far, axis=1) < 3 * SD

    (mode, good), (real, _) = nearest(x), nearest(data)
    q, p = (np.bincount(found, minlength=len(MEANS)) / len(found) for found in (mode, real))
    seen = q > 0
    return float(len(np.unique(mode[good]))), 100 * float(np.mean(good)), float(np.sum(q[seen] * np.log(q[seen] / p[seen])))


def methods() -> dict[str, gen.Adversarial]:
    """The first is reported; its penalty was chosen on seed 0, against none. The others are for comparison."""
    training = gen.Training(steps=20_000, batch=256, rate=1e-3, average=0.999, betas=(0.5, 0.9), precision="float32")
    return {
        "Jensen-Shannon, R1 0.01": gen.Adversarial(gen.JensenShannon(penalty=0.01), training=training),
        "Jensen-Shannon, no penalty": gen.Adversarial(gen.JensenShannon(penalty=0.0), training=training),
        "the same, packing 2": gen.Adversarial(gen.JensenShannon(penalty=0.0), packing=2, training=training),
        "Wasserstein, penalty": gen.Adversarial(gen.Wasserstein(), critic_steps=2, training=training),
    }


def trial(method: gen.Adversarial, seed: int) -> tuple[float, float, float, float]:
    """The counts, and CPU seconds of the fit."""
    X = rows(ROWS, np.random.default_rng(seed))
    network = gen.MLP(128, 3, "relu")
    began = time.process_time()
    fit = nm.fit(gen.GAN(2, network, network), X, method, key=seed, progress=False)
    spent = time.process_time() - began
    return (*counts(fit.model.sample(DRAWN, key=seed + 1000), X), spent)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=5, help="trials, of the seeds from 1 up")
    parser.add_argument("--all", action="store_true", help="also the other methods")
    asked = parser.parse_args()
    print("| method | modes of 25 | high quality % | reverse KL | CPU s |\n|---|---|---|---|---|")
    for name, *figures in PEERS:
        print(f"| peer: {name} | {' | '.join(figures)} | |")
    for name, method in list(methods().items())[: None if asked.all else 1]:
        found = []
        for seed in range(1, asked.seeds + 1):
            found.append(trial(method, seed))
            print(f"| {name}, seed {seed} | {' | '.join(f'{value:.3g}' for value in found[-1])} |", flush=True)
        mean, error = np.mean(found, axis=0), np.std(found, axis=0, ddof=1) / np.sqrt(len(found))
        cells = (f"{m:.{d}f} +- {e:.{d}f}" for m, e, d in zip(mean, error, (1, 1, 3, 0), strict=True))
        print(f"| **{name}**, {len(found)} seeds | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
