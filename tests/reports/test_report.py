"""The report: what the page holds, that it stands alone, and how the file is written."""

import re
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest

import nlmefit as nm
from nlmefit.cli import main as cli
from nlmefit.reports import mathml
from nlmefit.reports.html import Html, table, tag


class Shrinking(nm.Model):
    """Sizes <b>shrink</b> & so on."""

    size = nm.LogNormal(10.0, iiv=0.3, unit="<mm>")
    rate = nm.LogNormal(0.1, iiv=0.3, unit="1/h")
    omega = nm.Blocks("size rate")

    def observe(self, t, A, p):
        return {"y": p.size * 2.718281828459045 ** (-p.rate * t)}

    y = nm.Additive(0.5)


def data():
    rng = np.random.default_rng(4)
    rows = []
    for i in range(14):
        size, rate = 10 * np.exp(0.3 * rng.normal()), 0.1 * np.exp(0.3 * rng.normal())
        for t in (0.0, 2.0, 5.0, 10.0, 20.0):
            y = size * np.exp(-rate * t) + 0.5 * rng.normal()
            rows.append((f"<{i}>", t, max(y, 2.0), int(y < 2)))
    return pd.DataFrame(rows, columns=["ID", "TIME", "DV", "CENS"])


@pytest.fixture(scope="module")
def fit():
    return nm.fit(Shrinking(), data(), nm.Laplace(), progress=False)


@pytest.fixture(scope="module")
def page(fit, tmp_path_factory):
    path = tmp_path_factory.mktemp("report") / "report.html"
    assert nm.report(fit, path, title="A <script>alert(1)</script> title", draws=100, progress=False) == path
    return path.read_text(encoding="utf-8")


