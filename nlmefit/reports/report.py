"""`nm.report`: a fit as one HTML page that needs nothing else."""

import os
import secrets
from pathlib import Path

import pandas as pd

from nlmefit.core.errors import NlmefitError
from nlmefit.core.keys import Key
from nlmefit.core.options import check_path, check_truth
from nlmefit.data.subjects import Subjects
from nlmefit.diagnostics.diagnose import diagnose
from nlmefit.reports import sections
from nlmefit.reports.html import Html, tag
from nlmefit.results.fit import Fit
from nlmefit.results.saved import model_name

STYLE = Path(__file__).with_name("page.css")


def report(
    fit: Fit,
    path: str | os.PathLike[str],
    data: pd.DataFrame | Subjects | None = None,
    *,
    title: str | None = None,
    strata: str | None = None,
    corrected: bool = False,
    draws: int = 1000,
    key: Key = 0,
    progress: bool = True,
) -> Path:
    """Write a fit to one HTML file, for the screen and for print: status, objective and conventions; estimates and random
    effects; the model's equations; the data and what its check found; goodness of fit, individual fits (12 panels), visual
    predictive check, prediction errors, random effects, convergence; versions, the data's hash and the random key. It has its
    figures within and loads nothing.

    **Arguments:** `path` of the file; `data` None for the fit's own (a loaded fit needs it here); `title` of the page, by default
    the model's name; `strata` (a column) and `corrected` as in `nm.vpc`; `draws` simulated data sets of the diagnostics; `key`
    decides them; `progress` lines on standard error.

    Returns the path. A file that is there already is replaced at the end, in one step. In place of a figure that cannot be
    drawn stands the reason. Raises NlmefitError where `path` is a folder, lies in none, or cannot be written, and as
    `nm.diagnose` does.
    """
    target = _target(path)
    for option, value in (("title", title), ("strata", strata)):
        if value is not None and not isinstance(value, str):
            raise NlmefitError(f"{option} must be text, got {value!r}.")
    check_truth("corrected", corrected)
    found = diagnose(fit, data, draws=draws, key=key, progress=progress)
    name = model_name(fit.model)
    heading = name if title is None else str(title)
    parts = [
        sections.head(found, heading),
        _contents(),
        sections.parameters(fit),
        sections.model(fit),
        sections.data(found),
        sections.figures(sections.drawings(found, strata, corrected, draws), name),
        sections.origin(found),
    ]
    _write(target, _page(heading, parts))
    return target


def _contents() -> Html:
    places = {"parameters": "Parameters", "model": "Model", "data": "Data", "figures": "Diagnostics", "origin": "Origin"}
    return tag("nav", *(tag("a", text, href=f"#{place}") for place, text in places.items()), aria_label="Contents")


def _page(title: str, parts: list[Html]) -> str:
    head = tag(
        "head",
        Html('<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'),
        tag("title", title),
        tag("style", Html(STYLE.read_text(encoding="utf-8"))),
    )
    body = tag("body", tag("main", *parts))
    return "<!DOCTYPE html>\n" + tag("html", head, body, lang="en") + "\n"


def _target(path: str | os.PathLike[str]) -> Path:
    target = check_path(path)
    if target.is_dir():
        raise NlmefitError(f"{path} is a folder; name the file to write in it, such as {target / 'report.html'}.")
    if not target.parent.is_dir():
        raise NlmefitError(f"{path} cannot be written: there is no folder {target.parent}.")
    return target


def _write(target: Path, text: str) -> None:
    """Under another name first: whoever interrupts keeps the old file."""
    partial = target.with_name(f".{target.name}.{secrets.token_hex(4)}.partial")
    try:
        partial.write_text(text, encoding="utf-8")
        os.replace(partial, target)
    except OSError as error:
        raise NlmefitError(
            f"{target} could not be written: {error.strerror or error}. What was there before is unchanged."
        ) from error
    finally:
        partial.unlink(missing_ok=True)
