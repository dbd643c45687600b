"""README, in both languages: commands that exist, exit statuses that hold, links that lead somewhere."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from fedproto.errors import CODES, Exit

ROOT = Path(__file__).parents[2]
READMES = [ROOT / "README.md", ROOT / "README.ja.md"]
DOCUMENTS = [
    *READMES,
    ROOT / "SECURITY.md",
    ROOT / "CHANGELOG.md",
    ROOT / "proto/README.md",
    *sorted((ROOT / "docs").rglob("*.md")),
]


@pytest.mark.parametrize("path", READMES, ids=lambda path: path.name)
def test_the_table_of_exit_statuses_is_that_of_the_code(path: Path) -> None:
    listed = {int(n) for n in re.findall(r"^\| (\d+) \|", path.read_text(), re.MULTILINE)}
    assert listed == {int(status) for status in Exit}


@pytest.mark.parametrize("path", READMES, ids=lambda path: path.name)
def test_the_error_block_that_is_shown_is_what_the_command_prints(path: Path) -> None:
    code = CODES["RNM-KEY-0002"]
    japanese = path.name.endswith(".ja.md")
    head, titles = ("エラー", (code.ja, code.en)) if japanese else ("error", (code.en, code.ja))
    assert f"{head} RNM-KEY-0002  {titles[0]} / {titles[1]}\n" in path.read_text()


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_every_local_link_leads_to_a_file(path: Path) -> None:
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", path.read_text()):
        assert (path.parent / target).exists(), target


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_every_error_code_that_is_named_exists(path: Path) -> None:
    assert set(re.findall(r"RNM-[A-Z]+-\d{4}", path.read_text())) <= set(CODES)


def _commands(text: str) -> set[tuple[str, ...]]:
    """Return every `renmei noun verb` that stands in code, `a|b` spelt out."""
    found: set[tuple[str, ...]] = set()
    for words in re.findall(r"`renmei ((?:[a-z][a-z|]*)(?: [a-z][a-z|]*)?)", text):
        noun, _, verbs = words.partition(" ")
        found |= {(noun, verb) if verb else (noun,) for verb in (verbs or "").split("|")}
    return found


ALL = sorted(set().union(*(_commands(path.read_text()) for path in DOCUMENTS if path.exists())))


@pytest.mark.parametrize("words", ALL, ids=" ".join)
def test_every_command_that_a_document_names_exists(words: tuple[str, ...]) -> None:
    result = subprocess.run(
        [sys.executable, "-m", "renmei.cli", *words, "--help"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr


def test_both_readmes_have_a_place_for_the_demos_output() -> None:
    for path in READMES:
        assert re.search(r"<!-- demo:begin -->.+<!-- demo:end -->", path.read_text(), re.DOTALL)
