"""`fit.save` and `nm.load` of generative models: what comes back is what was there, whatever it is made of."""

import dataclasses
import json
import os
import sys
import zipfile
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest

import nlmefit as nm
from nlmefit import generative as gen
from nlmefit.core import archive
from nlmefit.generative.adversarial.game import AbstractGame
from nlmefit.generative.capability import AbstractGenerative
from nlmefit.generative.diffusion.guidance import AbstractGuided
from nlmefit.generative.diffusion.reverse_time import AbstractWrapped
from nlmefit.generative.diffusion.schedule import AbstractSchedule
from nlmefit.generative.energy.energy import AbstractEnergy
from nlmefit.generative.flows.coupling_layers import AbstractCoupling
from nlmefit.generative.serialization import content, own_names, restored
from nlmefit.generative.trainer import AbstractTrainer
from nlmefit.generative.transport.couplings import AbstractSourceCoupling
from nlmefit.generative.transport.neural_ode import AbstractSolver
from nlmefit.generative.variational.likelihood import AbstractLikelihood

X = np.random.default_rng(0).normal(size=(40, 2)) @ np.array([[1.0, 0.5], [0.0, 2.0]]) + 3
UPPER = (X[:, :1] > 3).astype(float)
FEW = gen.Training(steps=3, batch=20)
NET = gen.MLP(5, 1)
FLOW = gen.CNF(NET, gen.RungeKutta(2))


GIVEN = (X, UPPER)
LIKELIHOOD = gen.MaximumLikelihood(training=FEW)
WASSERSTEIN = gen.Adversarial(gen.Wasserstein("clipping"), 2, training=FEW)


def matching(coupling):
    return gen.FlowMatching(coupling, FEW)


MADE = {
    "spline flow": (gen.NormalizingFlow(1, gen.SplineCoupling(NET, 4)), X, LIKELIHOOD),
    "mixture flow": (gen.NormalizingFlow(1, gen.MixtureCoupling(NET, 3)), X, LIKELIHOOD),
    "affine flow, conditional": (gen.NormalizingFlow(1, gen.AffineCoupling(NET), False), GIVEN, LIKELIHOOD),
    "Glow": (gen.Glow((2, 2), 1, 1, 2), np.hstack([X, X[::-1]]), LIKELIHOOD),
    "CNF, likelihood": (gen.CNF(NET, gen.Euler(2), gen.Hutchinson(2)), X, LIKELIHOOD),
    "CNF, matched": (gen.CNF(NET, gen.Adaptive(1e-2)), X, matching(gen.Independent())),
    "CNF, learned coupling": (FLOW, X, matching(gen.LearnedCoupling(0.5, NET))),
    "field, transport": (gen.VelocityField(X[:20] - 3, NET, gen.Euler(2)), X, matching(gen.OptimalTransport(20, 40))),
    "VAE": (gen.VAE(1, NET, NET, gen.GaussianLikelihood("decoded"), "full"), X, gen.VariationalBound(training=FEW)),
    "VAE of bits": (gen.VAE(1, NET, NET, gen.BernoulliLikelihood()), (UPPER, X), gen.VariationalBound(1, 2, 0.0, FEW)),
    "hierarchy": (gen.HierarchicalVAE((2, 1), NET, NET), X, gen.VariationalBound(2, 1, 0.0, FEW)),
    "diffusion": (gen.Diffusion(NET, gen.Cosine(), "noise"), X, gen.DenoisingScoreMatching("snr", training=FEW)),
    "diffusion, learned": (gen.Diffusion(NET, gen.LearnedSchedule(units=3)), GIVEN, gen.VariationalBound(1, 1, 0.2, FEW)),
    "diffusion, linear beta": (gen.Diffusion(NET, gen.LinearBeta(), steps=10), X, gen.VariationalBound(training=FEW)),
    "diffusion, linear": (gen.Diffusion(NET, gen.LinearLogSNR(6.0)), X, gen.DenoisingScoreMatching(training=FEW)),
    "energy": (gen.EnergyModel(NET), X, gen.ScoreMatching("sliced", training=gen.Training(3, 20, held_out=0.2))),
    "GAN": (gen.GAN(2, NET, NET), X, gen.Adversarial(packing=2, training=FEW)),
    "GAN, conditional": (gen.GAN(1, NET, NET, "uniform"), GIVEN, WASSERSTEIN),
}  # fmt: skip

PREDICTED = {"spline flow": "log_prob", "CNF, matched": "to_source", "VAE": "transform", "energy": "stein_score"}


@pytest.fixture(scope="module")
def fits():
    """Made when first asked for."""
    found: dict[str, Any] = {}

    def fit(name):
        if name not in found:
            model, data, method = MADE[name]
            found[name] = nm.fit(model, data, method, key=5, progress=False)
        return found[name]

    return fit


@pytest.fixture
def path(tmp_path):
    return tmp_path / "fit.nlmefit"


