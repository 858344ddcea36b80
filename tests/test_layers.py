"""The package's layers: a file imports only from its own layer and from those below it.

The order is that of the layout in the README, from the bottom up.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "nlmefit"

LAYERS = (
    ("typing", "errors", "options", "content", "shown", "backend"),
    ("keys", "progress", "archive", "versions", "gaussian", "networks"),
    ("declare",),
    ("data",),
    ("latent", "censored", "distribution"),
    ("solve",),
    ("program",),
    ("priors", "record_wise"),
    ("population_solver", "random_effects"),
    ("population",),
    ("estimate",),
    ("generative",),
    ("model",),
    (
        "results",
        "saved",
        "saved_posterior",
        "load",
        "fit",
        "check",
        "predict",
        "compare",
        "one_step_ahead",
        "posterior",
        "fit_quality",
        "joint_draws",
        "simulation",
        "bootstrap",
    ),
    ("diagnose",),
    ("plot",),
    ("report",),
    ("interop",),
    ("",),  # nlmefit/__init__.py, the public names
    ("cli",),
)
RANK = {name: rank for rank, names in enumerate(LAYERS) for name in names}

NEVER = {  # part of the package: what its files never import, though their layer may stand above
    "estimate": {"nlmefit.declare", "nlmefit.data", "nlmefit.solve", "nlmefit.population.latent"},
    "declare": {"numpyro", "diffrax", "nlmefit.data"},
}
SHELLS = {"matplotlib": {"plot", "report"}, "arviz": {"interop"}}  # library: the only parts that may import it


def imported(tree: ast.AST, package: str) -> Iterator[tuple[int, str]]:
    """(line, dotted name) of every import, those inside functions included; `package` resolves relative ones."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parents = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*parents, *filter(None, [node.module])])
            yield from ((node.lineno, f"{base}.{alias.name}") for alias in node.names)


def part(dotted: str) -> str | None:
    """The part of the package that a dotted name lies in: 'nlmefit.data.checks' in 'data'; None outside the package."""
    first, _, rest = dotted.partition(".")
    if first != "nlmefit":
        return None
    name = rest.partition(".")[0]
    return name if name in RANK or _is_module(name) else ""


def _is_module(name: str) -> bool:
    return (PACKAGE / f"{name}.py").exists() or (PACKAGE / name).is_dir()


def within(dotted: str, names: set[str]) -> bool:
    return any(dotted == name or dotted.startswith(f"{name}.") for name in names)


def violations(source: str, module: str, is_package: bool = False) -> list[str]:
    """What is wrong with the imports of the module of that dotted name ('nlmefit.estimate.modes.foce')."""
    own = part(module)
    if own not in RANK:
        return [f"{module} stands in no layer; give `{own}` its place in LAYERS"]
    found = []
    package = module if is_package else module.rpartition(".")[0]
    for line, name in imported(ast.parse(source), package):
        target = part(name)
        if target is not None and RANK.get(target, len(LAYERS)) > RANK[own]:
            found.append(f"{module}:{line} imports {name}, which stands above it")
        if within(name, NEVER.get(own, set())):
            found.append(f"{module}:{line} imports {name}: {own}/ never does")
        for library, allowed in SHELLS.items():
            if within(name, {library}) and own not in allowed:
                found.append(f"{module}:{line} imports {library}: only {', '.join(sorted(allowed))} may")
    return found


FILES = sorted(PACKAGE.rglob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=[str(path.relative_to(PACKAGE)) for path in FILES])
def test_imports_follow_the_layers(path: Path) -> None:
    is_package = path.name == "__init__.py"
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    module = ".".join(parts[:-1] if is_package else parts)
    assert violations(path.read_text(encoding="utf-8"), module, is_package) == []


@pytest.mark.parametrize(
    ("module", "source", "message"),
    [
        ("nlmefit.estimate.modes.foce", "from nlmefit.declare.model import Model", "estimate/ never does"),
        ("nlmefit.estimate.modes.foce", "import nlmefit.solve.closed_form", "estimate/ never does"),
        ("nlmefit.estimate.modes.foce", "def f():\n    from nlmefit import data", "estimate/ never does"),
        ("nlmefit.estimate.modes.foce", "from ..population import PopulationModel", "estimate/ never does"),
        ("nlmefit.estimate.modes.foce", "from nlmefit.results.fit import Fit", "stands above it"),
        ("nlmefit.estimate.modes.foce", "import nlmefit as nm", "stands above it"),
        ("nlmefit.estimate.modes.foce", "from nlmefit import fit", "stands above it"),
        ("nlmefit.declare.model", "import numpyro.distributions as dist", "declare/ never does"),
        ("nlmefit.declare.model", "from diffrax import ODETerm", "declare/ never does"),
        ("nlmefit.declare.model", "from nlmefit.data import subjects", "declare/ never does"),
        ("nlmefit.latent.model", "from nlmefit.solve import closed_form", "stands above it"),
        ("nlmefit.results.fit", "import matplotlib.pyplot as plt", "only plot, report may"),
        ("nlmefit.analysis.fit", "from nlmefit.cli.main import main", "stands above it"),
    ],
)
def test_the_checker_sees_a_violation(module: str, source: str, message: str) -> None:
    found = violations(source, module)
    assert any(message in text for text in found), found


def test_a_new_module_needs_a_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(RANK, "fit")
    assert "give `fit` its place in LAYERS" in violations("", "nlmefit.analysis.fit")[0]
    assert "stands above it" in violations("from nlmefit.analysis.fit import fit", "nlmefit.estimate.modes.foce")[0]


@pytest.mark.parametrize(
    ("module", "source"),
    [
        (
            "nlmefit.estimate.modes.foce",
            "import jax\nfrom nlmefit.estimate import density\nfrom nlmefit.latent.program import site",
        ),
        ("nlmefit.estimate.modes.foce", "from .density import moments\nfrom ..typing import Scalar"),
        ("nlmefit.data.subjects", "from nlmefit.declare.model import Model\nfrom nlmefit.core.errors import DataError"),
        ("nlmefit.cli.main", "import nlmefit as nm"),
    ],
)
def test_the_checker_accepts_what_is_allowed(module: str, source: str) -> None:
    assert violations(source, module) == []


def test_the_rules_have_files_to_check() -> None:
    assert {path.relative_to(PACKAGE).parts[0] for path in FILES} >= {"estimate", "declare", "data"}
