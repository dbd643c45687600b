"""Decisions: listed, well formed, and a line for every dependency."""

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "docs/adr"
RECORDS = sorted(FOLDER.glob("0*.md"))
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def _name(requirement: str) -> str:
    return re.split(r"[\[<>=!~; ]", requirement)[0]


def test_every_record_is_listed_under_its_number() -> None:
    listed = re.findall(
        r"\[(\d{4})\]\((\d{4}-[a-z0-9-]+\.md)\)", (FOLDER / "README.md").read_text()
    )
    assert [name for _, name in listed] == [path.name for path in RECORDS]
    assert all(name.startswith(number) for number, name in listed)


@pytest.mark.parametrize("path", RECORDS, ids=lambda path: path.stem)
def test_a_record_says_status_decision_and_cost(path: Path) -> None:
    text = path.read_text()
    assert re.match(rf"# {path.name[:4]} \S", text)
    assert "Status: " in text
    if path.stem != "0010-dependencies":
        for heading in ("## Drivers", "## Options", "## Decision", "## Consequences"):
            assert heading in text
        assert "- Bad: " in text


def test_every_dependency_has_a_line_that_says_why() -> None:
    text = (FOLDER / "0010-dependencies.md").read_text()
    rows = set(re.findall(r"^\| ([a-z][a-z0-9-]+) \| (?!extra)", text, re.MULTILINE)) - {
        "dependency"
    }
    asked = {_name(d) for d in EXTRAS["dependencies"]}
    for extra, requirements in EXTRAS["optional-dependencies"].items():
        if extra != "dev":
            asked |= {_name(d) for d in requirements}
    assert rows == asked - {"renmei"}


def test_every_development_tool_is_named() -> None:
    text = (FOLDER / "0010-dependencies.md").read_text()
    for requirement in EXTRAS["optional-dependencies"]["dev"]:
        assert _name(requirement) == "renmei" or _name(requirement) in text
