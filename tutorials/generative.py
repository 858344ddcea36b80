"""Generative models on the engine of mixed models. `python tutorials/page.py generative` makes a page of it, `generative.md`."""

# %%
# # From mixed models to generative models
#
# A population model and a variational autoencoder are one model. Both say
#
#     y_i | eta_i ~ p(y | eta_i),        eta_i ~ N(0, Omega),        i = 1..N
#
# and differ in what computes p(y | eta): pharmacokinetics with a handful of parameters, or a network. This page goes through the
# family in that notation, on one data set, with one referee: log p(y) of profiles that no model was fitted to. What a model does
# not share with the others is said where it comes up. Time runs one way throughout: t = 0 is data, t = 1 is noise.
#
# The data are log concentrations of an oral drug at six times. A third of the population are poor metabolisers, whose clearance
# is a quarter of the others': the law of clearance has two modes, which a log-normal one has not.

import time
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pandas as pd

import nlmefit as nm
from nlmefit import generative as gen

HERE = Path(__file__).parent
TIMES = np.array([0.5, 1.0, 2.0, 6.0, 12.0, 24.0])
POOR, SLOWER, NOISE = 1 / 3, 0.25, 0.1


def profiles(n, seed):
    """log concentrations (n, 6) after 100 mg, and who is a poor metaboliser."""
    rng = np.random.default_rng(seed)
    poor = rng.random(n) < POOR
    ka, CL, V = np.array([[1.0], [4.0], [30.0]]) * np.exp(np.array([[0.7], [0.2], [0.15]]) * rng.normal(size=(3, n)))
    CL = np.where(poor, SLOWER, 1.0) * CL
    ka, k = ka[:, None], (CL / V)[:, None]
    conc = 100 / V[:, None] * ka / (ka - k) * (np.exp(-k * TIMES) - np.exp(-ka * TIMES))
    return np.log(conc) + NOISE * rng.normal(size=conc.shape), poor


Y, poor = profiles(1000, seed=1)
held_out, _ = profiles(1000, seed=2)
print(pd.DataFrame(Y, columns=TIMES).describe().loc[["mean", "std", "min", "max"]].round(2))

# %%
# ## A linear model: PPCA
#
#     y = W eta + mu + eps,        eta ~ N(0, I),        eps ~ N(0, sigma^2 I)
#
# Probabilistic PCA is a mixed model that is linear in its random effects. Its marginal law is N(mu, W W' + sigma^2 I), so that
# log p(y) is exact, and FO, FOCE, Laplace and quadrature all agree with it. It is the case that every method here is tested on.


def row(name, value, kind, began, se=0.0):
    """A line of the table at the end of this page: log p(y) by profile."""
    found.append((name, round(value, 2), round(se, 2), kind, round(time.perf_counter() - began, 1)))
    print(f"{name}: held-out log p(y) {value:.2f} by profile ({kind})")


found: list[tuple[str, float, float, str, float]] = []
began = time.perf_counter()
ppca = gen.PPCA(latent=3).maximum_likelihood(Y)
row("PPCA", ppca.score(held_out), "exact", began)
laplace = nm.evaluate(ppca, held_out, nm.Laplace())
print(f"the same by Laplace's approximation: {laplace.log_likelihood / len(held_out):.2f}")

# %%
# ## A mixed model
#
# p(y | eta) is one compartment with first-order absorption; its random effects are those of ka, CL and V. There is no closed
# form for log p(y) any more: FOCE approximates it to fit the model, importance sampling judges the fit.


class Oral(nm.Model):
    ka = nm.LogNormal(1.0, iiv=0.4, unit="1/h")
    CL = nm.LogNormal(3.0, iiv=0.5, unit="L/h")
    V = nm.LogNormal(30.0, iiv=0.2, unit="L")
    dynamics = nm.OneCompartment(absorption="first-order")
    logc = nm.Additive(0.1)

    def observe(self, t, A, p):
        return {"logc": jnp.log(A.central / p.V + 1e-9)}  # at the dose itself there is nothing yet


