"""`fit.save` and `nm.load`: what comes back is what was there, and a file is whole or refused."""

import dataclasses
import hashlib
import io
import json
import os
import zipfile

import jax
import numpy as np
import pandas as pd
import pytest
from models import Theophylline, TheophyllineZeroOrder, examples

import nlmefit as nm
from nlmefit import generative as gen
from nlmefit.core import archive
from nlmefit.diagnostics import influence
from nlmefit.results import stored

FOCEI = nm.FOCE(interaction=True)
FRAMES = ("contributions", "eta", "individual", "omega", "history", "covariance", "correlation")


@pytest.fixture(scope="module")
def fit():
    example = examples()["theophylline"]
    return nm.fit(example.model, example.data, FOCEI)


@pytest.fixture(scope="module")
def X():
    return np.random.default_rng(0).normal(size=(30, 4)) @ np.diag([1.0, 2.0, 1.0, 0.5])


@pytest.fixture(scope="module")
def ppca(X):
    return nm.fit(gen.PPCA(latent=2), X, nm.Laplace())


@pytest.fixture
def path(tmp_path):
    return tmp_path / "fit.nlmefit"


def reloaded(fit, path, **options):
    fit.save(path)
    return nm.load(path, **options)


def assert_same(a, b):
    """Everything that a user reads of a fit, exactly."""
    assert str(a) == str(b)
    for name in FRAMES:
        pd.testing.assert_frame_equal(getattr(a, name), getattr(b, name), check_exact=True)
    for table in ("summary", "omega_table"):
        pd.testing.assert_frame_equal(getattr(a, table)(), getattr(b, table)(), check_exact=True)
    for name in ("estimates", "standard_errors", "shrinkage"):
        pd.testing.assert_series_equal(getattr(a, name), getattr(b, name), check_exact=True)
    np.testing.assert_array_equal(a.eta_covariance, b.eta_covariance)
    assert a.ofv == b.ofv or np.isnan([a.ofv, b.ofv]).all()  # of a bound
    for name in ("log_likelihood", "kind", "mc_se", "aic", "bic", "status", "fixed", "units", "conventions", "seconds"):
        assert getattr(a, name) == getattr(b, name), name
    assert (a.uncertainty is None) == (b.uncertainty is None)
    if a.uncertainty is not None:
        for field in dataclasses.fields(a.uncertainty):
            np.testing.assert_array_equal(getattr(a.uncertainty, field.name), getattr(b.uncertainty, field.name))
    assert [str(f) for f in a.findings] == [str(f) for f in b.findings]
    assert repr(a.method) == repr(b.method)
    for label in a.contributions.index[:2]:
        pd.testing.assert_series_equal(a.subject(label), b.subject(label), check_exact=True)


def test_a_fit_comes_back(fit, path):
    loaded = reloaded(fit, path)
    assert_same(fit, loaded)
    assert loaded.method.options == {"interaction": True, "covariance": "sandwich", "all_modes": False}
    assert loaded.model.equations() == fit.model.equations()
    assert loaded.model.values == fit.model.values
    np.testing.assert_array_equal(loaded.found.u, fit.found.u)
    np.testing.assert_array_equal(loaded.found.posterior.spread, fit.found.posterior.spread)


@pytest.mark.parametrize("name", ["covariates", "counts", pytest.param("occasions", marks=pytest.mark.slow), "fraction"])
def test_every_kind_of_model_comes_back(name, path):
    """Fixed parameters, unused occasions' effects, bounds on both sides, densities."""
    example = examples()[name]
    fit = nm.evaluate(example.model, example.data, nm.FO() if example.gaussian else nm.Laplace())
    assert_same(fit, reloaded(fit, path))
    assert_same(fit, nm.load(path, model=example.model.at({next(iter(example.model.values)): 0.6})))


