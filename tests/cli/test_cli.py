"""The command line, run in this process: what it writes, what it prints, its exit status."""

import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

import nlmefit as nm
from nlmefit.cli import main as cli

FILES = {"estimates", "omega", "eta", "individual", "subjects", "covariance", "correlation", "history"}

SECOND = """

class Flat(nm.Model):
    V = nm.LogNormal(30.0, iiv=0.2)

    def observe(self, t, A, p):
        return {"conc": p.V}

    conc = nm.Additive(1.0)
"""


@pytest.fixture
def model(root: Path) -> str:
    return str(root / "tutorials" / "theophylline.py")


@pytest.fixture
def data(root: Path) -> str:
    return str(root / "datasets" / "theophylline.csv")


@pytest.fixture
def two_models(model: str, tmp_path: Path) -> str:
    path = tmp_path / "two.py"
    path.write_text(Path(model).read_text(encoding="utf-8").partition("if __name__")[0] + SECOND, encoding="utf-8")
    return str(path)


def refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """The message of a command that must end with an error and without a traceback."""
    assert cli.main(arguments) == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("nlmefit: ")
    assert "Traceback" not in printed.err
    return printed.err


def test_fit_prints_and_writes(model: str, data: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "deep" / "results"
    assert cli.main(["fit", model, data, "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    assert "Theophylline by FOCE with interaction" in printed
    assert "converged" in printed
    assert {path.name for path in out.iterdir()} == {f"{name}.csv" for name in FILES} | {"fit.txt", "model.txt", "fit.nlmefit"}
    assert (out / "fit.txt").read_text(encoding="utf-8") == printed
    assert "Theophylline" in (out / "model.txt").read_text(encoding="utf-8")


def test_tables_are_those_of_the_fit(model: str, data: str, tmp_path: Path, theophylline: pd.DataFrame) -> None:
    assert cli.main(["fit", model, data, "--out", str(tmp_path / "out")]) == 0
    fit = nm.fit(cli.load_model(model), theophylline, nm.FOCE(interaction=True))
    tables = {name: pd.read_csv(tmp_path / "out" / f"{name}.csv") for name in FILES}
    estimates = tables["estimates"].set_index("parameter")
    assert list(estimates.index) == list(fit.estimates.index)
    assert estimates["estimate"].to_numpy() == pytest.approx(fit.estimates.to_numpy(), rel=1e-12)
    assert estimates["se"].to_numpy() == pytest.approx(fit.standard_errors.to_numpy(), rel=1e-9)
    assert estimates.loc["ka", "unit"] == "1/h"
    for name, table in (("eta", fit.eta), ("individual", fit.individual)):
        written = tables[name].set_index("ID")
        assert list(written.index) == list(range(1, 13))
        assert written.to_numpy() == pytest.approx(table.to_numpy(), rel=1e-6, abs=1e-9)
    assert tables["subjects"]["ofv"].sum() == pytest.approx(fit.ofv, rel=1e-10)
    assert list(tables["covariance"].columns) == ["parameter", *fit.estimates.index]
    assert tables["correlation"].loc[0, "ka"] == pytest.approx(1.0)
    assert tables["omega"].set_index("eta").loc["ka", "sd"] == pytest.approx(fit.estimates["omega_ka"], rel=1e-9)
    assert len(tables["history"]) == len(fit.history) > 1


@pytest.mark.parametrize(
    ("options", "title"),
    [
        (["--method", "fo"], "by FO\n"),
        (["--method", "foce", "--covariance", "R"], "by FOCE\n"),
        (["--method", "laplace", "--covariance", "S"], "by Laplace\n"),
        (["--method", "quadrature", "--nodes", "3"], "by adaptive Gauss-Hermite quadrature, 3 nodes\n"),
    ],
)
def test_methods(options: list[str], title: str, model: str, data: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["fit", model, data, *options]) == 0
    assert title in capsys.readouterr().out


def test_no_standard_errors(model: str, data: str, tmp_path: Path) -> None:
    assert cli.main(["fit", model, data, "--covariance", "none", "--out", str(tmp_path)]) == 0
    assert pd.read_csv(tmp_path / "estimates.csv")["se"].isna().all()


def test_start_and_columns(model: str, theophylline: pd.DataFrame, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "renamed.csv"
    theophylline.rename(columns={"DV": "CONC", "ID": "PATIENT"}).to_csv(path, index=False)
    options = ["--columns", "CONC=DV", "PATIENT=ID", "--start", "CL=2.5", "omega_ka=0.7", "--start", "V=30"]
    assert cli.main(["fit", model, str(path), *options]) == 0
    assert "OFV             116.80341" in capsys.readouterr().out


def test_a_fit_that_does_not_converge(model: str, data: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Exit status 3, and the tables are there. (The status is forged.)"""
    converged = nm.fit

    def unconverged(*arguments: object, **options: object) -> nm.Fit:
        fit = converged(*arguments, **options)  # type: ignore[arg-type]
        object.__setattr__(fit.status, "state", "uncertain")
        return fit

    monkeypatch.setattr(nm, "fit", unconverged)
    assert cli.main(["fit", model, data, "--out", str(tmp_path)]) == 3
    assert "uncertain" in (tmp_path / "fit.txt").read_text(encoding="utf-8")


def test_out_is_not_overwritten_unasked(model: str, data: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mine = tmp_path / "estimates.csv"
    mine.write_text("precious")
    assert "--overwrite" in refused(["fit", model, data, "--out", str(tmp_path)], capsys)
    assert "name another folder" in refused(["fit", model, data, "--out", str(mine), "--overwrite"], capsys)
    assert mine.read_text() == "precious"
    assert [path.name for path in tmp_path.iterdir()] == ["estimates.csv"]
    assert cli.main(["fit", model, data, "--out", str(tmp_path), "--overwrite"]) == 0
    assert mine.read_text().startswith("parameter,estimate")


def test_missing_files(model: str, data: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert "nowhere.csv cannot be read" in refused(["fit", model, "nowhere.csv"], capsys)
    assert "nowhere.py cannot be read" in refused(["fit", "nowhere.py", data], capsys)


def test_empty_and_binary_data(model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "data.csv"
    path.write_text("")
    assert "data.csv cannot be read as comma-separated text" in refused(["fit", model, str(path)], capsys)
    path.write_bytes(b"\xff\xfe\x00\x01")
    assert "data.csv cannot be read as comma-separated text" in refused(["check", model, str(path)], capsys)


def test_file_without_a_model(data: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "empty.py"
    path.write_text("import nlmefit as nm\nfrom nlmefit import Model\n")
    assert "defines no model" in refused(["fit", str(path), data], capsys)


def test_file_with_two_models(two_models: str, data: str, capsys: pytest.CaptureFixture[str]) -> None:
    message = refused(["fit", two_models, data], capsys)
    assert "Theophylline, Flat" in message
    assert f"{two_models}:Theophylline" in message
    assert "did you mean `Flat`?" in refused(["fit", f"{two_models}:flat", data], capsys)
    assert type(cli.load_model(f"{two_models}:Flat")).__name__ == "Flat"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = 1\nundefined_name\n", "line 2: NameError"),
        ("class A(:\n", "SyntaxError"),
        ("import nlmefit as nm\nclass A(nm.Model):\n    V = nm.LogNormal(-1.0)\n", "ModelError"),
    ],
)
def test_model_file_with_a_mistake(
    text: str, message: str, data: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "broken.py"
    path.write_text(text)
    assert message in refused(["fit", str(path), data], capsys)


def test_a_model_may_import_its_neighbour(tmp_path: Path, model: str) -> None:
    (tmp_path / "neighbour_of_a_model.py").write_text("TYPICAL = 2.5\n")
    text = Path(model).read_text(encoding="utf-8").replace("2.8", "TYPICAL")
    lines = "from neighbour_of_a_model import TYPICAL\n\nimport nlmefit as nm"
    (tmp_path / "model.py").write_text(text.replace("import nlmefit as nm", lines))
    assert cli.load_model(str(tmp_path / "model.py")).values["CL"] == 2.5


def test_unknown_column_and_parameter(model: str, data: str, capsys: pytest.CaptureFixture[str]) -> None:
    message = refused(["fit", model, data, "--columns", "CONC=DV"], capsys)
    assert "`CONC`" in message
    assert "TIME" in message
    assert "did you mean `CL`?" in refused(["fit", model, data, "--start", "Cl=2"], capsys)


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["fit"],
        ["simulate", "m.py", "d.csv"],
        ["fit", "m.py", "d.csv", "--method", "bayes"],
        ["fit", "m.py", "d.csv", "--nodes", "5"],
        ["fit", "m.py", "d.csv", "--start", "CL=big"],
        ["fit", "m.py", "d.csv", "--start", "CL"],
        ["fit", "m.py", "d.csv", "--columns", "CONC"],
    ],
)
def test_wrong_usage(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        cli.main(arguments)
    assert stop.value.code == 2
    assert "usage: nlmefit" in capsys.readouterr().err


def test_check(model: str, data: str, theophylline: pd.DataFrame, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["check", model, data]) == 0
    assert "144 records: 0 errors, 0 warnings" in capsys.readouterr().out
    spoilt = theophylline.astype({"DV": object})
    spoilt.loc[[3, 5], "DV"] = "high"
    spoilt.to_csv(tmp_path / "spoilt.csv", index=False)
    assert cli.main(["check", model, str(tmp_path / "spoilt.csv")]) == 1
    printed = capsys.readouterr().out
    assert printed.startswith("error E")
    assert "rows 3, 5" in printed
    assert "1 errors" in printed
    assert "rows 3, 5" in refused(["fit", model, str(tmp_path / "spoilt.csv")], capsys)


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        cli.main(["--version"])
    assert stop.value.code == 0
    assert capsys.readouterr().out == f"nlmefit {nm.__version__}\n"


def test_the_version_is_told_without_importing_what_fits_take(root: Path) -> None:
    options = {"capture_output": True, "text": True, "cwd": root, "timeout": 60, "check": True}
    command = [sys.executable, "-X", "importtime", "-m", "nlmefit.cli", "--version"]
    run = subprocess.run(command, **options)  # type: ignore[call-overload]
    assert run.stdout == f"nlmefit {nm.__version__}\n"
    assert not any(name in run.stderr for name in ("pandas", "numpyro", "equinox", "diffrax", "matplotlib"))


def test_the_saved_fit_is_read_back(model: str, data: str, tmp_path: Path, theophylline: pd.DataFrame) -> None:
    assert cli.main(["fit", model, data, "--out", str(tmp_path / "out")]) == 0
    fit = nm.load(tmp_path / "out" / "fit.nlmefit", model=cli.load_model(model))
    assert nm.evaluate(fit, theophylline, nm.FOCE(interaction=True)).ofv == pytest.approx(fit.ofv, abs=1e-6)
