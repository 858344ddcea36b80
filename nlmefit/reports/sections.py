"""The page's sections, from what a fit and its data hold."""

import warnings
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from nlmefit import plot
from nlmefit.core.errors import NlmefitError
from nlmefit.core.versions import VERSIONED, package_version
from nlmefit.data.records import event_types
from nlmefit.diagnostics.diagnose import Diagnostics
from nlmefit.diagnostics.vpc import vpc
from nlmefit.reports.html import Html, definitions, inside, picture, table, tag
from nlmefit.reports.mathml import UnknownLatex, equations
from nlmefit.results.fit import Fit
from nlmefit.results.printed import shown
from nlmefit.results.saved import model_name
from nlmefit.results.stored import data_hash

MANY_PANELS = 12
"""Of the individual fits."""
CORRELATED = 0.8
"""Estimates whose correlation is at least that are named."""


def number(value: Any, digits: int = 4) -> str:
    """A number as text, with a true minus sign; a dash where there is none."""
    value = float(value)
    if not np.isfinite(value):
        return "–"
    text = f"{value:.0f}" if 10**digits <= abs(value) < 1e7 else f"{value:#.{digits}g}".rstrip(".")
    return "0" if value == 0 else text.replace("-", "−")


def plain(value: float) -> str:
    """A number of the data, without zeros at its end."""
    return f"{value:.5g}".replace("-", "−")


def share(value: Any) -> str:
    """A percentage with one decimal; a dash where there is none."""
    return f"{value:.1f}".replace("-", "−") if np.isfinite(value) else "–"


def head(found: Diagnostics, title: str) -> Html:
    """What decides the meaning of everything below."""
    fit = found.fit
    doc = (type(fit.model).__doc__ or "").strip().split("\n")[0]
    reasons = " ".join(fit.status.reasons)
    status = tag("p", tag("strong", fit.status.state), f": {reasons}" if reasons else "", class_=f"status {fit.status.state}")
    bound = fit.kind == "bound"
    error = f" ± {number(fit.mc_se, 2)}" if fit.mc_se else ""
    values = [("log p(y), at least", f"{fit.log_likelihood:.3f}{error}")] if bound else [
        ("OFV", f"{fit.ofv:.3f}"), ("Log-likelihood", f"{fit.log_likelihood:.3f}{error}"),
        *(() if fit.by_draws else (("AIC", f"{fit.aic:.2f}"), ("BIC", f"{fit.bic:.2f}"))),
    ]  # fmt: skip
    values += [("Subjects", str(len(fit.contributions))), ("Observations", str(fit.observations))]
    numbers = Html(definitions((k, v.replace("-", "−")) for k, v in values).replace("<dl>", '<dl class="numbers">', 1))
    what = "a bound, never comparable with an OFV" if bound else "−2 log L without the n log 2π of normal observations"
    kinds = {"approximation": "an approximation of", "estimate": "a Monte Carlo estimate of", "bound": "a bound below"}
    facts = [
        ("Method", f"{fit.method.name}: {fit.method!r}"),
        ("OFV" if not bound else "Objective", what),
        ("Log-likelihood", f"{kinds.get(fit.kind, str(fit.kind))} log p(y | θ)"),
        *((name.capitalize() if name.islower() else name, text) for name, text in fit.conventions.items()),
    ]
    name = model_name(fit.model)
    subtitle = f"{name} by {fit.method.name}. {doc}".strip() if title != name else f"By {fit.method.name}. {doc}".strip()
    return inside(
        tag("header", tag("h1", title), tag("p", subtitle, class_="subtitle"), status, numbers),
        tag("div", definitions(facts), class_="facts"),
    )


def parameters(fit: Fit) -> Html:
    rows = []
    estimates, networks = shown(fit)
    for name, row in estimates.iterrows():
        fixed = name in fit.fixed
        interval = f"{number(row['lower'])} to {number(row['upper'])}" if np.isfinite(row["lower"]) else "–"
        rse = share(row["rse"])
        se = "fixed" if fixed else number(row["se"], 3)
        shrunk = share(row["shrinkage"]) if np.isfinite(row["shrinkage"]) else ""
        rows.append(
            [str(name), row["unit"], number(row["estimate"]), se, "" if fixed else rse, "" if fixed else interval, shrunk]
        )
    headers = ["Parameter", "Unit", "Estimate", "SE", "RSE %", "95 % interval", "Shrinkage %"]
    caption = "Estimates on their natural scale; ω and residual parameters are standard deviations."
    neural = [tag("p", f"Network {name}: {text}.") for name, text in networks.items()]
    found = table(caption, headers, rows, (1,))
    return tag("section", tag("h2", "Parameters"), found, *neural, *_notes(fit), *_effects(fit), id="parameters")


