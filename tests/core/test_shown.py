"""What results show: whole tables, short findings, HTML in a notebook, what makes a variant one."""

import html
import re

import numpy as np
import pandas as pd
import pytest

import nlmefit as nm


class Level(nm.Model):
    """A level with <b>two</b> names."""

    b = nm.Normal(1.0, iiv=0.5, unit="mg/L")

    def observe(self, t, A, p):
        return {"y": p.b + 0 * t}

    y = nm.Additive(0.3)


def levels(subjects=20):
    rng = np.random.default_rng(1)
    y = 1 + 0.5 * rng.normal(size=(subjects, 1)) + 0.3 * rng.normal(size=(subjects, 4))
    return pd.DataFrame({"ID": np.repeat(np.arange(subjects), 4), "TIME": np.tile([0.0, 1, 2, 3], subjects), "DV": y.ravel()})


@pytest.fixture(scope="module")
def fit():
    return nm.fit(Level(), levels(), nm.FOCE(), progress=False)


@pytest.fixture(scope="module")
def nuts():
    return nm.fit(Level(), levels(), nm.NUTS(warmup=200, draws=200, max_draws=400, chains=2), progress=False)


def text_of(page):
    return html.unescape(re.sub("<[^>]*>", "", page))


def test_a_notebook_shows_what_print_shows(fit):
    simulation = nm.simulate(fit, times=[0.0, 1.0], progress=False)
    made = (nm.diagnose(fit, progress=False), simulation, nm.posterior(fit, levels(), 10), nm.check(levels(), Level()))
    for what in (fit, Level(), *made):
        page = what._repr_html_()
        assert text_of(page) == str(what)
        assert "<b>two</b>" not in page


def test_a_comparison_prints_whole(fit):
    table = nm.compare({"<script>": fit, "other": fit}, progress=False)
    assert "..." not in repr(table) and "log_marginal" in repr(table) and "status" in repr(table)
    page = table._repr_html_()
    assert "<script>" not in page and "&lt;script&gt;" in page and "objective_kind" in page
    assert type(table.sort_values("AIC")) is type(table)


def test_findings_print_short():
    data = levels(30).assign(EVID=1)
    found = nm.check(data, Level())
    shown = repr(found)
    many, *_ = (row for row in found["rows"] if len(row) == 120)
    assert many == list(range(120))
    assert re.search(r"warning, 120 rows: 0, 1, 2, 3, 4, \.\.\. \(first subject 0\)\n    ", shown)
    assert repr(nm.check(levels(), Level())) == "No findings: the data can be used as they are."
    assert "code" in repr(found[["code", "severity"]])


def test_a_variant_says_what_differs(fit):
    variant = Level(b=nm.Normal(2.0, iiv=0.1))
    assert str(variant).startswith("Level with b = Normal(2.0, iiv=0.1): A level")
    assert str(Level().at({"b": 3.0})).startswith("Level at b = 3: A level")
    assert str(Level()).startswith("Level: A level")
    assert str(nm.evaluate(variant, levels(), nm.FOCE())).startswith("Level with b = Normal(2.0, iiv=0.1) by FOCE")
    assert str(fit).startswith("Level by FOCE\n")


def test_a_loaded_variant_is_called_the_same(tmp_path):
    variant = nm.evaluate(Level(b=nm.Normal(2.0, iiv=0.1)), levels(), nm.FOCE())
    variant.save(tmp_path / "a.nlmefit")
    assert str(nm.load(tmp_path / "a.nlmefit")) == str(variant)


def test_nuts_shows_its_draws(nuts):
    draws = nuts.found.posterior.report
    shown = str(nuts)
    assert "AIC" not in shown and "BIC" not in shown and "R-hat" in shown and "ESS" in shown
    line = next(line for line in shown.splitlines() if line.startswith("  b "))
    wanted = [draws["b"].mean(), draws["b"].std(ddof=1), *np.quantile(draws["b"], (0.025, 0.5, 0.975))]
    np.testing.assert_allclose([float(x) for x in line.split()[2:7]], wanted, rtol=1e-3)
    table = nuts.summary()
    assert (table["r_hat"] < 1.05).all() and (table["ess"] > 100).all()
    assert len(repr(nuts.found.posterior).splitlines()) == 6  # no raw arrays
    assert nm.compare([nuts], progress=False)[["AIC", "BIC"]].isna().all().all()
