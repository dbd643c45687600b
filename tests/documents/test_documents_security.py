"""SECURITY.md promises only what a test shows: each test that it names exists."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "SECURITY.md").read_text()
TABLE = TEXT.split("<!-- guarantees:begin -->")[1].split("<!-- guarantees:end -->")[0]
ROWS = re.findall(r"^\| (G-\d{2}) \| ([^|]+) \| ([^|]+) \|$", TABLE, re.MULTILINE)
NAMED = sorted(set(re.findall(r"`(tests/[^`]+)`", TEXT)))


@cache
def _functions(path: Path) -> frozenset[str]:
    tree = ast.parse(path.read_text())
    return frozenset(
        node.name
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    )


def test_guarantees_are_numbered_without_a_gap() -> None:
    assert [row[0] for row in ROWS] == [f"G-{i:02d}" for i in range(1, len(ROWS) + 1)]
    assert len(ROWS) == len(re.findall(r"^\| G-", TABLE, re.MULTILINE))


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0])
def test_a_guarantee_names_a_test(row: tuple[str, str, str]) -> None:
    assert re.search(r"`tests/[^`]+::test_[^`]+`", row[2])


@pytest.mark.parametrize("name", NAMED)
def test_a_test_that_is_named_exists(name: str) -> None:
    path, _, function = name.partition("::")
    assert (ROOT / path).is_file()
    assert not function or function in _functions(ROOT / path)


@pytest.mark.parametrize(
    "party",
    ["Coordinator", "One member", "Log key", "A witness", "SuperLink", "Auditor", "Data centre"],
)
def test_the_threat_model_has_a_line_for_each_party(party: str) -> None:
    assert re.search(rf"^\| \*\*{party}", TEXT, re.MULTILINE)
