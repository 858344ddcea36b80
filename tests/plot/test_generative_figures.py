"""Figures of generative models: what is drawn is what the models compute. How they look was judged by eye."""

import dataclasses
import inspect

import jax
import numpy as np
import pytest
from matplotlib.figure import Figure

import nlmefit as nm
from nlmefit import generative as gen
from nlmefit.generative.diffusion.diffusion import ancestral, ancestral_path
from nlmefit.generative.rows import Samples
from nlmefit.plot.density import height_that_holds
from nlmefit.plot.field import sources
from nlmefit.plot.schedule import TIMES, curves
from nlmefit.plot.training import running_mean

RNG = np.random.default_rng(0)
X = RNG.normal(size=(60, 2)) @ np.array([[1.0, 0.4], [0.0, 0.5]]) + [2.0, -1.0]
WIDE = RNG.normal(size=(40, 4)) * [1.0, 2.0, 3.0, 4.0]
NET = gen.MLP(4, 1)
LABELS = np.where(X[:, 0] > 2, "high", "low")


def started(model, data=X):
    return model.started(Samples.of(data), jax.random.key(1))


@pytest.fixture(scope="module")
def normal():
    return gen.PPCA(1).maximum_likelihood(X)


@pytest.fixture(scope="module")
def vae():
    return started(gen.VAE(3, NET, NET), WIDE)


@pytest.fixture(scope="module")
def flow():
    return started(gen.CNF(NET, gen.RungeKutta(1)))


@pytest.fixture(scope="module")
def diffusion():
    return started(gen.Diffusion(NET))


@pytest.fixture(scope="module")
def energy():
    return started(gen.EnergyModel(NET))


@pytest.fixture(scope="module")
def fit():
    training = gen.Training(steps=60, batch=20, held_out=0.2)
    return nm.fit(gen.EnergyModel(NET), X, gen.ScoreMatching(training=training), progress=False)


def drawn(ax, label):
    return next(line for line in ax.get_lines() if line.get_label() == label).get_data()


def saved(figure, tmp_path):
    assert isinstance(figure, Figure)
    figure.savefig(tmp_path / "figure.png", dpi=40)
    return figure


def test_training(fit, tmp_path):
    figure = saved(nm.plot.training(fit), tmp_path)
    ax = figure.axes[0]
    np.testing.assert_array_equal(drawn(ax, "loss of a batch"), fit.history[["step", "loss"]].T)
    np.testing.assert_allclose(drawn(ax, "running mean")[1], running_mean(fit.history["loss"].to_numpy(), 1), rtol=1e-9)
    seen = fit.history.dropna()
    np.testing.assert_array_equal(drawn(ax, "rows held out"), seen[["step", "held_out"]].T)
    assert drawn(ax, "kept weights")[1] == pytest.approx([fit.loss])
    assert ax.get_title(loc="left").startswith(f"{fit.status.state}: ")
    assert figure.get_suptitle() == "Training: EnergyModel by exact score matching"


def test_a_panel_for_each_loss(fit):
    figure = nm.plot.training(dataclasses.replace(fit, history=fit.history.assign(critic=1.0)))
    assert [ax.get_ylabel() for ax in figure.axes] == ["loss", "critic"]


def test_running_mean():
    np.testing.assert_allclose(running_mean(np.arange(6.0), 3), [0, 0.5, 1, 2, 3, 4])