def test_labels_warnings_and_no_random_effects_come_back(path):
    class Flat(nm.Model):
        a = nm.Theta(1.0, lower=0, upper=10)
        y = nm.Additive(1.0)

        def observe(self, t, A, p):
            return {"y": p.a + 0.0 * t}

    rng = np.random.default_rng(1)
    data = pd.DataFrame({"ID": np.repeat(["01", "1", "b"], 4), "TIME": np.tile([0.0, 1.0, 2.0, 2.0], 3)})
    fit = nm.fit(Flat(), data.assign(DV=1 + rng.normal(size=12)), nm.Laplace())
    fit = dataclasses.replace(fit, findings=("W0 something [rows 1, 2]",), uncertainty=None)
    loaded = reloaded(fit, path)
    assert_same(fit, loaded)
    assert list(loaded.eta.index) == ["01", "1", "b"]
    assert "W0 something" in str(loaded)


def test_a_generative_model_comes_back(ppca, X, path):
    loaded = reloaded(ppca, path, model=gen.PPCA(latent=2))
    assert_same(ppca, loaded)
    assert_same(ppca, nm.load(path))
    np.testing.assert_array_equal(loaded.model.log_prob(X), ppca.model.log_prob(X))
    assert nm.evaluate(loaded, X, nm.Laplace()).ofv == pytest.approx(ppca.ofv, abs=1e-9)
    with pytest.raises(nm.ModelError, match="random effects only given: z3"):
        nm.load(path, model=gen.PPCA(latent=3))
    with pytest.raises(nm.ModelError, match="the model that was fitted, PPCA, got Theophylline"):
        nm.load(path, model=Theophylline())


def test_the_key_is_kept(X, path):
    fit = nm.fit(gen.PPCA(latent=2), X, nm.SAEM(burn_in=100, smooth=10, covariance="none"), key=11, progress=False)
    loaded = reloaded(fit, path)
    again = nm.fit(gen.PPCA(latent=2), X, fit.method, key=jax.numpy.asarray(loaded.key), progress=False)
    pd.testing.assert_series_equal(again.estimates, fit.estimates, check_exact=True)


def test_saving_what_was_loaded_changes_nothing(fit, ppca, tmp_path):
    for k, (original, model) in enumerate([(fit, Theophylline()), (ppca, gen.PPCA(latent=2))]):
        first, second, third = (tmp_path / f"{k}{name}" for name in "abc")
        original.save(first)
        nm.load(first).save(second)
        nm.load(first, model=model).save(third)
        assert archive.read(first)["provenance"] == archive.read(third)["provenance"]
        assert first.read_bytes() == second.read_bytes()
        assert_same(nm.load(third), original)


def test_every_field_of_a_fit_is_kept_or_left_out_on_purpose():
    names = {field.name for field in dataclasses.fields(nm.Fit)}
    assert names == {*stored.AS_THEY_ARE, *stored.CONVERTED, *stored.LEFT_OUT}


def test_provenance(fit, path):
    loaded = reloaded(fit, path)
    data = examples()["theophylline"].data
    assert loaded.provenance["data"]["sha256"] == hashlib.sha256(data.to_csv(index=False).encode()).hexdigest()
    assert loaded.provenance["data"]["rows"] == len(data)
    assert loaded.provenance["versions"]["numpy"] == np.__version__
    assert set(loaded.provenance["versions"]) == {"nlmefit", "jax", "numpyro", "numpy", "pandas", "python"}


# ---- the model -------------------------------------------------------------------------------------------------------


def test_with_the_model_it_computes(fit, path):
    data = examples()["theophylline"].data
    loaded = reloaded(fit, path, model=Theophylline())
    assert_same(fit, loaded)
    pd.testing.assert_frame_equal(nm.predict(loaded, data, eta=loaded), nm.predict(fit, data, eta=fit), check_exact=True)
    assert nm.evaluate(loaded, data, FOCEI).ofv == pytest.approx(fit.ofv, abs=1e-9)


def test_without_the_model_it_says_what_is_missing(fit, path):
    data = examples()["theophylline"].data
    loaded = reloaded(fit, path)
    for use in (
        lambda: nm.predict(loaded, data),
        lambda: nm.evaluate(loaded, data, FOCEI),
        lambda: nm.fit(loaded.model, data, FOCEI),
        lambda: loaded.model.at({"CL": 1.0}),
        lambda: loaded.model.specification,
    ):
        with pytest.raises(nm.ModelError, match=r"nm\.load\(path, model=Theophylline\(\.\.\.\)\)"):
            use()
    assert "CL_i = CL·exp(eta_CL)" in repr(loaded.model)
    with pytest.raises(nm.NlmefitError, match="has no data"):
        loaded.to_arviz()