def assert_same(a, b):
    """Values alike in class, structure, kind of array and every bit."""
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for one, other in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        assert type(one) is type(other)
        if eqx.is_array(one):
            assert one.dtype == other.dtype
            np.testing.assert_array_equal(one, other)
        else:
            assert one is other or one == other


@pytest.mark.parametrize("name", MADE)
def test_every_model_and_method_comes_back(name, fits, path):
    fit = fits(name)
    fit.save(path)
    loaded = nm.load(path)
    assert str(loaded) == str(fit)
    assert_same(loaded.model, fit.model)
    assert loaded.method == fit.method
    assert loaded.status == fit.status and loaded.loss == fit.loss and loaded.seconds == fit.seconds
    pd.testing.assert_frame_equal(loaded.history, fit.history, check_exact=True)
    np.testing.assert_array_equal(loaded.key, fit.key)
    assert loaded.provenance == fit.provenance
    if name in PREDICTED:  # the same function of the same numbers, which `assert_same` says of all; computed for a few
        np.testing.assert_array_equal(*(getattr(f.model, PREDICTED[name])(X) for f in (loaded, fit)))


def test_nothing_public_is_left_out(fits):
    """Every model, method, schedule, coupling, solver and likelihood of the package is in one of the fits above."""
    kinds = (
        AbstractGenerative,
        AbstractTrainer,
        AbstractSchedule,
        AbstractSourceCoupling,
        AbstractCoupling,
        AbstractSolver,
        AbstractGame,
    )
    public = {c for c in vars(gen).values() if isinstance(c, type) and issubclass(c, (*kinds, AbstractLikelihood))}
    elsewhere = {gen.PPCA, gen.FactorAnalysis, gen.Reflow}
    wrappers = {c for c in public if issubclass(c, AbstractWrapped | AbstractGuided)}
    used = {type(part) for made in MADE.values() for whole in (made[0], made[2]) for part in parts(whole)}
    assert public - elsewhere - wrappers - used == set()


def parts(value):
    yield value
    if dataclasses.is_dataclass(value):
        for field in dataclasses.fields(value):
            yield from parts(getattr(value, field.name))


@pytest.mark.parametrize("name", ["PPCA", "FactorAnalysis"])
def test_models_of_named_parameters_come_back(name, path):
    """Their fit is an `nm.Fit`, which takes the model."""
    kind = getattr(gen, name)
    wide = np.hstack([X, X[::-1] + 0.3 * X, X[:, :1] ** 2])
    fit = nm.fit(kind(1), wide, gen.MaximumLikelihood(covariance="none"), progress=False)
    fit.save(path)
    loaded = nm.load(path, model=kind(1))
    assert str(loaded) == str(fit)
    np.testing.assert_array_equal(loaded.model.log_prob(wide), fit.model.log_prob(wide))


def test_a_decoder_without_an_encoder_comes_back(path):
    """A VAE fitted as a mixed model: its fit is an `nm.Fit`, and the file holds its networks."""
    model = gen.VAE(1, gen.MLP(depth=0), NET)
    fit = nm.evaluate(model, X, nm.Laplace())
    fit.save(path)
    loaded = nm.load(path, model=model)
    assert_same(loaded.model, fit.model)
    assert nm.evaluate(loaded, X, nm.Laplace()).ofv == fit.ofv


def test_wrapped_and_guided_diffusions_come_back(fits, path):
    plain, conditional = fits("diffusion").model, fits("diffusion, learned").model
    for model in (
        gen.DDIM(plain, 7, 0.5),
        gen.ReverseSDE(plain, 9),
        gen.ProbabilityFlow(plain, 1e-3),
        gen.DDIM(gen.ClassifierFreeGuidance(conditional, 3.0)),
    ):
        dataclasses.replace(fits("diffusion"), model=model).save(path)
        assert_same(nm.load(path).model, model)


def test_reflow_keeps_the_earlier_flow(path, fits):
    earlier = fits("CNF, matched").model
    fit = nm.fit(earlier, X, matching(gen.Reflow(earlier)), progress=False)
    fit.save(path)
    assert_same(nm.load(path).method.coupling.earlier, earlier)


def test_training_goes_on_from_a_file_as_from_the_fit(fits, path):
    fit = fits("VAE")
    fit.save(path)
    loaded = nm.load(path)
    again, onward = (nm.fit(f.model, X, f.method, key=6, progress=False) for f in (fit, loaded))
    assert_same(onward.model, again.model)


# ---- classes and functions of the user's -----------------------------------------------------------------------------


class Bowl(AbstractEnergy):
    """E(x) = shape(depth |x|^2)."""

    shape: Any
    depth: jax.Array
    fitted_by: ClassVar[tuple[str, ...]] = ("ScoreMatching",)

    @property
    def dimension(self):
        return 2

    def built(self, data, key):
        return self

    def energy(self, x):
        return self.shape(self.depth * x @ x)


def root(x):
    return jnp.sqrt(1 + x)