def test_samples_beside_data(normal, vae, tmp_path):
    figure = saved(nm.plot.samples(normal, X, names=["log CL", "log V"], key=3), tmp_path)
    data, samples = figure.axes
    np.testing.assert_array_equal(np.transpose(data.get_lines()[0].get_data()), X)
    np.testing.assert_array_equal(np.transpose(samples.get_lines()[0].get_data()), normal.sample(60, key=3))
    assert [ax.get_title(loc="left") for ax in figure.axes] == ["Data", "Samples"]
    assert (data.get_xlabel(), data.get_ylabel()) == ("log CL", "log V")
    assert data.get_xlim() == samples.get_xlim()
    pairs = saved(nm.plot.samples(vae, WIDE), tmp_path)
    assert len(pairs.axes) == 16
    np.testing.assert_array_equal(np.transpose(pairs.axes[8].get_lines()[0].get_data()), WIDE[:, [0, 2]])
    pictures = saved(nm.plot.samples(vae, WIDE, shape=(2, 2), n=10), tmp_path)
    sheet = pictures.axes[1].images[0].get_array()
    np.testing.assert_array_equal(sheet[:, :2], vae.sample(10)[0].reshape(2, 2))
    one = saved(nm.plot.samples(vae, WIDE, columns=[2]), tmp_path)
    assert one.axes[0].get_xlabel() == "$x_{3}$"


def test_samples_under_conditions(tmp_path):
    model = started(gen.VAE(1, NET, NET), (X, X[:, :1]))
    figure = nm.plot.samples(model, X, given=X[:, :1], n=20)
    rows = np.sort(np.random.default_rng(0).permutation(60)[:20])
    np.testing.assert_array_equal(np.transpose(figure.axes[1].get_lines()[0].get_data()), model.sample(20, given=X[rows, :1]))
    with pytest.raises(nm.DataError, match="this model is conditional: give its 1 condition"):
        nm.plot.samples(model, X)


def test_density(normal, energy, tmp_path):
    figure = saved(nm.plot.density(normal, X, points=20), tmp_path)
    ax = figure.axes[0]
    shades = ax.collections[0].get_array().reshape(20, 20)
    across, up = (np.linspace(*limits, 20) for limits in (ax.get_xlim(), ax.get_ylim()))
    np.testing.assert_allclose(shades[7, 3], np.exp(normal.log_prob([[across[3], up[7]]]))[0], rtol=1e-9)
    assert len(drawn(ax, "Data")[0]) == 60
    figure = nm.plot.density(energy, X, points=20)
    ax = figure.axes[0]
    cell = np.prod([np.ptp(limits) / 19 for limits in (ax.get_xlim(), ax.get_ylim())])
    assert ax.collections[0].get_array().sum() * cell == pytest.approx(1.0)
    assert figure.axes[1].get_ylabel() == "p(x), normalised over the grid"


def test_height_that_holds():
    """Of a standard normal in the plane the region of 50 % ends where its density is half of the highest."""
    across = np.linspace(-5, 5, 301)
    p = np.exp(-0.5 * (across**2 + across[:, None] ** 2))
    assert height_that_holds(p, 0.5) == pytest.approx(0.5, abs=0.002)
    assert height_that_holds(p, 0.9) == pytest.approx(0.1, abs=0.002)


def test_velocity_field(flow, tmp_path):
    figure = saved(nm.plot.field(flow, X, times=(0.0, 1.0), paths=5, points=4, key=2), tmp_path)
    assert [ax.get_title(loc="left") for ax in figure.axes] == ["t = 1", "t = 0", "Paths"]
    Z = sources(flow, 400, None, 2)
    np.testing.assert_allclose(np.transpose(drawn(figure.axes[0], "points on their way")), Z, rtol=1e-12)
    np.testing.assert_allclose(
        np.transpose(drawn(figure.axes[2], "data (t = 0)")), flow.paths(Z[:5], np.linspace(1, 0, 41))[-1], rtol=1e-9
    )
    arrows = figure.axes[0].collections[0]
    towards = -flow.velocity_at(arrows.XY, 1.0)
    assert np.all(arrows.U * towards[:, 0] >= 0)
    short = np.linalg.norm(towards, axis=1) < np.quantile(np.linalg.norm(towards, axis=1), 0.9)
    np.testing.assert_allclose(arrows.U[short], towards[short, 0], rtol=1e-9)


