"""The table of claims and tests in the tutorials: whole, and true of the tests that there are."""

import ast
import re
from collections import defaultdict
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]
PAGE = TESTS.parent / "tutorials" / "claims.md"
LAST = {"A": 14, "B": 6, "C": 6, "D": 15, "E": 8, "F": 7, "G": 12}
CLAIMS = [f"{letter}{k}" for letter, last in LAST.items() for k in range(1, last + 1)]
NAMED_AFTER = re.compile(r"test_((?:[a-g]\d+_)+)")


def table():
    """The tests by claim, as the page has them."""
    rows = re.findall(r"^\| ([A-G]\d+) \| (.+) \| ([^|]+) \|$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert all(claim.strip() for _, claim, _ in rows)
    assert len({name for name, _, _ in rows}) == len(rows)
    return {name: re.findall(r"`tests/([\w/]+\.py)::(test_\w+)`", tests) for name, _, tests in rows}


def written():
    """The tests that there are, as (file, name)."""
    found = set()
    for path in TESTS.rglob("test_*.py"):
        nodes = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        name = path.relative_to(TESTS).as_posix()
        found |= {(name, node.name) for node in nodes if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")}
    return found


def test_every_claim_has_a_test():
    assert list(table()) == CLAIMS
    assert [claim for claim, tests in table().items() if not tests] == []


def test_every_test_of_the_table_exists():
    there = written()
    assert [test for tests in table().values() for test in tests if test not in there] == []


def test_every_test_named_after_a_claim_is_in_the_table():
    named = defaultdict(set)
    for file, name in written():
        match = NAMED_AFTER.match(name)
        for claim in match[1].strip("_").upper().split("_") if match else ():
            if claim in CLAIMS:
                named[claim].add((file, name))
    lacking = {claim: tests - set(table().get(claim, ())) for claim, tests in named.items()}
    assert {claim: tests for claim, tests in lacking.items() if tests} == {}