def _notes(fit: Fit) -> Iterator[Html]:
    uncertainty = fit.uncertainty
    if uncertainty is None or uncertainty.kind == "none":
        yield tag("p", "No standard errors: the covariance of the estimates was not asked for.")
        return
    how = {"sandwich": "the sandwich R⁻¹ S R⁻¹", "R": "R⁻¹", "S": "S⁻¹", "posterior": "the posterior draws"}[uncertainty.kind]
    note = f" {uncertainty.note}" if uncertainty.note else ""
    yield tag("p", f"Standard errors from {how}; condition number {number(uncertainty.condition, 3)}.{note}")
    names, matrix = list(fit.correlation.index), fit.correlation.to_numpy()
    close = [
        f"{names[i]} and {names[j]} ({number(matrix[i, j], 2)})"
        for i, j in zip(*np.tril_indices(len(names), -1), strict=True)
        if abs(matrix[i, j]) >= CORRELATED
    ]
    if close:
        yield tag("p", f"Estimates correlated by {CORRELATED:g} or more: {', '.join(close)}.")


def _effects(fit: Fit) -> Iterator[Html]:
    """Omega: variances, sds, CVs, shrinkage and correlations."""
    own = fit.omega_table()
    if own.empty:
        yield tag("p", "The model has no random effects.")
        return
    names = [str(name) for name in own.index if not str(name).startswith("kappa_")]
    omega = fit.omega.loc[names, names].to_numpy()
    sd = np.sqrt(np.diag(omega))
    with np.errstate(divide="ignore", invalid="ignore"):
        correlation = omega / np.outer(sd, sd)
    correlated = [j for j in range(len(names)) if np.any(correlation[j + 1 :, j] != 0)]
    rows = []
    for k, (name, row) in enumerate(own.iterrows()):
        cells = [str(name), number(row["variance"]), number(row["sd"]), share(row["cv"]), share(row["shrinkage"])]
        rows.append(cells + [number(correlation[k, j], 3) if j < k < len(names) else "" for j in correlated])
    headers = ["Random effect", "Variance", "SD", "CV %", "Shrinkage %", *(f"Corr. with {names[j]}" for j in correlated)]
    yield tag("h3", "Random effects (Ω)")
    yield table("Shrinkage: 100 (1 − sd of the modes / ω).", headers, rows)


def model(fit: Fit) -> Html:
    try:
        shown = equations(fit.model.latex())
    except UnknownLatex:
        shown = tag("pre", fit.model.equations().partition("\n\nvalues\n")[0])
    return tag("section", tag("h2", "Model"), shown, id="model")


def data(found: Diagnostics) -> Html:
    """How much there is, and what is worth knowing about it."""
    subjects, records = found.data, found.data.records
    evid = event_types(records)
    doses = np.isin(evid, (1, 4))
    given = int((doses * (1 + records.column("ADDL", 0.0))).sum())
    time = records.frame["TIME"].to_numpy(float)
    counts = subjects.observations
    facts = [
        ("Subjects", str(len(subjects))),
        ("Records", f"{len(records.frame)}, from time {time.min():.4g} to {time.max():.4g}"),
        ("Observations", f"{counts.sum()}; {counts.min()} to {counts.max()} of a subject, median {np.median(counts):g}"),
        ("Doses", f"{given}" + (f" on {doses.sum()} records" if given != doses.sum() else "")),
    ]
    rows = []
    for name, mask in subjects.subjects.mask.items():
        value = np.asarray(subjects.subjects.observed[name])[mask]
        flag = (
            np.asarray(subjects.subjects.censoring[name].flag)[mask]
            if name in subjects.subjects.censoring
            else np.zeros(len(value))
        )
        seen = value[flag == 0]
        ends = [plain(x) for x in (seen.min(), np.median(seen), seen.max())] if len(seen) else ["–"] * 3
        rows.append([name, str(len(value)), f"{(flag > 0).sum()}", f"{(flag < 0).sum()}", *ends])
    headers = ["Endpoint", "Observations", "Below limit", "Above limit", "Minimum", "Median", "Maximum"]
    parts = [
        tag("div", definitions(facts), class_="facts"),
        table("Observations; their range without those beyond a limit.", headers, rows),
    ]
    parts += _covariates(found)
    findings = [tag("li", str(finding)) for finding in subjects.findings]
    parts += (
        [tag("h3", "Findings"), tag("ul", *findings)]
        if findings
        else [tag("p", "The check of the data found nothing to report.")]
    )
    return tag("section", tag("h2", "Data"), *parts, id="data")


