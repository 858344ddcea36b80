"""The smallest complete job: a model, its data, a fit.

    nlmefit fit tutorials/theophylline.py datasets/theophylline.csv --out results/theophylline

fits it from the command line; `python tutorials/theophylline.py` does the same in Python.
"""

from pathlib import Path

import pandas as pd

import nlmefit as nm


class Theophylline(nm.Model):
    """Oral theophylline, one compartment, first-order absorption (Boeckmann, Sheiner and Beal 1994)."""

    ka = nm.LogNormal(1.5, iiv=0.6, unit="1/h")  # typical value (natural scale), sd of eta
    CL = nm.LogNormal(2.8, iiv=0.3, unit="L/h")
    V = nm.LogNormal(32.0, iiv=0.15, unit="L")

    dynamics = nm.OneCompartment(absorption="first-order")  # closed form; reads ka, CL and V

    def observe(self, t, A, p):
        return {"conc": A.central / p.V}

    conc = nm.Additive(0.7, unit="mg/L")  # residual model of the endpoint of that name


if __name__ == "__main__":
    data = pd.read_csv(Path(__file__).parents[1] / "datasets" / "theophylline.csv")
    fit = nm.fit(Theophylline(), data, nm.FOCE(interaction=True))
    print(fit)
    print()
    print(fit.individual.round(3))
