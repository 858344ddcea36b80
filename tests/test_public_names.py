"""What `import nlmefit as nm` offers: the names that are listed, and nothing else; imported when first used."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import nlmefit as nm
from nlmefit import generative as gen

LISTED = (nm, gen)


def listed(module):
    """The names of the module's `.pyi`, in its order."""
    tree = ast.parse(Path(module.__file__).with_suffix(".pyi").read_text(encoding="utf-8"))
    return [alias.name for node in tree.body if isinstance(node, ast.ImportFrom) for alias in node.names]


@pytest.mark.parametrize("module", LISTED, ids=["nm", "gen"])
def test_only_the_listed_names_show(module):
    names = listed(module)
    assert len(names) == len(set(names))
    assert sorted(dir(module)) == sorted(module.__all__) == sorted(names)


@pytest.mark.parametrize("module", LISTED, ids=["nm", "gen"])
def test_every_name_is_there_documented_and_its_own(module):
    """No function stands where a module of that name is, and each says what it is."""
    for name in listed(module):
        value = getattr(module, name)
        assert value.__doc__, name
        assert getattr(value, "__name__", name).split(".")[-1] == name


def test_the_list_is_grouped():
    for module in LISTED:
        lines = Path(module.__file__).with_suffix(".pyi").read_text(encoding="utf-8").splitlines()
        paragraphs = "\n".join(lines[3:]).split("\n\n")
        assert all(text.startswith("# ") for text in paragraphs if "import" in text)


def test_importing_takes_nothing_that_is_not_used():
    heavy = ("pandas", "numpyro", "equinox", "diffrax", "matplotlib")
    code = f"import sys, nlmefit as nm; print([name for name in {heavy} if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
