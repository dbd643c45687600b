"""`renmei consortium init`: what is made is private, is announced by digest, and is never made twice."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ADDRESSES = ("--coordinator", "127.0.0.1:8443", "--gateway", "127.0.0.1:8444")


def init(*words: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "renmei.cli", "consortium", "init", *map(str, words)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_a_consortium_is_founded_and_announced(tmp_path: Path) -> None:
    result = init("--dir", tmp_path / "c", *ADDRESSES, "--json")
    assert result.returncode == 0, result.stderr
    data = json.loads(result.stdout)["data"]
    assert len(data["genesis_sha256"]) == 64
    for party in data["parties"].values():
        assert Path(party["dir"]).stat().st_mode & 0o777 == 0o700
    secrets = [path.read_text().strip() for path in (tmp_path / "c").rglob("*.key")]
    assert secrets
    assert not any(secret in result.stdout + result.stderr for secret in secrets)


def test_a_second_founding_in_the_same_place_is_refused_and_changes_nothing(
    tmp_path: Path,
) -> None:
    assert init("--dir", tmp_path, *ADDRESSES).returncode == 0
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.key")}
    assert init("--dir", tmp_path, *ADDRESSES).returncode == 2
    assert {path: path.read_bytes() for path in tmp_path.rglob("*.key")} == before


@pytest.mark.parametrize(
    "words",
    [
        ("--name", "RENMEI"),
        ("--name", "../x"),
        ("--coordinator", "nowhere"),
        ("--coordinator", ":8443"),
        ("--gateway", "host:0"),
        ("--gateway", "host:99999"),
    ],
    ids=" ".join,
)
def test_a_wrong_name_or_address_exits_2_and_makes_nothing(
    tmp_path: Path, words: tuple[str, str]
) -> None:
    result = init("--dir", tmp_path / "c", *ADDRESSES, *words)
    assert result.returncode == 2
    assert not (tmp_path / "c").exists()