class Reader(HTMLParser):
    """Tags that are closed in order, their attributes, and the text."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.text = [], [], []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, name, attributes):
        self.tags.append((name, dict(attributes)))
        if name not in ("meta", "img"):
            self.open.append(name)

    def handle_endtag(self, name):
        assert self.open.pop() == name

    def handle_data(self, text):
        if self.open and self.open[-1] not in ("style", "title"):
            self.text.append(text)

    def all(self, name):
        return [attributes for tag, attributes in self.tags if tag == name]


def test_the_page_is_well_formed_and_accessible(page):
    found = Reader(page)
    assert found.all("html") == [{"lang": "en"}]
    assert len(found.all("h1")) == 1
    images = found.all("img")
    assert len(images) == 6
    assert all(len(image["alt"]) > 20 for image in images)
    assert all(header["scope"] in ("col", "row") for header in found.all("th"))
    assert len(found.all("caption")) == len(found.all("table")) >= 3
    places = [attributes["id"] for _, attributes in found.tags if "id" in attributes]
    assert [link["href"] for link in found.all("a")] == [f"#{place}" for place in places]


def test_the_page_stands_alone(page):
    assert not re.search(r"https?://|//[a-z]", re.sub(r"base64,[^\"]*", "", page))
    assert "<script" not in page
    assert "<link" not in page
    assert "@import" not in page
    assert all(image["src"].startswith("data:image/") for image in Reader(page).all("img"))


def test_users_text_is_escaped(page):
    text = "".join(Reader(page).text)
    for written in ("A <script>alert(1)</script> title", "Sizes <b>shrink</b> & so on.", "<mm>"):
        assert written in text
    assert "<b>" not in page
    assert "<mm>" not in page


def test_the_page_says_what_decides_the_meaning(fit, page):
    text = " ".join(Reader(page).text)
    for part in ("converged", *fit.status.reasons, "Laplace", f"{fit.ofv:.3f}".replace("-", "−"), *fit.conventions.values()):
        assert part in text, part
    for name, value in fit.estimates.items():
        assert str(name) in text
        assert f"{abs(value):#.4g}" in text
    assert "Corr. with size" in text
    assert f"{(data()['CENS'] == 1).sum()}" in text
    assert nm.__version__ in text
    assert re.search(r"SHA-256 [0-9a-f]{64}", text)
    assert "<math" in page


def test_a_figure_that_cannot_be_drawn_is_explained(tmp_path):
    nm.report(nm.evaluate(Shrinking(), data(), nm.Laplace()), tmp_path / "r.html", draws=100, progress=False)
    text = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert "Not drawn: Laplace left no history" in text
    assert "No standard errors" in text
    assert 'class="status evaluated"' in text


def test_a_file_is_replaced_in_one_step(fit, tmp_path, monkeypatch):
    path = tmp_path / "r.html"
    path.write_text("precious")

    def interrupted(*arguments):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("os.replace", interrupted)
        with pytest.raises(nm.NlmefitError, match=r"No space left on device\. What was there before is unchanged"):
            nm.report(fit, path, draws=100, progress=False)
    assert path.read_text() == "precious"
    assert [p.name for p in tmp_path.iterdir()] == ["r.html"]


def test_wrong_places_are_found_before_the_work(fit, tmp_path):
    with pytest.raises(nm.NlmefitError, match=r"is a folder; name the file"):
        nm.report(fit, tmp_path)
    with pytest.raises(nm.NlmefitError, match="there is no folder"):
        nm.report(fit, tmp_path / "no" / "r.html")
    with pytest.raises(nm.NlmefitError, match="of a fit"):
        nm.report("fit", tmp_path / "r.html")
    assert list(tmp_path.iterdir()) == []


def test_a_loaded_fit_reports_as_the_original(fit, page, tmp_path):
    fit.save(tmp_path / "fit.nlmefit")
    loaded = nm.load(tmp_path / "fit.nlmefit", model=Shrinking())
    with pytest.raises(nm.NlmefitError, match="give the data"):
        nm.report(loaded, tmp_path / "r.html")
    nm.report(loaded, tmp_path / "r.html", data(), draws=100, progress=False)
    again = (tmp_path / "r.html").read_text(encoding="utf-8")
    rows = re.compile(r"<tbody>.*?</tbody>")
    assert rows.findall(again) == rows.findall(page)
    assert "not the data of the fit" not in again


def test_the_command_line_writes_it(root, tmp_path, capsys):
    model, csv = str(root / "tutorials" / "theophylline.py"), str(root / "datasets" / "theophylline.csv")
    path = tmp_path / "deep" / "theophylline.html"
    assert cli.main(["fit", model, csv, "--report", str(path)]) == 0
    assert "<title>Theophylline</title>" in path.read_text(encoding="utf-8")
    capsys.readouterr()
    assert cli.main(["fit", model, csv, "--report", str(path)]) == 1
    assert "--overwrite" in capsys.readouterr().err


# ---- HTML and equations ----------------------------------------------------------------------------------------------


def test_tags_escape_all_but_html():
    assert tag("p", "<&>", Html("<b>x</b>"), class_='"') == '<p class="&quot;">&lt;&amp;&gt;<b>x</b></p>'
    assert "<td>&lt;i&gt;</td>" in table("c", ["a", "b"], [["x", "<i>"]])


@pytest.mark.parametrize(
    ("latex", "expected"),
    [
        (r"V &= \frac{1}{2} \, x_{\mathrm{a,b}}^{2}", "<msubsup><mi>x</mi><mrow>"),
        (r"{\mathrm{ka}}_i &= e^{\eta_{\mathrm{ka}}}", "<msub><mrow><mi"),
        (r"y &\sim N\left(f, s^2\right)", '<mo form="infix">∼</mo>'),
        (r"y &= \begin{cases}a & [x <= 1]\\0 & \text{otherwise}\end{cases}", "<mtext>otherwise</mtext>"),
        (r"\text{lag into depot} &= -1e-05", "<mn>1e-05</mn>"),
    ],
)
def test_latex_becomes_mathml(latex, expected):
    found = mathml.equations("\\begin{aligned}\n" + latex + "\n\\end{aligned}")
    assert expected in found
    assert "\\" not in found
    Reader(found)


@pytest.mark.parametrize("latex", ["x = 1", r"x &= \sqrt{2}", r"x &= {1", "x &= 1}", "x", r"x &= \begin{array}1\end{array}"])
def test_other_latex_is_refused(latex):
    with pytest.raises(mathml.UnknownLatex):
        mathml.equations("\\begin{aligned}\n" + latex + "\n\\end{aligned}")
    with pytest.raises(mathml.UnknownLatex):
        mathml.equations(latex)
