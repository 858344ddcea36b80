"""Pages of the tutorials: what stands on them is what their scripts do."""

import re
import subprocess
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest

TUTORIALS = Path(__file__).resolve().parents[1] / "tutorials"
spec = spec_from_file_location("page", TUTORIALS / "page.py")
page = module_from_spec(spec)
spec.loader.exec_module(page)

PAGE = (TUTORIALS / "generative.md").read_text(encoding="utf-8")


def test_a_script_is_taken_apart():
    script = '"""About."""\n\n# %%\n# # Title\n#\n# Text.\n\nx = 1  # one\n\n# a comment\ny = x\n\n# %%\n# End.\n'
    assert page.cells(script) == [page.Cell("# Title\n\nText.", "x = 1  # one\n\n# a comment\ny = x"), page.Cell("End.", "")]


MADE = [path.stem for path in TUTORIALS.glob("*.md") if path.read_text(encoding="utf-8").startswith("<!-- Made by `python")]


@pytest.mark.parametrize("name", MADE)
def test_the_page_is_of_the_script(name):
    """Text and code; a page that is older than its script fails here: make it again."""
    made = (TUTORIALS / f"{name}.md").read_text(encoding="utf-8")
    cells = page.cells((TUTORIALS / f"{name}.py").read_text(encoding="utf-8"))
    assert re.findall(r"```python\n(.*?)\n```", made, re.DOTALL) == [cell.code for cell in cells if cell.code]
    assert [cell.text for cell in cells if cell.text not in made] == []


def test_figures_are_there_and_small():
    names = re.findall(r"!\[[^]]+\]\(([^)]+)\)", PAGE)
    assert len(names) >= 4
    assert sum((TUTORIALS / name).stat().st_size for name in names) < 600_000


def test_the_table_of_the_page_is_in_order():
    """The truth is above all models, and bounds are called so."""
    (table,) = re.findall(r"^ +model +log p.*?```", PAGE, re.DOTALL | re.MULTILINE)
    rows = re.findall(r"^ +(.+?) +(-?\d+\.\d+) +\d+\.\d+ +(.+?) +\d+\.\d$", table, re.MULTILINE)
    values = {name: float(value) for name, value, _ in rows}
    assert len(values) == 10
    assert max(values, key=values.__getitem__) == "the truth"
    assert {name for name, _, kind in rows if "bound" in kind} == {"hierarchical VAE", "diffusion"}


@pytest.mark.slow
def test_the_script_runs(tmp_path):
    """On a copy: its figures are written beside it."""
    for name in ("page.py", "generative.py"):
        (tmp_path / name).write_text((TUTORIALS / name).read_text(encoding="utf-8"), encoding="utf-8")
    subprocess.run([sys.executable, tmp_path / "page.py", "generative"], check=True, timeout=900)
    assert (tmp_path / "generative.md").exists()