def test_score_fields(diffusion, normal, energy, tmp_path):
    figure = saved(nm.plot.field(diffusion, X, times=(0.3,), points=4), tmp_path)
    assert figure.axes[0].get_title(loc="left") == "t = 0.3"
    for model in (normal, energy):
        figure = nm.plot.field(model, X, points=4)
        arrows, score = figure.axes[0].collections[0], model.stein_score(figure.axes[0].collections[0].XY)
        cosine = (arrows.U * score[:, 0] + arrows.V * score[:, 1]) / np.hypot(arrows.U, arrows.V) / np.hypot(*score.T)
        np.testing.assert_allclose(cosine, 1.0, rtol=1e-9)


def test_schedule(diffusion, tmp_path):
    """abar = sigmoid(log SNR); the weight of the data's error is SNR times that of the noise's; and it integrates to SNR / 2."""
    named = {"cosine": gen.Cosine(), "linear": gen.LinearLogSNR(6, -6), "of a model": diffusion}
    figure = saved(nm.plot.schedule(named), tmp_path)
    assert [text.get_text() for text in figure.legends[0].get_texts()] == list(named)
    _, share, log_snr, data, eps = curves(gen.Cosine())
    np.testing.assert_allclose(share, 1 / (1 + np.exp(-log_snr)), rtol=1e-12)
    np.testing.assert_allclose(data, np.exp(log_snr) * eps, rtol=1e-12)
    fine = curves(gen.LinearLogSNR(6, -6))
    integral = np.trapezoid(fine[3], fine[0])
    assert integral == pytest.approx(0.5 * (np.exp(6) - np.exp(-6)), rel=1e-3)
    for k, ax in enumerate(figure.axes):
        np.testing.assert_array_equal(drawn(ax, "cosine")[1], (share, log_snr, data, eps)[k])
        assert len(drawn(ax, "of a model")[0]) == TIMES


def test_latent(vae, normal, tmp_path):
    means = vae.transform(WIDE)
    figure = saved(nm.plot.latent(vae, WIDE, np.arange(40) % 3, components=(2, 0)), tmp_path)
    np.testing.assert_array_equal(np.transpose(drawn(figure.axes[0], "1")), means[1::3][:, [2, 0]])
    figure = nm.plot.latent(vae, WIDE, WIDE[:, 0], name="x")
    kept = np.sort(np.argsort(-means.var(axis=0))[:2])
    assert figure.axes[0].get_xlabel() == f"$z_{{{kept[0] + 1}}}$"
    assert figure.axes[1].get_ylabel() == "x"
    saved(nm.plot.latent(normal, X, LABELS), tmp_path)


def test_denoising(diffusion, tmp_path):
    figure = saved(nm.plot.denoising(diffusion, n=30, times=(0.0, 0.5, 1.0), steps=10), tmp_path)
    assert [ax.get_title(loc="left") for ax in figure.axes[:3]] == ["t = 1", "t = 0.5", "t = 0"]
    noised, predicted = (np.transpose(figure.axes[k].get_lines()[0].get_data()) for k in (0, 3))
    log_snr = diffusion.schedule.log_snr(1.0)
    expected = [diffusion.predicted(diffusion.units.x(x), log_snr, np.zeros(0)).data for x in noised[:1]]
    np.testing.assert_allclose(predicted[:1], diffusion.units.back(np.array(expected)), rtol=1e-9)
    square = started(gen.Diffusion(NET), WIDE)
    saved(nm.plot.denoising(square, shape=(2, 2), n=2, times=(1.0, 0.0), steps=3), tmp_path)


def test_the_path_of_a_sample_ends_at_the_sample(diffusion):
    """But for the noise that the data have at t = 0."""
    key, none = jax.random.key(4), np.zeros(0)
    path = ancestral_path(diffusion, key, none, 20)
    end = ancestral(diffusion, key, none, 20, 1.0)
    assert path.shape == (21, 2)
    least = np.exp(-0.5 * diffusion.schedule.log_snr(0.0)) * diffusion.units.scale
    assert np.all(np.abs(diffusion.units.back(path[-1]) - end) < 5 * least)


