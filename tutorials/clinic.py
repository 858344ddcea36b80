"""Generative models at work in a clinic's questions: makes clinic.md (`python tutorials/page.py clinic`)."""

# %%
# # Generative models back in the clinic
#
# Three places where a generative model helps to answer a question about drugs: random effects that are not normal, new subjects
# who are like those of a trial, and a mechanistic model's rival that knows no mechanism. All of it is one notation,
# y_i | eta_i ~ p(y | theta, eta_i), and one referee, the marginal likelihood.

from pathlib import Path

import numpy as np
import pandas as pd

import nlmefit as nm
from nlmefit import generative as gen

HERE = Path(__file__).parent
# %%
# ## 1. A flow as the random effects' distribution
#
# Three in ten subjects clear a drug slowly, and nobody wrote down who. A normal random effect cannot say so; `nm.Flow("CL")` lets
# the distribution be what a smooth monotone map T makes of a normal score, CL_i = CL exp(omega T(eta_i)), standardised so that CL
# and omega mean what they always mean.


class Clearance(nm.Model):
    """Intravenous bolus, one compartment."""

    CL = nm.LogNormal(4.0, iiv=0.5, unit="L/h")
    V = nm.LogNormal(30.0, iiv=0.2, unit="L")
    dynamics = nm.OneCompartment()

    def observe(self, t, A, p):
        return {"conc": A.central / p.V}

    conc = nm.Proportional(0.1)


class Mixed(Clearance):
    """The same, with a flow."""

    flow = nm.Flow("CL")


def trial(size: int, seed: int) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    slow = rng.random(size) < 0.3
    CL = np.where(slow, 1.5, 5.0) * np.exp(0.25 * rng.normal(size=size))
    V = 30 * np.exp(0.2 * rng.normal(size=size))
    rows = []
    for i in range(size):
        rows.append((i + 1, 0.0, np.nan, 100.0))
        for t in (1.0, 4.0, 8.0, 16.0, 24.0):
            rows.append((i + 1, t, 100 / V[i] * np.exp(-CL[i] / V[i] * t) * (1 + 0.1 * rng.normal()), np.nan))
    return pd.DataFrame(rows, columns=["ID", "TIME", "DV", "AMT"])


data = trial(200, seed=1)
fits = {
    "normal": nm.fit(Clearance(), data, nm.FOCE(interaction=True), progress=False),
    "flow": nm.fit(Mixed(), data, nm.FOCE(interaction=True), progress=False),
}
print(
    nm.compare(fits, nm.ImportanceSampling(draws=500), progress=False)[
        ["log_marginal", "mc_se", "objective", "AIC", "status"]
    ].round(2)
)
print(fits["flow"])

# %%
# The referee prefers the flow by far more than its six weights cost, and its random effect has two peaks:

nm.plot.random_effects(fits["flow"]).savefig(HERE / "clinic_random_effects.png", dpi=80)

# %%
# ![The random effect's distribution](clinic_random_effects.png)
#
# The other place for a flow is the posterior: `nm.VI(family=nm.TriangularFlow())` approximates each subject's p(eta_i | y_i) by
# a flow T(xi; phi_i) in place of a normal distribution, and its bound is tighter for it.

for name, family in (("normal posteriors", nm.FullRank()), ("flow posteriors", nm.TriangularFlow())):
    bound = nm.evaluate(fits["flow"].model, data[data["ID"] <= 40], nm.VI(family=family))
    print(f"{name}: log p(y) of 40 subjects >= {bound.log_likelihood:.2f}")

# %%
# ## 2. New subjects who are like those of a trial
#
# A simulated trial needs weights, heights and ages that belong together. Resampling the 65 volunteers of the remifentanil study
# gives the same 65 people again and again; a flow over their covariates, given sex, gives new ones.

trial_data = pd.read_csv(HERE.parent / "datasets" / "remifentanil.csv")
people = nm.covariate_model(
    trial_data,
    gen.NormalizingFlow(layers=2, coupling=gen.AffineCoupling(gen.MLP(8, 1))),
    gen.MaximumLikelihood(training=gen.Training(steps=4000, batch=64, rate=2e-3, held_out=0.2)),
    columns=["AGE", "HT", "WT", "SEX"],
    categories=["SEX"],
    progress=False,
)
print(people.fit.status)
print(people.compared().round(1))


# %%
# `nm.simulate` takes it where it takes a table. Here the concentration of a drug whose clearance grows with weight and falls with
# age, in two thousand new subjects:


class Sedative(nm.Model):
    CL = nm.LogNormal(
        20.0, iiv=0.2, covariates=[nm.Power("WT", reference=70, exponent=0.75), nm.Power("AGE", reference=40, exponent=-0.4)]
    )
    V = nm.LogNormal(40.0, iiv=0.2, covariates=[nm.Power("WT", reference=70, exponent=1.0)])
    dynamics = nm.OneCompartment()

    def observe(self, t, A, p):
        return {"conc": A.central / p.V}

    conc = nm.Proportional(0.1)


