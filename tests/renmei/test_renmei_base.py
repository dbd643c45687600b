"""`renmei base`: refusals that need no corpus and no training."""

import subprocess
import sys
from pathlib import Path

import pytest


def base(*words: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "renmei.cli", "base", *map(str, words)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_training_without_a_corpus_names_what_is_missing(tmp_path: Path) -> None:
    result = base("train", "--cache", tmp_path / "absent", "--out", tmp_path / "out")
    assert result.returncode == 1
    assert "RNM-DATA-0001" in result.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("words", [("--recipe", "huge"), ("--seed", "x"), ()])
def test_a_training_that_was_asked_for_wrongly_exits_2(
    tmp_path: Path, words: tuple[str, ...]
) -> None:
    out = ("--out", tmp_path / "out") if words else ()
    result = base("train", *out, *words)
    assert result.returncode == 2
    assert "RNM-CONF-0001" in result.stderr
