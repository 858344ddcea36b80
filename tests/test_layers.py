"""The package's rooms: a file imports only from its own room and from those before it, and no circle runs through files.

Every top-level name is a folder, named by what it is. Imports count wherever they stand: inside functions, and for type checking.
"""

import ast
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "nlmefit"

ROOMS = (
    "core",
    "declare",
    "data",
    "latent",
    "solve",
    "population",
    "estimate",
    "generative",
    "results",
    "analysis",
    "simulation",
    "diagnostics",
    "plot",
    "reports",
    "interop",
    "",  # nlmefit/__init__.py, the public names
    "cli",
)
RANK = {name: rank for rank, name in enumerate(ROOMS)}

NEVER = {  # room: what its files never import, though it may stand above
    "estimate": {"nlmefit.declare", "nlmefit.data", "nlmefit.solve", "nlmefit.population"},
    "declare": {"numpyro", "diffrax", "nlmefit.data"},
}
LATE = {("nlmefit.results.fit", "nlmefit.interop.arviz")}  # the method `Fit.to_arviz`, by the name of the module
SHELLS = {"matplotlib": {"plot", "reports"}, "arviz": {"interop"}}  # library: the only rooms that may import it


def imported(tree: ast.AST, package: str) -> Iterator[tuple[int, str]]:
    """(line, dotted name) of every import, those inside functions included; `package` resolves relative ones."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parents = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*parents, *filter(None, [node.module])])
            yield from ((node.lineno, f"{base}.{alias.name}") for alias in node.names)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
            yield from ((node.lineno, name.value) for name in node.args if isinstance(name, ast.Constant))


def room(dotted: str) -> str | None:
    """The room that a dotted name lies in: 'nlmefit.data.checks' in 'data'; None outside the package."""
    first, _, rest = dotted.partition(".")
    if first != "nlmefit":
        return None
    name = rest.partition(".")[0]
    return name if name in RANK or (PACKAGE / name).is_dir() else ""


def within(dotted: str, names: set[str]) -> bool:
    return any(dotted == name or dotted.startswith(f"{name}.") for name in names)


def violations(source: str, module: str, is_package: bool = False) -> list[str]:
    """What is wrong with the imports of the module of that dotted name ('nlmefit.estimate.modes.foce')."""
    own = room(module)
    if own not in RANK:
        return [f"{module} stands in no room; give `{own}` its place in ROOMS"]
    found = []
    package = module if is_package else module.rpartition(".")[0]
    for line, name in imported(ast.parse(source), package):
        target = room(name)
        if target is not None and (module, name) not in LATE and RANK.get(target, len(ROOMS)) > RANK[own]:
            found.append(f"{module}:{line} imports {name}, which stands after it")
        if within(name, NEVER.get(own, set())):
            found.append(f"{module}:{line} imports {name}: {own}/ never does")
        for library, allowed in SHELLS.items():
            if within(name, {library}) and own not in allowed:
                found.append(f"{module}:{line} imports {library}: only {', '.join(sorted(allowed))} may")
    return found


FILES = sorted(PACKAGE.rglob("*.py"))


def module_of(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if path.name == "__init__.py" else parts)


MODULES = {module_of(path): path for path in FILES}


def dependencies(sources: Mapping[str, str]) -> dict[str, set[str]]:
    """By module, the modules that it imports."""
    found: dict[str, set[str]] = {}
    for module, source in sources.items():
        found[module] = set()
        for _, name in imported(ast.parse(source), module.rpartition(".")[0]):
            while name not in sources and "." in name:
                name = name.rpartition(".")[0]
            found[module] |= {name} & (set(sources) - {module})
    return found


def circles(graph: Mapping[str, set[str]]) -> list[str]:
    """Ways along the arrows that come back to where they began."""
    done: set[str] = set()
    found: list[str] = []

    def follow(way: tuple[str, ...]) -> None:
        for target in sorted(graph[way[-1]]):
            if target in way:
                found.append(" -> ".join((*way[way.index(target) :], target)))
            elif target not in done:
                follow((*way, target))
        done.add(way[-1])

    for module in sorted(graph):
        if module not in done:
            follow((module,))
    return found


def test_the_top_level_is_folders_only() -> None:
    loose = {path.name for path in PACKAGE.iterdir() if not path.is_dir()}
    assert loose == {"__init__.py", "__init__.pyi", "py.typed"}
    assert {path.name for path in PACKAGE.iterdir() if path.is_dir() and path.name != "__pycache__"} == set(ROOMS) - {""}


def test_no_circle_runs_through_the_package() -> None:
    assert circles(dependencies({name: path.read_text(encoding="utf-8") for name, path in MODULES.items()})) == []


def test_a_circle_is_seen() -> None:
    sources = {
        "nlmefit.a.x": "from nlmefit.a import y",
        "nlmefit.a.y": "def f():\n    from nlmefit.b.z import g",
        "nlmefit.b.z": "if TYPE_CHECKING:\n    from nlmefit.a.x import h",
        "nlmefit.b.w": "from nlmefit.a.x import h",
    }
    assert circles(dependencies(sources)) == ["nlmefit.a.x -> nlmefit.a.y -> nlmefit.b.z -> nlmefit.a.x"]


@pytest.mark.parametrize("module", MODULES)
def test_imports_follow_the_rooms(module: str) -> None:
    path = MODULES[module]
    assert violations(path.read_text(encoding="utf-8"), module, path.name == "__init__.py") == []


@pytest.mark.parametrize(
    ("module", "source", "message"),
    [
        ("nlmefit.estimate.modes.foce", "from nlmefit.declare.model import Model", "estimate/ never does"),
        ("nlmefit.estimate.modes.foce", "import nlmefit.solve.closed_form", "estimate/ never does"),
        ("nlmefit.estimate.modes.foce", "def f():\n    from nlmefit import data", "estimate/ never does"),
        ("nlmefit.estimate.modes.foce", "from ...population import latent", "estimate/ never does"),
        ("nlmefit.estimate.modes.foce", "from nlmefit.results.fit import Fit", "stands after it"),
        ("nlmefit.estimate.modes.foce", "import nlmefit as nm", "stands after it"),
        ("nlmefit.estimate.modes.foce", "from nlmefit import fit", "stands after it"),
        ("nlmefit.declare.model", "import numpyro.distributions as dist", "declare/ never does"),
        ("nlmefit.declare.model", "from diffrax import ODETerm", "declare/ never does"),
        ("nlmefit.declare.model", "from nlmefit.data import subjects", "declare/ never does"),
        ("nlmefit.latent.model", "from nlmefit.solve import closed_form", "stands after it"),
        ("nlmefit.results.fit", "import matplotlib.pyplot as plt", "only plot, reports may"),
        ("nlmefit.analysis.fit", "from nlmefit.cli.main import main", "stands after it"),
        ("nlmefit.analysis.fit", "import importlib\nimportlib.import_module('nlmefit.interop.arviz')", "stands after it"),
    ],
)
def test_the_checker_sees_a_violation(module: str, source: str, message: str) -> None:
    found = violations(source, module)
    assert any(message in text for text in found), found


def test_a_new_room_needs_a_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(RANK, "analysis")
    assert "give `analysis` its place in ROOMS" in violations("", "nlmefit.analysis.fit")[0]
    assert "stands after it" in violations("from nlmefit.analysis.fit import fit", "nlmefit.estimate.modes.foce")[0]


@pytest.mark.parametrize(
    ("module", "source"),
    [
        (
            "nlmefit.estimate.modes.foce",
            "import jax\nfrom nlmefit.estimate import density\nfrom nlmefit.latent.program import site",
        ),
        ("nlmefit.estimate.modes.foce", "from ..density import moments\nfrom ...core.typing import Scalar"),
        ("nlmefit.data.subjects", "from nlmefit.declare.model import Model\nfrom nlmefit.core.errors import DataError"),
        ("nlmefit.cli.main", "import nlmefit as nm"),
    ],
)
def test_the_checker_accepts_what_is_allowed(module: str, source: str) -> None:
    assert violations(source, module) == []


def test_the_rules_have_files_to_check() -> None:
    assert {path.relative_to(PACKAGE).parts[0] for path in FILES} >= {"estimate", "declare", "data"}
