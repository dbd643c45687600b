"""The attacks that docs/secure-aggregation.md lists are tried: each test that it names exists."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "secure-aggregation.md").read_text()
ROWS = re.findall(r"^\| ([^|]+) \| [^|]+ \| `(tests/[^`]+)::(test_[^`]+)` \|$", TEXT, re.MULTILINE)


def test_the_table_is_read() -> None:
    assert len(ROWS) == TEXT.count("`tests/")
    assert len({attack for attack, _, _ in ROWS}) == len(ROWS) > 25


@pytest.mark.parametrize(("path", "name"), [row[1:] for row in ROWS], ids=lambda value: value[-40:])
def test_an_attack_that_is_listed_is_tried(path: str, name: str) -> None:
    tree = ast.parse((ROOT / path).read_text())
    assert name in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