def records(Y):
    """NONMEM's records of profiles: a dose and six observations each."""
    ids = np.arange(len(Y))
    dose = pd.DataFrame({"ID": ids, "TIME": 0.0, "AMT": 100.0, "EVID": 1, "DV": np.nan})
    seen = pd.DataFrame({"ID": np.repeat(ids, 6), "TIME": np.tile(TIMES, len(Y)), "AMT": 0.0, "EVID": 0, "DV": Y.ravel()})
    return pd.concat([dose, seen]).sort_values(["ID", "TIME"], kind="stable")


began = time.perf_counter()
nlme = nm.fit(Oral(), records(Y), nm.FOCE(covariance="none"), progress=False)
judged = nm.log_marginal(nlme, records(held_out), nm.ImportanceSampling(draws=500), progress=False)
row("NLME by FOCE", judged.value / len(held_out), "importance sampling", began, judged.mc_se / len(held_out))
print(nlme.estimates.round(3).to_dict())

# %%
# omega_CL is far from the 0.2 that CL has in each of the two groups: one normal distribution stands for both. What a model could
# reach at best is the law that the data are from, a mixture of two mixed models:

values = {"ka": 1.0, "V": 30.0, "omega_ka": 0.7, "omega_CL": 0.2, "omega_V": 0.15, "logc_additive": NOISE}
began = time.perf_counter()
logs = []
for share, CL in ((1 - POOR, 4.0), (POOR, 4.0 * SLOWER)):
    group = nm.log_marginal(Oral().at({**values, "CL": CL}), records(held_out), nm.ImportanceSampling(draws=500), progress=False)
    logs.append(np.log(share) + group.per_subject["log_likelihood"].to_numpy())
truth = float(np.mean(np.logaddexp(*logs)))
row("the truth", truth, "importance sampling", began)

# %%
# ## A network for the pharmacokinetics: the VAE
#
#     y | z ~ N(f(z), diag s^2),        z ~ N(0, I)
#
# f is a network, and z are random effects without names. Nothing else is new: `nm.log_marginal` and the methods of mixed models
# read a VAE as they read `Oral` (small ones can be fitted by `nm.VI()`, which has a q for each subject). What makes it feasible
# with many weights is the encoder, a network that maps y to q(z | y) = N(m(y), S(y)): amortised inference. Both are trained on
#
#     log p(y) >= E_q[ log p(y | z) ] - KL( q(z | y) || N(0, I) )
#
# The gap is KL(q(z | y) || p(z | y)), and its direction matters: q comes first in both divergences.

TRAINING = gen.Training(steps=4000, batch=250, rate=3e-3, average=0.995, held_out=0.1, precision="float32")

began = time.perf_counter()
vae = nm.fit(gen.VAE(3, covariance="full"), Y, gen.VariationalBound(training=TRAINING), progress=False)
print(vae)
bound = float(np.mean(vae.model.elbo(held_out, draws=200)))
judged = nm.log_marginal(vae.model, held_out, nm.ImportanceSampling(draws=500), progress=False)
row("VAE", judged.value / len(held_out), "importance sampling", began, judged.mc_se / len(held_out))
print(f"its bound: {bound:.2f}")
nm.plot.latent(vae, Y, np.where(poor, "poor metaboliser", "other")).savefig(HERE / "generative_latent.png", dpi=75)

# %%
# Nobody told it of two groups. Its latent variables have found them; only their names are ours.
#
# ![Posterior means](generative_latent.png)
#
# ## Random effects on random effects: hierarchical VAEs
#
#     y | z_1,    z_1 | z_2 ~ N(m(z_2), diag s(z_2)^2),    z_2 ~ N(0, I)
#
# A second level makes the law of z_1 as crooked as the data need, as a distribution of distributions does in a mixed model. On
# the engine its random effects are still standard normal: z_2, and (z_1 - m) / s.

began = time.perf_counter()
hierarchy = nm.fit(gen.HierarchicalVAE((3, 2)), Y, gen.VariationalBound(training=TRAINING), progress=False)
marginal = hierarchy.model.log_marginal(held_out, draws=500)
row("hierarchical VAE", marginal.value / len(held_out), "bound, 500 draws", began)