def test_classes_of_ones_own_are_taken_from_the_model(path):
    bowl = Bowl(root, jnp.array(0.3))
    fit = nm.fit(bowl, X, gen.ScoreMatching(training=FEW), progress=False)
    fit.save(path)
    with pytest.raises(nm.NlmefitError, match=r"a Bowl, which this nlmefit does not know.*nm\.load\(path, model=\.\.\.\)"):
        nm.load(path)
    loaded = nm.load(path, model=bowl)
    np.testing.assert_array_equal(loaded.model.stein_score(X), fit.model.stein_score(X))
    with pytest.raises(nm.ModelError, match="the model that was fitted, Bowl, got EnergyModel"):
        nm.load(path, model=gen.EnergyModel())
    with pytest.raises(nm.NlmefitError, match="the file holds a root"):
        nm.load(path, model=Bowl(jnp.exp, jnp.array(0.0)))


def test_what_cannot_be_saved_is_named(fits, path):
    for thing, match in (
        (object(), r"model\.shape cannot be saved: object is no array"),
        ({"a": 1}, r"model\.shape cannot be saved: dict"),
        (type("MLP", (eqx.Module,), {})(), "holds a MLP which is not nlmefit's: give it a name of its own"),
    ):
        with pytest.raises(nm.ModelError, match=match):
            dataclasses.replace(fits("energy"), model=Bowl(thing, jnp.array(0.3))).save(path)
    assert not path.exists()

    def silu(x):
        return x

    with pytest.raises(nm.ModelError, match="holds a silu which is not nlmefit's"):
        content(Bowl(silu, jnp.array(0.3)), "model")
    with pytest.raises(nm.ModelError, match="two different things named <lambda>"):
        own_names(Bowl(lambda x: x, (lambda x: 1,)))


# ---- the file --------------------------------------------------------------------------------------------------------


def test_a_file_names_classes_and_imports_none(fits):
    """A name that is not among the package's own is no class, wherever it leads."""
    for name in ("os.system", "builtins.eval", "Popen", "jax.nn.silu"):
        with pytest.raises(nm.NlmefitError, match="does not know"):
            restored({"class": name, "fields": {}}, {})
        with pytest.raises(nm.NlmefitError, match="does not know"):
            restored({"function": name}, {})


def test_fields_that_differ_are_named(fits):
    packed = content(FEW, "training")
    assert restored(packed, {}) == FEW
    del packed["fields"]["rate"]  # as a file from before there was one
    assert restored(packed, {}) == dataclasses.replace(FEW, rate=gen.Training().rate)
    packed["fields"]["speed"] = 1
    with pytest.raises(nm.NlmefitError, match=r"Training has other fields here than in the file \(speed only in the file\)"):
        restored(packed, {})
    linear = content(eqx.nn.Linear(1, 1, key=jax.random.key(0)), "layer")
    del linear["fields"]["weight"]
    with pytest.raises(nm.NlmefitError, match=r"\(weight not in the file\)"):
        restored(linear, {})


def test_an_interrupted_save_leaves_the_old_file(fits, path, monkeypatch):
    archive.write(path, {"old": 1})

    def fail(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(KeyboardInterrupt):
        fits("VAE").save(path)
    assert archive.read(path) == {"old": 1}
    assert os.listdir(path.parent) == [path.name]


def test_files_that_are_no_fit(path):
    for made in ({"generative": {}}, {"generative": {"model": {"class": "VAE", "fields": 3}}}, {"generative": None}):
        archive.write(path, made)
        with pytest.raises(nm.NlmefitError, match="but not of a fit"):
            nm.load(path)


def test_newer_files_and_equal_ones(fits, path):
    """A newer format is refused; saving what was loaded writes the same bytes."""
    fits("VAE").save(path)
    whole = path.read_bytes()
    nm.load(path).save(path)
    assert path.read_bytes() == whole
    with zipfile.ZipFile(path) as file:
        members = {name: file.read(name) for name in file.namelist()}
    members["manifest.json"] = json.dumps({**json.loads(members["manifest.json"]), "version": 9}).encode()
    with zipfile.ZipFile(path, "w") as file:
        for name, data in members.items():
            file.writestr(name, data)
    with pytest.raises(nm.NlmefitError, match="version 9 of the format"):
        nm.load(path)


def test_provenance(fits):
    found = fits("VAE").provenance
    assert found["data"]["rows"] == 40 and len(found["data"]["sha256"]) == 64
    assert found["versions"]["numpy"] == np.__version__
    assert fits("hierarchy").provenance["data"] == found["data"] != fits("VAE of bits").provenance["data"]


def test_class_names_are_unique():
    """A file has a class by its name alone."""
    modules = [m for name, m in sys.modules.items() if name.startswith("nlmefit.generative.")]
    classes = [c for m in modules for c in vars(m).values() if isinstance(c, type) and c.__module__ == m.__name__]
    values = [c.__name__ for c in classes if dataclasses.is_dataclass(c)]
    assert sorted(values) == sorted(set(values))