def test_a_loaded_fit_is_a_start(fit, path):
    data = examples()["theophylline"].data
    onward = nm.fit(Theophylline(), data, FOCEI, start=reloaded(fit, path))
    assert len(onward.history) <= 3


def test_another_model_is_refused_with_the_differences(fit, path):
    fit.save(path)
    with pytest.raises(nm.ModelError, match=r"only in the file: ka, omega_ka\n.*only given: Tk0, tlag"):
        nm.load(path, model=TheophyllineZeroOrder())
    with pytest.raises(nm.ModelError, match=r"-   ka_i = ka·exp\(eta_ka\)\n  \+   ka_i = ka \+ eta_ka"):
        nm.load(path, model=Theophylline(ka=nm.Normal(1.5, iiv=0.6, unit="1/h")))
    with pytest.raises(nm.ModelError, match="fixed parameters only given: CL"):
        nm.load(path, model=Theophylline(CL=nm.LogNormal(nm.Fixed(2.8), iiv=0.3, unit="L/h")))
    with pytest.raises(nm.ModelError, match="pass an instance"):
        nm.load(path, model=Theophylline)
    with pytest.raises(nm.ModelError, match="the model that was fitted"):
        nm.load(path, model=nm.load(path).model)


# ---- the file --------------------------------------------------------------------------------------------------------


def test_contents_come_back(path):
    content = {
        "text": "Größe °",
        "numbers": [1, 0.1 + 0.2, np.float64(1e-300), np.inf, -np.inf, True, None, 2**70],
        "nan": np.nan,
        "arrays": {
            "i": np.arange(3, dtype=np.int32),
            "b": np.array([[True], [False]]),
            "e": np.zeros((2, 0)),
            "s": np.array(2.5),
        },
        "frame": pd.DataFrame({"a": [1, 2], "b": ["x", None], "c": [0.1, np.nan]}, index=pd.Index(["007", "7"], name="ID")),
        "mixed": pd.DataFrame({"o": pd.Series([1, "1", None, 2.5], dtype=object)}),
        "empty": pd.DataFrame(index=pd.Index([3, 4], dtype=object, name="ID")),
        "series": pd.Series([1.0, 2.0], index=["u", "v"], name="estimate"),
    }
    archive.write(path, content)
    found = archive.read(path)
    assert found["text"] == content["text"]
    assert found["numbers"] == content["numbers"]
    assert np.isnan(found["nan"])
    for name, array in content["arrays"].items():
        np.testing.assert_array_equal(found["arrays"][name], array)
        assert found["arrays"][name].dtype == array.dtype
    for name in ("frame", "mixed", "empty"):
        pd.testing.assert_frame_equal(
            found[name], content[name], check_exact=True, check_column_type=len(content[name].columns) > 0
        )
    pd.testing.assert_series_equal(found["series"], content["series"], check_exact=True)


@pytest.mark.parametrize(
    "value", [object(), {1: 2}, {"@array": "x"}, np.array([object()]), pd.DataFrame({"t": pd.to_datetime(["2020"])})]
)
def test_what_cannot_be_saved_is_named(value, path):
    with pytest.raises(nm.NlmefitError, match=r"here cannot be saved|here\.t cannot be saved"):
        archive.write(path, {"here": value})
    assert not path.exists()


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
@pytest.mark.parametrize("moment", ["fsync", "replace"])
def test_an_interrupted_save_leaves_the_old_file(error, moment, fit, path, monkeypatch):
    archive.write(path, {"old": 1})

    def fail(*arguments):
        raise error

    monkeypatch.setattr(os, moment, fail)
    with pytest.raises(nm.NlmefitError if isinstance(error, OSError) else KeyboardInterrupt):
        fit.save(path)
    assert archive.read(path) == {"old": 1}
    assert os.listdir(path.parent) == [path.name]