# %%
# ## Many levels and nothing to learn of q: diffusion
#
#     y_t = sqrt(abar(t)) y + sqrt(1 - abar(t)) eps,        SNR(t) = abar / (1 - abar)
#
# With ever more levels, and q fixed to be the data with ever more noise, a hierarchical VAE is a diffusion model: the same bound,
# in which the divergences of all the steps become one squared error, weighted by the fall of the signal-to-noise ratio,
#
#     log p(y) >= reconstruction - KL( q(y_1 | y) || N(0, I) ) - E_t[ -SNR'(t) |y - prediction(y_t, t)|^2 / 2 ]
#
# In continuous time the bound depends on the ends of the schedule alone. The network that predicts is, but for scaling, the
# score of the noised data: d log p_t(y_t) / dy_t = -E[eps | y_t] / sqrt(1 - abar). (Without the expectation it is the score of
# q(y_t | y), another thing.) The equation of the probability flow has the same laws and a density, as far as that score is the
# true one: otherwise it is another model, and its log p(y) may lie below the bound of the first.

LONGER = gen.Training(steps=6000, batch=250, rate=3e-3, average=0.998, precision="float32")

began = time.perf_counter()
diffusion = nm.fit(gen.Diffusion(gen.MLP(64, 3)), Y, gen.VariationalBound(training=LONGER), progress=False)
row("diffusion", float(np.mean(diffusion.model.elbo(held_out, draws=200))), "bound", began)
began = time.perf_counter()
flowing = gen.ProbabilityFlow(diffusion.model, rtol=1e-4, atol=1e-4)
row("  its probability flow", flowing.score(held_out), "exact", began)
schedules = {"linear log SNR": gen.LinearLogSNR(), "cosine": gen.Cosine(), "linear beta": gen.LinearBeta()}
nm.plot.schedule(schedules).savefig(HERE / "generative_schedule.png", dpi=75)

# %%
# ![Schedules](generative_schedule.png)
#
# What it does is easier to see of two columns, concentrations at 1 h and at 24 h:

PAIR, NAMES = [1, 5], ["log C at 1 h", "log C at 24 h"]
FASTER = gen.Training(steps=3000, batch=250, rate=3e-3, average=0.995, precision="float32")
plane = nm.fit(gen.Diffusion(gen.MLP(64, 3)), Y[:, PAIR], gen.DenoisingScoreMatching(training=FASTER), progress=False)
nm.plot.denoising(plane, names=NAMES).savefig(HERE / "generative_denoising.png", dpi=75)

# %%
# ![Denoising](generative_denoising.png)
#
# ## A score without a sampler: energy-based models
#
#     p(y) = exp(-E(y)) / Z
#
# No latent variables, no samples for free, and Z unknown. Its score s = -dE/dy does not know Z, and is fitted by the Fisher
# divergence from the data, with the sign of the trace as it follows from s = -dE/dy:
#
#     E |s - d log p_data|^2 / 2  =  E[ |s|^2 / 2 + tr ds/dy ] + constant  =  E[ |dE/dy|^2 / 2 - tr d2E/dy2 ] + constant
#
# What it shares with the others is the score (a diffusion has one for every t, this model has the one at t = 0). log p(y) takes
# an estimate of Z, here by annealed importance sampling. It is fitted to data with a little noise added, which is the cheapest
# way, and so the law that it has is that of those.

began = time.perf_counter()
matching = gen.ScoreMatching("denoising", noise=0.15, training=FASTER)
energy = nm.fit(gen.EnergyModel(gen.MLP(64, 2, "softplus")), Y, matching, progress=False)
Z = energy.model.log_normalizer(draws=1000, temperatures=300)
row("energy-based", float(np.mean(energy.model.unnormalized_log_prob(held_out)) - Z.value), "log Z estimated", began, Z.mc_se)

# %%
# ## Samples and nothing else: GANs
#
#     y = G(z),        z ~ N(0, I)
#
# A prior, a generator, a sample: no log p(y), no posterior, no bound. The critic that trains it estimates a divergence from
# below, and no loss falls as the samples become good. So its fit is judged by samples beside data, and has no row in the table.

