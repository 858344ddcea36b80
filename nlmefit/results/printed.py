"""A fit as it prints: first what decides its meaning."""

import numpy as np
import pandas as pd

from nlmefit.results import tables
from nlmefit.results.record import FitRecord
from nlmefit.results.saved import model_title, traits


def text(fit: FitRecord) -> str:
    """Method, status, data, objective and conventions; estimates; random effects; how it came about."""
    return "\n".join([*_header(fit), "", *_parameters(fit), "", *_random_effects(fit), *_footer(fit)])


def _header(fit: FitRecord) -> list[str]:
    lines = [f"{model_title(fit.model)} by {fit.method.name}", f"  status          {fit.status}"]
    lines.append(f"  data            {len(fit.contributions)} subjects, {tables.observations(fit)} observations")
    lines += _objective(fit)
    lines += [f"  {key:15s} {value}" for key, value in fit.conventions.items()]
    return lines


def _objective(fit: FitRecord) -> list[str]:
    error = f" +- {fit.mc_se:.2g}" if fit.mc_se else ""
    if fit.kind == "bound":
        return [f"  log p(y)        at least {fit.log_likelihood:.4f}{error}   (a bound, never comparable with an OFV)"]
    twice = f" +- {2 * fit.mc_se:.2g}" if fit.mc_se else ""
    decimals = 3 if fit.mc_se else 6
    likelihood = f"log L {fit.log_likelihood:.{decimals}f}"
    if not tables.drawn(fit):  # AIC and BIC are of a maximum, which draws have not
        likelihood += f", AIC {tables.aic(fit):.3f}, BIC {tables.bic(fit):.3f}"
    return [f"  OFV             {fit.ofv:.{decimals}f}{twice}   (-2 log L without n log 2pi; {likelihood})"]


def shown(fit: FitRecord) -> tuple[pd.DataFrame, dict[str, str]]:
    """`summary` without the weights of networks, and what stands for these: a line by network."""
    table, lines = tables.summary(fit), {}
    for name, weights in traits(fit.model).networks.items():
        size = float(np.sqrt(np.mean(fit.estimates[weights] ** 2)))
        table = table.drop(index=weights)
        lines[name] = f"{len(weights)} weights, {weights[0]} to {weights[-1]}, root mean square {size:.3g}"
    return table, lines


def _parameters(fit: FitRecord) -> list[str]:
    table, networks = shown(fit)
    lines = _drawn_lines(fit, table) if tables.drawn(fit) else _estimate_lines(fit, table)
    width = max([9, *map(len, table.index)])
    return lines + [f"  {name:{width}s} network: {text}" for name, text in networks.items()]


def _drawn_lines(fit: FitRecord, table: pd.DataFrame) -> list[str]:
    """Of a NUTS fit."""
    known, width, unit = tables.described_draws(fit), max([9, *map(len, table.index)]), max([4, *map(len, table["unit"])])
    titles = ["mean", "sd", "2.5 %", "50 %", "97.5 %"]
    head = "".join(f" {title:>10s}" for title in titles)
    lines = [f"  {'parameter':{width}s} {'unit':{unit}s}{head} {'R-hat':>7s} {'ESS':>6s}"]
    for name, row in table.iterrows():
        start = f"  {name:{width}s} {row['unit']:{unit}s}"
        if str(name) not in known:
            lines.append(f"{start} {row['estimate']:>10.5g} {'fixed':>10s}")
            continue
        of = known[str(name)]
        numbers = "".join(f" {of[title]:>10.4g}" for title in titles)
        hat, size = (f"{of[key]:{form}}" if np.isfinite(of[key]) else "-" for key, form in (("R-hat", ".3f"), ("ESS", ".0f")))
        lines.append(f"{start}{numbers} {hat:>7s} {size:>6s}")
    return lines


def _estimate_lines(fit: FitRecord, table: pd.DataFrame) -> list[str]:
    width = max(map(len, table.index), default=9)
    unit = max([4, *map(len, table["unit"])])
    interval = "95 % interval"
    lines = [f"  {'parameter':{max(width, 9)}s} {'unit':{unit}s} {'estimate':>11s} {'se':>11s} {'rse %':>7s}   {interval}"]
    for name, row in table.iterrows():
        head = f"  {name:{max(width, 9)}s} {row['unit']:{unit}s} {row['estimate']:>11.5g} "
        if name in fit.fixed:
            lines.append(head + f"{'fixed':>11s}")
        elif np.isfinite(row["se"]):
            rse = f"{row['rse']:.1f}" if np.isfinite(row["rse"]) else "-"
            lines.append(head + f"{row['se']:>11.4g} {rse:>7s}   {row['lower']:.5g} to {row['upper']:.5g}")
        else:
            lines.append(head + f"{'-':>11s}")
    return lines


def _random_effects(fit: FitRecord) -> list[str]:
    if fit.eta.shape[1] == 0:
        return []
    table = tables.omega_table(fit)
    width = max(9, *map(len, table.index))
    lines = [f"  {'eta':{width}s} {'variance':>11s} {'sd':>9s} {'CV %':>7s} {'shrinkage %':>12s}"]
    for name, row in table.iterrows():
        cv = f"{row['cv']:.1f}" if np.isfinite(row["cv"]) else "-"
        lines.append(f"  {name:{width}s} {row['variance']:>11.5g} {row['sd']:>9.4g} {cv:>7s} {row['shrinkage']:>12.1f}")
    return [*lines, ""]


def _footer(fit: FitRecord) -> list[str]:
    lines = []
    if fit.uncertainty is not None and fit.uncertainty.kind != "none":
        how = {"sandwich": "R^-1 S R^-1", "R": "R^-1", "S": "S^-1", "posterior": "the posterior draws"}[fit.uncertainty.kind]
        lines.append(f"  standard errors from {how}; condition number {fit.uncertainty.condition:.3g}")
        if fit.uncertainty.note:
            lines.append(f"  note: {fit.uncertainty.note}")
    lines += [f"  data: {finding}" for finding in fit.findings]
    spent = ", ".join(f"{key} {value:.2f}" for key, value in fit.seconds.items())
    return [*lines, f"  seconds: {spent}"]