def test_a_save_that_fails_halfway_leaves_the_old_file(fit, path, monkeypatch):
    archive.write(path, {"old": 1})
    write, count = zipfile.ZipFile.writestr, []

    def some(*arguments):
        count.append(1)
        if len(count) > 3:
            raise OSError(28, "No space left on device")
        return write(*arguments)

    monkeypatch.setattr(zipfile.ZipFile, "writestr", some)
    with pytest.raises(nm.NlmefitError, match=r"No space left on device\. What was there before is unchanged"):
        fit.save(path)
    assert archive.read(path) == {"old": 1}
    assert os.listdir(path.parent) == [path.name]


def test_places_where_no_file_can_be(fit, tmp_path):
    for use in (fit.save, nm.load):
        with pytest.raises(nm.NlmefitError, match="is a folder"):
            use(tmp_path)
    with pytest.raises(nm.NlmefitError, match=r"folder .*none does not exist"):
        fit.save(tmp_path / "none" / "fit")
    with pytest.raises(nm.NlmefitError, match="there is no file"):
        nm.load(tmp_path / "none")


def test_files_of_another_kind(path):
    path.write_bytes(b"ID,TIME,DV\n")
    with pytest.raises(nm.NlmefitError, match="not a file that nlmefit saved"):
        nm.load(path)
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("word/document.xml", "<x/>")
    with pytest.raises(nm.NlmefitError, match="not a file that nlmefit saved: it has no manifest"):
        nm.load(path)
    archive.write(path, {"something": "else"})
    with pytest.raises(nm.NlmefitError, match="but not of a fit"):
        nm.load(path)


def test_a_truncated_file(fit, path):
    fit.save(path)
    whole = path.read_bytes()
    for length in (0, 1, 30, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(nm.NlmefitError, match="cut off or damaged"):
            nm.load(path)


def test_no_changed_byte_goes_unnoticed(path):
    archive.write(path, {"numbers": np.arange(50.0), "text": "abc"})
    whole = path.read_bytes()
    for place in range(0, len(whole), 7):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0x55]) + whole[place + 1 :])
        try:
            found = archive.read(path)
        except nm.NlmefitError:
            continue
        # in what zip keeps twice or does not need: dates, attributes
        np.testing.assert_array_equal(found["numbers"], np.arange(50.0))
        assert found["text"] == "abc"


def rewritten(path, change):
    """The archive with its members changed by `change`."""
    with zipfile.ZipFile(path) as file:
        members = {name: file.read(name) for name in file.namelist()}
    change(members)
    with zipfile.ZipFile(path, "w") as file:
        for name, data in members.items():
            file.writestr(name, data)


def test_newer_versions_and_failing_checksums(fit, path):
    def newer(members):
        members["manifest.json"] = json.dumps({**json.loads(members["manifest.json"]), "version": 2}).encode()

    def changed(members):
        members["document.json"] = members["document.json"].replace(b"converged", b"canverged")

    for change, match in (
        (newer, "version 2 of the format, this nlmefit reads up to 1; update"),
        (changed, "document.json does not have its checksum"),
        (lambda members: members.pop("arrays/1.npy"), "arrays/1.npy is missing|arrays/2.npy is missing"),
        (lambda members: members.pop("document.json"), "document.json is missing"),
        (lambda members: members.pop("manifest.json"), "no manifest"),
    ):
        fit.save(path)
        rewritten(path, change)
        with pytest.raises(nm.NlmefitError, match=match):
            nm.load(path)


def test_no_object_is_unpickled(path):
    class Trap:
        def __reduce__(self):
            return (pytest.fail, ("code ran",))

    archive.write(path, {"array": np.zeros(2)})
    buffer = io.BytesIO()
    np.save(buffer, np.array([Trap()], dtype=object), allow_pickle=True)

    def change(members):
        (name,) = (n for n in members if n.endswith(".npy"))
        members[name] = buffer.getvalue()
        manifest = json.loads(members["manifest.json"])
        manifest["sha256"][name] = hashlib.sha256(buffer.getvalue()).hexdigest()
        members["manifest.json"] = json.dumps(manifest).encode()

    rewritten(path, change)
    with pytest.raises(nm.NlmefitError, match="content cannot be read"):
        archive.read(path)


