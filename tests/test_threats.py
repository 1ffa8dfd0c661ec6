"""The page on threats names tests: they exist, and every row has one."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

pytestmark = pytest.mark.source

TESTS = Path(__file__).resolve().parent
PAGE = (TESTS.parent / "docs" / "threats.md").read_text(encoding="utf-8")
NAMED = re.findall(r"`([\w/]+\.py)::(\w+)(?:\[([^]]+)\])?`", PAGE)


def names_in(path: Path) -> set[str]:
    """Return the names of the tests in a file, those in classes too."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return {
        node.name
        for node in ast.walk(tree)
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
        and node.name.startswith("test")
    }


@pytest.mark.parametrize("file", sorted({file for file, _, _ in NAMED}))
def test_named_tests_exist(file: str) -> None:
    found = names_in(TESTS / file)
    text = (TESTS / file).read_text(encoding="utf-8")
    for _, name, parameter in (item for item in NAMED if item[0] == file):
        assert name in found, f"{file} has no {name}"
        assert f'"{parameter}"' in text or not parameter, parameter


def test_every_row_names_a_test() -> None:
    rows = [line for line in PAGE.splitlines() if line.startswith("| ")]
    rows = [row for row in rows if not row.startswith(("| ---", "| attack "))]
    assert len(rows) > 60
    for row in rows:
        assert row.count(" | ") == 2, row
        last = row.rpartition(" | ")[2].removesuffix(" |")
        assert all(re.fullmatch(r"`[\w/]+\.py::.+`", x) for x in last.split(", ")), row