def _covariates(found: Diagnostics) -> list[Html]:
    names = list(found.data.needs.covariates)
    if not names:
        return []
    first = found.data.records.frame.groupby("ID", sort=False)[names].first()
    rows = [[str(name), *_summary(v)] for name, v in first.items()]
    return [table("Covariates of the model, at the first record.", ["Covariate", "Values", "Minimum", "Median", "Maximum"], rows)]


def _summary(values: pd.Series) -> list[Any]:
    """How many values there are, and the least, middle and largest; of a category in text, its levels by frequency."""
    if values.dtype == object:
        counts = values.value_counts()
        return [", ".join(f"{level} ({count})" for level, count in counts.items()), "", "", ""]
    return [str(values.nunique()), *(plain(x) for x in (values.min(), values.median(), values.max()))]


# ---- figures ---------------------------------------------------------------------------------------------------------


GOF = "Observations against predictions, and weighted residuals; the trends should follow the straight lines."
CHECK = "Lines are percentiles of the observations, bands hold 90 % of the same percentiles of {} simulated data sets."
NPDE = "Normalized prediction distribution errors, of {} simulated data sets: standard normal if the model is right."
ETAS = "Modes of the random effects: their distribution, their pairs, and against covariates."


class Drawing(NamedTuple):
    title: str
    caption: str
    make: Callable[[], Figure]


def drawings(found: Diagnostics, strata: str | None, corrected: bool, draws: int) -> list[Drawing]:
    """What the page shows, in its order."""
    fit, ids = found.fit, found.problem.ids
    shown = list(ids[: max(1, MANY_PANELS // len(found.problem.families))])
    some = "all" if len(shown) == len(ids) else f"the first {len(shown)} of {len(ids)}"

    def check() -> Figure:
        options: dict[str, Any] = {"draws": draws, "key": found.key, "progress": found.progress}
        return plot.vpc(vpc(fit, found.data, strata=strata, corrected=corrected, **options))

    return [
        Drawing("Goodness of fit", GOF, lambda: plot.gof(found)),
        Drawing(
            "Individual fits",
            f"Observations and predictions over time of {some} subjects.",
            lambda: plot.individuals(found, subjects=shown),
        ),
        Drawing("Visual predictive check", CHECK.format(draws), check),
        Drawing("Prediction errors", NPDE.format(found.draws), lambda: plot.npde(found)),
        Drawing("Random effects", ETAS, lambda: plot.etas(found)),
        Drawing("Convergence", "The search, iteration by iteration.", lambda: plot.convergence(fit)),
    ]


def figures(planned: list[Drawing], name: str) -> Html:
    return tag(
        "section", tag("h2", "Diagnostics"), *(_figure(drawing, name) for drawing in planned), id="figures", class_="figures"
    )


def _figure(drawing: Drawing, name: str) -> Html:
    """The figure, or why there is none; what was warned of while it was made stands below it."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            image = picture(drawing.make(), f"{drawing.title} of {name}. {drawing.caption}")
        except NlmefitError as error:
            return tag("div", tag("h3", drawing.title), tag("p", f"Not drawn: {error}"))
    remarks = [str(w.message) for w in caught if issubclass(w.category, UserWarning)]
    return tag(
        "figure",
        tag("h3", drawing.title, class_="spoken"),
        image,
        tag("figcaption", " ".join([drawing.caption, *dict.fromkeys(remarks)])),
    )


# ---- where it comes from ---------------------------------------------------------------------------------------------


def origin(found: Diagnostics) -> Html:
    """Seconds, versions, the data's hash, the key, and when the page was written."""
    fit = found.fit
    made_with = fit.provenance.get("versions") or {name: package_version(name) for name in VERSIONED}
    rows = len(found.data.frame)
    facts = [
        ("Seconds", ", ".join(f"{name} {value:.2f}" for name, value in fit.seconds.items())),
        ("Versions", ", ".join(f"{name} {version}" for name, version in made_with.items())),
        ("Data", f"{rows} rows, SHA-256 {data_hash(found.data)}" + ("" if found.own else " (not the data of the fit)")),
        ("Random key", "–" if fit.key is None else str(np.asarray(fit.key).tolist())),
        ("Written", f"{datetime.now().astimezone():%Y-%m-%d %H:%M %Z} by nlmefit {package_version('nlmefit')}"),
    ]
    return tag("section", tag("h2", "Origin"), tag("div", definitions(facts), class_="facts"), id="origin")