# ---- loaded fits in other calls; paths; bombs --------------------------------------------------------------------------


def test_loaded_fits_are_compared_on_data_given(fit, path):
    loaded, bare = reloaded(fit, path, model=Theophylline()), reloaded(fit, path)
    data = examples()["theophylline"].data
    table = nm.compare({"own": fit, "loaded": loaded}, data=data, progress=False)
    assert table.loc["own", "log_marginal"] == pytest.approx(table.loc["loaded", "log_marginal"], abs=1e-9)
    with pytest.raises(nm.NlmefitError, match=r"holds no data: nm.compare\(fits, data="):
        nm.compare([fit, loaded], progress=False)
    with pytest.raises(nm.NlmefitError, match="was loaded without its model"):
        nm.compare([fit, bare], data=data, progress=False)
    with pytest.raises(nm.NlmefitError, match="was fitted to other data"):
        nm.compare([loaded], data=data[data["ID"] != 1], progress=False)


def test_data_given_to_a_comparison_are_never_ignored(fit):
    data = examples()["theophylline"].data
    exact = nm.Quadrature(nodes=3)
    wanted = nm.compare({"own": fit}, exact, progress=False)
    pd.testing.assert_frame_equal(nm.compare({"own": fit}, exact, data=data, progress=False), wanted)
    with pytest.raises(nm.NlmefitError, match=r"`own` was fitted to other data .* nm\.log_marginal"):
        nm.compare({"own": fit}, exact, data=data[data["ID"] < 3], progress=False)
    with pytest.raises(nm.DataError, match="must be a DataFrame"):
        nm.compare({"own": fit}, exact, data=3, progress=False)


@pytest.mark.parametrize("given", [3, "a", None, [], {}, [1]])
def test_what_cannot_be_compared(given):
    with pytest.raises(nm.NlmefitError, match="compare takes"):
        nm.compare(given)


def test_the_same_records_read_by_another_rule_are_other_data(fit):
    data = examples()["theophylline"].data
    assert stored.same_data(fit, nm.Subjects.from_frame(data, Theophylline()))
    for other in ({"covariates": "locf"}, {"blq": "M1"}):
        assert not stored.same_data(fit, nm.Subjects.from_frame(data, Theophylline(), **other))
    renamed = nm.Subjects.from_frame(data.rename(columns={"DV": "CONC"}), Theophylline(), {"CONC": "DV"})
    assert not stored.same_data(fit, renamed)


@pytest.mark.parametrize(
    "method", [nm.Quadrature(nodes=3), nm.MAP(nm.Quadrature(nodes=5)), nm.FOCE(interaction=True), nm.MAP(nm.Laplace())]
)
def test_the_likelihood_of_a_loaded_fit_is_that_of_its_method(method, tmp_path):
    data = examples()["theophylline"].data
    made = nm.evaluate(Theophylline(), data, nm.FOCE(covariance="none"))
    object.__setattr__(made, "method", method)
    loaded = reloaded(made, tmp_path / "a.nlmefit")
    assert influence._likelihood(loaded.method) == influence._likelihood(method)


@pytest.mark.parametrize("path", [3, None, ["a"], "a\0b"])
def test_paths_that_are_none(fit, path):
    for call in (fit.save, nm.load, lambda p: nm.report(fit, p)):
        with pytest.raises(nm.NlmefitError, match="path must be the path of a file"):
            call(path)


def test_a_file_that_would_fill_the_memory_is_not_read(tmp_path):
    path = tmp_path / "bomb.nlmefit"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("manifest.json", "{}")
        with file.open("document.json", "w") as member:
            for _ in range(300):
                member.write(bytes(1 << 20))
    assert path.stat().st_size < 1 << 20
    with pytest.raises(nm.NlmefitError, match="would take 300 MiB when unpacked"):
        nm.load(path)