def test_reconstruction(vae, tmp_path):
    figure = saved(nm.plot.reconstruction(vae, WIDE, (2, 2), n=3), tmp_path)
    sheets = [ax.images[0].get_array() for ax in figure.axes]
    np.testing.assert_array_equal(sheets[0][:, :2], WIDE[0].reshape(2, 2))
    np.testing.assert_allclose(sheets[1][:, 3:5], vae.reconstruct(WIDE)[1].reshape(2, 2), rtol=1e-12)


@pytest.mark.parametrize(
    ("use", "match"),
    [
        (lambda m: nm.plot.density(m["vae"], WIDE), "VAE cannot compute log_prob: it does not have the density of x"),
        (lambda m: nm.plot.density(started(gen.CNF(NET), WIDE), WIDE), "models of 2 columns; this CNF has 4"),
        (lambda m: nm.plot.field(m["vae"], WIDE), "VAE cannot compute stein_score: it does not have the gradient of log p"),
        (lambda m: nm.plot.latent(m["flow"], X), "CNF cannot compute transform: it does not have a posterior"),
        (lambda m: nm.plot.reconstruction(m["flow"], X, (1, 2)), "CNF cannot compute reconstruct"),
        (lambda m: nm.plot.denoising(m["flow"]), "denoising is drawn of diffusions; CNF adds no noise"),
        (lambda m: nm.plot.schedule(m["flow"]), "the figure is of noise schedules.*got CNF"),
        (lambda m: nm.plot.schedule({}), "the dictionary is empty"),
        (lambda m: nm.plot.schedule(gen.LearnedSchedule()), "this LearnedSchedule has no values yet"),
        (lambda m: nm.plot.training(m["flow"]), "of a gen.GenerativeFit, got CNF"),
        (lambda m: nm.plot.samples("flow", X), "of a generative model or of its fit, got str"),
        (lambda m: nm.plot.samples(gen.CNF(NET), X), "this CNF has not been fitted"),
        (lambda m: nm.plot.denoising(gen.Diffusion(NET)), "this Diffusion has not been fitted"),
        (lambda m: nm.plot.samples(m["vae"], X), "X has 2 columns, the model 4"),
        (lambda m: nm.plot.samples(m["vae"], WIDE, columns=[0, 4]), r"up to 6 of the 4 columns, 0 to 3, got \[0, 4\]"),
        (lambda m: nm.plot.samples(m["vae"], WIDE, shape=(3, 2)), r"rows have 4 columns; images of shape \(3, 2\) have 6 pixels"),
        (lambda m: nm.plot.samples(m["vae"], WIDE, shape=(4,)), r"shape must be \(height, width\)"),
        (lambda m: nm.plot.field(m["flow"], X, times=(2.0,)), "times must be between 0 .data. and 1 .source."),
        (lambda m: nm.plot.latent(m["vae"], WIDE, [1, 2]), "labels has shape .2,.; give one for each of the 40 rows"),
        (lambda m: nm.plot.latent(m["vae"], WIDE, components=(0, 3)), "components must be one or two of 0 to 2"),
        (lambda m: nm.plot.latent(m["vae"], WIDE, list(map(str, range(40)))), "labels has 40 different texts"),
    ],
)  # fmt: skip
def test_what_makes_no_figure_is_refused(use, match, vae, flow):
    with pytest.raises(nm.NlmefitError, match=match):
        use({"vae": vae, "flow": flow})


def test_every_figure_of_generative_models_is_tested_here():
    names = ("training", "samples", "density", "field", "schedule", "latent", "denoising", "reconstruction")
    assert all(inspect.isfunction(getattr(nm.plot, name)) and name in nm.plot.__all__ for name in names)