simulated = nm.simulate(
    Sedative(),
    nm.Regimen(100.0, every=6.0, doses=4),
    times=np.arange(0.0, 25.0),
    subjects=2000,
    covariates=people,
    key=1,
    progress=False,
)
found = nm.exposure(simulated)
print(pd.DataFrame({f"{100 * q:.0f} %": found[["AUC", "Cmax"]].quantile(q) for q in (0.05, 0.5, 0.95)}).round(2))

# %%
# ## 3. A rival without a mechanism
#
# How much is the mechanism worth? A variational autoencoder over whole concentration profiles knows the doses, and nothing of
# compartments. Both are models of the same observations, y_i | eta_i with eta_i ~ N(0, I), so that the same referee judges both,
# on subjects that neither has seen. (The autoencoder models log concentrations; the Jacobian, minus the sum of the logs, makes
# its density one of concentrations.)


class Oral(nm.Model):
    """The model that the data were simulated from, at other values."""

    ka = nm.LogNormal(2.0, iiv=0.5, unit="1/h")
    CL = nm.LogNormal(2.0, iiv=0.5, unit="L/h")
    V = nm.LogNormal(50.0, iiv=0.5, unit="L")
    dynamics = nm.OneCompartment(absorption="first-order")

    def observe(self, t, A, p):
        return {"conc": A.central / p.V}

    conc = nm.Proportional(0.3)


TIMES = np.array([0.5, 1.0, 2.0, 4.0, 6.0, 8.0, 12.0, 24.0])
TRUTH = Oral().at({"ka": 1.0, "CL": 4.0, "V": 70.0, "omega_ka": 0.3, "omega_CL": 0.3, "omega_V": 0.3, "conc_proportional": 0.2})


def profiles(size: int, key: int) -> pd.DataFrame:
    """Subjects on 10, 30, 60 or 120 mg."""
    rng = np.random.default_rng(key)
    doses = rng.choice([10.0, 30.0, 60.0, 120.0], size)
    rows = [(i + 1, t, d if t == 0 else np.nan, d) for i, d in enumerate(doses) for t in (0.0, *TIMES)]
    records = pd.DataFrame(rows, columns=["ID", "TIME", "AMT", "DOSE"]).assign(EVID=lambda x: (x["TIME"] == 0).astype(int), CMT=1)
    seen = nm.simulate(TRUTH, subjects=records, residual=True, key=key, progress=False).frame()
    seen = seen[seen["TIME"] > 0]
    records.loc[records["EVID"] == 0, "DV"] = np.maximum(seen["conc"].to_numpy(), 1e-4)
    return records


def matrices(records: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Log concentrations, a row per subject, and log doses."""
    wide = records[records["EVID"] == 0].pivot(index="ID", columns="TIME", values="DV")
    return np.log(wide.to_numpy()), np.log(records.groupby("ID")["DOSE"].first().to_numpy())[:, None]


test = profiles(300, key=100)
log_conc, log_dose = matrices(test)
rows = {}
for size in (60, 300, 3000):
    seen = profiles(size, key=size)
    mechanistic = nm.fit(Oral(), seen, nm.FOCE(interaction=True), progress=False)
    vae = nm.fit(
        gen.VAE(latent=3, decoder=gen.MLP(32, 1), encoder=gen.MLP(32, 1), likelihood=gen.GaussianLikelihood(sd="column")),
        matrices(seen),
        gen.VariationalBound(training=gen.Training(steps=4000, batch=128, rate=3e-3, held_out=0.2)),
        progress=False,
    )
    judged = {
        "one compartment": nm.log_marginal(mechanistic, test, nm.ImportanceSampling(draws=500), progress=False).per_subject,
        "autoencoder": nm.log_marginal(
            vae.model, (log_conc, log_dose), nm.ImportanceSampling(draws=500), progress=False
        ).per_subject,
    }
    by_subject = {name: found["log_likelihood"].to_numpy() for name, found in judged.items()}
    by_subject["autoencoder"] = by_subject["autoencoder"] - log_conc.sum(axis=1)
    lead = by_subject["one compartment"] - by_subject["autoencoder"]
    rows[size] = {
        **{name: x.mean() for name, x in by_subject.items()},
        "lead": lead.mean(),
        "its error": lead.std() / np.sqrt(len(lead)),
    }
print(pd.DataFrame.from_dict(rows, orient="index").rename_axis("subjects trained on").round(3))

# %%
# Nats for each subject that was held out. The mechanism is worth most where data are few: it is right here, and the autoencoder
# has to learn from the data what the model knows. With more subjects the lead shrinks. A lead that vanished, or turned, on real
# data would say that the mechanism is wrong in a way that the profiles show.
