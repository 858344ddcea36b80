"""The command line: `nlmefit fit MODEL.py DATA.csv`, `nlmefit check MODEL.py DATA.csv`.

Exit status: 0 converged (check: no errors), 1 an error, 2 wrong usage, 3 the fit did not converge.
"""

from __future__ import annotations

import argparse
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import nlmefit as nm
from nlmefit.core.errors import unknown

if TYPE_CHECKING:
    import pandas as pd

METHODS: dict[str, tuple[str, dict[str, bool]]] = {
    "focei": ("FOCE", {"interaction": True}),
    "foce": ("FOCE", {}),
    "fo": ("FO", {}),
    "laplace": ("Laplace", {}),
    "quadrature": ("Quadrature", {}),
    "saem": ("SAEM", {}),
    "imp": ("ImportanceEM", {}),
    "its": ("ITS", {}),
    "vi": ("VI", {}),
}
"""Names of classes, not the classes: nothing is imported before it is used."""

SAVED = "fit.nlmefit"
"""The file of `--out` that `nm.load` reads."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status."""
    parser = _parser()
    arguments = parser.parse_args(argv)
    if arguments.command == "fit" and arguments.nodes is not None and arguments.method != "quadrature":
        parser.error(f"--nodes is an option of --method quadrature, not of {arguments.method}.")
    try:
        return (_fit if arguments.command == "fit" else _check)(arguments)
    except nm.NlmefitError as error:
        print(f"nlmefit: {type(error).__name__}: {error}", file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("nlmefit", description="Nonlinear mixed-effects models of pharmacometrics.")
    parser.add_argument("--version", action="version", version=f"nlmefit {nm.__version__}")
    commands = parser.add_subparsers(dest="command", required=True)
    fit = commands.add_parser("fit", help="fit a model, print the result, write tables")
    check = commands.add_parser("check", help="list what is wrong with the data")
    for command in (fit, check):
        command.add_argument("model", metavar="MODEL.py[:NAME]", help="Python file with a subclass of nlmefit.Model")
        command.add_argument("data", metavar="DATA.csv", type=Path, help="records in NONMEM's columns, comma-separated")
        command.add_argument(
            "--columns",
            nargs="+",
            action="extend",
            default=[],
            type=assignment,
            metavar="YOURS=STANDARD",
            help="what your columns mean, such as CONC=DV",
        )
    fit.add_argument("--method", choices=METHODS, default="focei", help="default: %(default)s")
    fit.add_argument("--nodes", type=int, metavar="N", help="quadrature points per random effect")
    fit.add_argument("--key", type=int, default=0, metavar="N", help="number that decides all random draws; default: 0")
    fit.add_argument("--covariance", choices=("sandwich", "R", "S", "none"), default="sandwich", help="of the estimates")
    fit.add_argument(
        "--start",
        nargs="+",
        action="extend",
        default=[],
        type=number,
        metavar="NAME=VALUE",
        help="other values to start from, such as CL=2.5 omega_CL=0.3",
    )
    fit.add_argument(
        "--out", type=Path, metavar="DIR", help="folder for the tables and fit.nlmefit (see nm.load), made if need be"
    )
    fit.add_argument("--report", type=Path, metavar="PATH", help="HTML file for the whole fit: tables, equations, data, figures")
    fit.add_argument(
        "--overwrite", action="store_true", help="replace the tables in DIR and the report if there are such already"
    )
    return parser


def assignment(text: str) -> tuple[str, str]:
    """'CONC=DV' as a pair. (argparse names these two functions in its messages.)"""
    name, value = text.split("=", 1)
    return name, value


def number(text: str) -> tuple[str, float]:
    """'CL=2.5' as a pair."""
    return text.split("=", 1)[0], float(assignment(text)[1])


def _fit(arguments: argparse.Namespace) -> int:
    out: Path | None = arguments.out
    if out is not None and out.exists() and (not out.is_dir() or (any(out.iterdir()) and not arguments.overwrite)):
        raise nm.NlmefitError(f"--out {out} holds something already; name another folder, or add --overwrite.")
    report: Path | None = arguments.report
    if report is not None and report.exists() and not arguments.overwrite:
        raise nm.NlmefitError(f"--report {report} exists already; name another file, or add --overwrite.")
    model = load_model(arguments.model)
    options = {"covariance": arguments.covariance} | ({} if arguments.nodes is None else {"nodes": arguments.nodes})
    data = nm.Subjects.from_frame(_read(arguments.data), model, columns=dict(arguments.columns))
    kind, interaction = METHODS[arguments.method]
    method = getattr(nm, kind)(**interaction, **options)
    fit = nm.fit(model, data, method, key=arguments.key, start=dict(arguments.start))
    print(fit)
    if out is not None:
        write(fit, out)
    if report is not None:
        report.parent.mkdir(parents=True, exist_ok=True)
        nm.report(fit, report, key=arguments.key)
    return 0 if fit.status else 3


def _check(arguments: argparse.Namespace) -> int:
    data, model = _read(arguments.data), load_model(arguments.model)
    found = nm.check(data, model, columns=dict(arguments.columns))
    for _, finding in found.iterrows():
        rows = ", ".join(map(str, finding["rows"][:8])) + (", ..." if len(finding["rows"]) > 8 else "")
        where = (f" rows {rows}" if rows else "") + (f" subject {finding['subject']}" if finding["subject"] else "")
        print(f"{finding['severity']} {finding['code']}{where}: {finding['what']}\n    {finding['fix']}")
    errors = int((found["severity"] == "error").sum())
    print(f"{len(data)} records: {errors} errors, {len(found) - errors} warnings")
    return 1 if errors else 0


def write(fit: nm.Fit, folder: Path) -> None:
    """Write every table of `fit` into `folder` as CSV, the printed fit and model as text, and the fit itself for `nm.load`."""
    folder.mkdir(parents=True, exist_ok=True)
    by_subject = {"eta": fit.eta, "individual": fit.individual, "subjects": fit.contributions}
    by_name = {"estimates": fit.summary(), "covariance": fit.covariance, "correlation": fit.correlation}
    for name, table in (by_subject | by_name).items():
        table.to_csv(folder / f"{name}.csv", index_label="ID" if name in by_subject else "parameter")
    fit.omega_table().to_csv(folder / "omega.csv", index_label="eta")
    fit.history.to_csv(folder / "history.csv", index=False)
    for name, content in {"fit": fit, "model": fit.model}.items():
        (folder / f"{name}.txt").write_text(f"{content}\n", encoding="utf-8")
    fit.save(folder / SAVED)


def _read(path: Path) -> pd.DataFrame:
    import pandas as pd

    try:
        return pd.read_csv(path)
    except (OSError, ValueError) as error:  # pandas' own errors are ValueErrors
        raise nm.DataError(f"{path} cannot be read as comma-separated text: {error}") from error


def load_model(place: str) -> nm.Model:
    """The model in a Python file: `file.py` if it defines just one, `file.py:Name` for one of several.

    Raises ModelError where the file cannot be read or run, or does not define that model.
    """
    path, _, name = place.rpartition(":")
    if not (path and name.isidentifier()):
        path, name = place, ""
    found = _models(path)
    if name in found or (len(found) == 1 and not name):
        return found[name or next(iter(found))]()
    if found:
        several = f"it defines {', '.join(found)}; say which, as in {path}:{next(iter(found))}."
        raise nm.ModelError(f"{path}: {unknown('model', name, found) if name else several}")
    raise nm.ModelError(f"{path} defines no model: write a subclass of nlmefit.Model in it.")


def _models(path: str) -> dict[str, type[nm.Model]]:
    """The model classes that the file itself defines, not those that it imports."""
    module = ModuleType(f"nlmefit_model_{Path(path).stem}")
    module.__file__, sys.modules[module.__name__] = path, module
    sys.path.insert(0, str(Path(path).resolve().parent))  # like a script, it may import its neighbours
    try:
        exec(compile(Path(path).read_bytes(), path, "exec"), vars(module))
    except nm.NlmefitError:
        raise
    except Exception as error:
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == path]
        where = f"{path}, line {lines[-1]}" if lines else f"the model file {path} cannot be read"
        raise nm.ModelError(f"{where}: {type(error).__name__}: {error}") from error
    finally:
        sys.path.pop(0)
    return {
        name: value
        for name, value in vars(module).items()
        if isinstance(value, type) and issubclass(value, nm.Model) and value.__module__ == module.__name__
    }
