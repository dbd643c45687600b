"""`renmei audit evidence`, as an auditor types it: packs, verifies, and accuses nobody without cause."""

import json
import os
import subprocess
import sys

import pytest
from ledger_kit import (
    LOG_KEY,
    copy_of,
    cosign,
    cosigned_note,
    full_story,
    signed_note,
    witness_of,
)

from audit import bundle
from audit.policy import policy_of

STORY = full_story()
FORK = [*STORY.leaves[:12], b"another", *STORY.leaves[13:20]]


@pytest.fixture
def files(tmp_path):
    told = copy_of(STORY)
    policy = policy_of(told.state.charter)
    note = cosigned_note(told.leaves)
    bundle.write(tmp_path / "log.zip", note=note, entries=told.leaves, policy=policy)
    (tmp_path / "larger.note").write_bytes(note)
    (tmp_path / "fork.note").write_bytes(signed_note(FORK))
    (tmp_path / "same.note").write_bytes(cosign(signed_note([*told.leaves[:-1], b"x"]), ("nec",)))
    (tmp_path / "honest.note").write_bytes(signed_note(told.leaves[:20]))
    return tmp_path


def audit(folder, *words):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "LANG": "C.UTF-8"}
    return subprocess.run(
        [sys.executable, "-m", "renmei.cli", "audit", "evidence", *words],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_two_checkpoints_of_different_sizes_are_packed_and_verified_alone(files):
    pins = ("--log-key", LOG_KEY.vkey)
    made = audit(files, "fork.note", "larger.note", "--log", "log.zip", *pins, "-o", "proof.json")
    assert made.returncode == 5, made.stderr
    for name in ("log.zip", "fork.note", "larger.note"):
        (files / name).unlink()
    found = audit(files, "proof.json", *pins, "--json")
    assert found.returncode == 5
    data = json.loads(found.stdout)["data"]
    assert (data["size"], data["larger"], len(set(data["roots"]))) == (20, len(STORY.leaves), 2)


def test_a_witness_is_accused_by_its_own_key(files):
    key = ("--key", witness_of("nec").vkey)
    made = audit(files, "same.note", "larger.note", *key, "-o", "proof.json")
    assert made.returncode == 5, made.stderr
    assert "signed two histories" in made.stdout
    assert audit(files, "proof.json", "--key", witness_of("sony").vkey).returncode == 5
    other = audit(files, "proof.json", "--key", witness_of("sony").vkey, "--json")
    assert "RNM-LEDGER-0001" in other.stderr + other.stdout


def test_an_honest_log_is_not_accused_and_nothing_is_written(files):
    words = ("honest.note", "larger.note", "--log", "log.zip", "--log-key", LOG_KEY.vkey)
    made = audit(files, *words, "-o", "proof.json")
    assert made.returncode == 5
    assert "RNM-LEDGER-0001" in made.stderr
    assert "agree" in made.stderr
    assert not (files / "proof.json").exists()


def test_the_larger_checkpoint_needs_its_own_log(files):
    words = ("fork.note", "larger.note", "--log-key", LOG_KEY.vkey, "-o", "p.json")
    assert audit(files, *words).returncode == 2
    assert audit(files, "fork.note", "larger.note", "-o", "p.json").returncode == 2
    assert audit(files, "fork.note", "larger.note", "--log-key", LOG_KEY.vkey).returncode == 2
    assert audit(files, "absent.json").returncode == 2
