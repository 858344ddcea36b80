"""pyproject.toml promises no older versions than the tests were run with: those of oldest.txt."""

import tomllib
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name


def pinned(root: Path) -> dict[str, str]:
    """Versions of oldest.txt by package."""
    lines = (root / "tests" / "oldest.txt").read_text(encoding="utf-8").splitlines()
    pairs = (line.split("==") for line in lines if line and not line.startswith("#"))
    return {canonicalize_name(name): version for name, version in pairs}


def test_lower_bounds_are_those_that_were_tested(root: Path) -> None:
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    requirements = map(Requirement, project["dependencies"] + project["optional-dependencies"]["test"])
    bounds = {canonicalize_name(r.name): [s.version for s in r.specifier if s.operator == ">="] for r in requirements}
    oldest = pinned(root)
    assert bounds == {name: [oldest.get(name)] for name in bounds}