GAME = gen.Training(steps=1000, rate=1e-3, average=0.99, betas=(0.5, 0.9), precision="float32")
adversarial = gen.Adversarial(gen.Wasserstein(), training=GAME)
gan = nm.fit(gen.GAN(4, gen.MLP(64, 2), gen.MLP(64, 2)), Y, adversarial, progress=False)
for name, drawn in (
    ("GAN", gan.model.sample(1000)),
    ("the VAE", vae.model.sample(1000)),
    ("as many new profiles", profiles(1000, 3)[0]),
):
    print(f"energy distance from held-out profiles: {gen.energy_distance(drawn, held_out):.4f} ({name})")
try:
    gan.model.log_prob(held_out)
except gen.NotTractableError as error:
    print(error)

# %%
# ## No gap to close: normalizing flows
#
#     y = T(z),  z ~ N(0, I):        log p(y) = log N(T^-1(y)) + log|det dT^-1/dy|
#
# The latent variables are a function of the data: the posterior is a point, the bound is no bound, and inference is an inverse.
# The machinery of mixed models has nothing to do here; what is shared is the other way round, T as a posterior
# (`nm.VI(family=nm.TriangularFlow())`).

began = time.perf_counter()
STOPPED = gen.Training(steps=1200, batch=250, rate=3e-3, average=0.99, held_out=0.1, precision="float32")
splines = gen.NormalizingFlow(4, gen.SplineCoupling(gen.MLP(32, 2), bins=5))
flow = nm.fit(splines, Y, gen.MaximumLikelihood(training=STOPPED), progress=False)
row("normalizing flow", flow.model.score(held_out), "exact", began)

# %%
# ## Infinitely many layers: continuous flows and flow matching
#
#     dy/dt = v(y, t),        log p(y) = log N(y(1)) + int_0^1 tr dv/dy dt
#
# A residual network is Euler's method with steps of length 1. Trained by likelihood, each step solves the equation; flow matching
# replaces that by a regression on straight lines from data y to noise z,
#
#     E | z - y - v(y + t (z - y), t) |^2
#
# which is neither a bound nor a likelihood: what is reported is log p(y) of the fitted v. Any coupling of y and z with these
# marginals will do, and optimal transport makes the straightest paths. (A coupling that is learned, as a VAE's q, has to keep the
# marginals too, and a KL to the prior does not see to that: `gen.LearnedCoupling` starts its samples from the law that it has.)

began = time.perf_counter()
cnf = nm.fit(gen.CNF(network=gen.MLP(64, 3)), Y, gen.FlowMatching(training=LONGER), progress=False)
row("CNF by flow matching", cnf.model.score(held_out), "exact", began)

transport = gen.FlowMatching(gen.OptimalTransport(), training=FASTER)
for name, method in (("independent", gen.FlowMatching(training=FASTER)), ("transport", transport)):
    fit = nm.fit(gen.CNF(network=gen.MLP(64, 3)), Y[:, PAIR], method, progress=False)
    bend = gen.straightness(fit.model, fit.model.to_source(Y[:500, PAIR])).bend
    print(f"{name} coupling: how far paths are from straight {bend:.4f}, log p(y) {fit.model.score(held_out[:, PAIR]):.3f}")
nm.plot.field(fit, Y[:, PAIR], names=NAMES).savefig(HERE / "generative_field.png", dpi=75)

# %%
# ![Field](generative_field.png)
#
# ## One referee
#
# Per profile, of 1000 that no model has seen, beside the law that they are from. A bound is no more than that: the log p(y) of
# its model may be larger. One training of each, with little search for good options: the table shows how models are compared,
# not which is best. Seconds are of fitting and judging, with compilation, on a busy machine of two cores.

table = pd.DataFrame(found, columns=["model", "log p(y)", "MC error", "which is", "seconds"]).sort_values(
    "log p(y)", ascending=False
)
print(table.to_string(index=False))

# %%
# In print, some of these formulas are often found otherwise: the trace in score matching with a plus where E is differentiated
# (it makes a flat energy the best one), the score of q(y_t | y) in place of that of the noised data, the divergences of the bound
# with p first, and samples of a learned coupling started from its prior. Each of these is wrong, and
# [a test](claims.md) here would fail with it.
