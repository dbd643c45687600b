"""`renmei audit serve | witness`, and an auditor that reads a log by its URL: real processes."""

import json
import signal
import subprocess
import sys
from contextlib import contextmanager

import pytest
from bare_kit import BARE, ENV, audit
from ledger_kit import LOG_KEY, ORIGIN, charter_of, full_story, signed_note

from audit import publication, tiles
from audit.checkpoint import open_checkpoint
from audit.http_client import HttpWitness, Remote
from audit.merkle import leaf_hash
from audit.note import NoteVerifier, parse_lines
from audit.witness import request_body

STORY = full_story()
PINS = ("--log-key", LOG_KEY.vkey, "--genesis", charter_of().digest)


@contextmanager
def serving(*words):
    process = subprocess.Popen(
        [sys.executable, "-c", BARE, "audit", *map(str, words), "--json"],
        env=ENV,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        line = process.stdout.readline()
        assert line, process.stderr.read()
        yield json.loads(line)["data"]["url"]
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
    finally:
        process.kill()
        process.communicate()


@pytest.fixture(scope="module")
def public(tmp_path_factory):
    root = tmp_path_factory.mktemp("serving") / "public"
    grown = tiles.RightEdge().grow([leaf_hash(leaf) for leaf in STORY.leaves])
    content = publication.Content(
        size=len(STORY.leaves),
        note=signed_note(STORY.leaves),
        entries=lambda start, end: STORY.leaves[start:end],
        tile=lambda level, n: bytes(grown.tiles[level, n]),
    )
    publication.publish(root, content, after=0)
    return root


def test_an_auditor_reads_a_served_log_by_its_url_with_one_library(public):
    with serving("serve", public) as url:
        answer = audit("log", url, *PINS, "--json")
        assert answer.returncode == 0, answer.stderr
        assert len(json.loads(answer.stdout)["data"]["entries"]) == len(STORY.leaves)
        other = audit("log", url, "--log-key", LOG_KEY.vkey, "--genesis", "0" * 64, "--json")
        assert other.returncode == 5


def test_a_served_log_that_was_changed_is_refused_by_who_reads_it(public):
    bundle = next(public.glob("tile/entries/000.p/*"))
    data = bundle.read_bytes()
    bundle.write_bytes(data[:6_000] + bytes([data[6_000] ^ 1]) + data[6_001:])
    try:
        with serving("serve", public) as url:
            answer = audit("verify", url, *PINS)
        assert answer.returncode == 5
        assert "was changed" in answer.stderr
    finally:
        bundle.write_bytes(data)


def test_a_url_where_nothing_listens_is_named(public):
    with serving("serve", public) as url:
        pass
    answer = audit("head", url, *PINS)
    assert answer.returncode == 3, answer.stderr
    assert "RNM-TLS-0001" in answer.stderr


def test_a_witness_makes_its_key_once_and_cosigns_what_is_its_log(tmp_path):
    root = tmp_path / "w"
    words = ("witness", root, "--name", "w.example/1", "--log-key", LOG_KEY.vkey)
    with serving(*words) as url:
        key = NoteVerifier.from_vkey((root / "witness.vkey").read_text().strip())
        status, line = HttpWitness(Remote(url)).add_checkpoint(
            request_body(0, [], signed_note(STORY.leaves))
        )
        assert status == 200
        text = open_checkpoint(signed_note(STORY.leaves), LOG_KEY.verifier, ORIGIN).note.text
        key.verify(parse_lines(line)[0], text)
    with serving(*words) as url:
        assert (root / "witness.vkey").read_text().strip() == key.vkey
        assert line in HttpWitness(Remote(url)).latest(ORIGIN)
    assert (root / "witness.key").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    "words",
    [
        ("serve", "{public}", "--listen", "8080"),
        ("serve", "{public}", "--listen", "127.0.0.1:http"),
        ("serve", "{public}/tile"),
        ("witness", "{tmp}", "--name", "w.example/1", "--log-key", "nonsense"),
    ],
)
def test_what_cannot_be_served_is_named(public, tmp_path, words):
    answer = audit(*(word.format(public=public, tmp=tmp_path / "w") for word in words))
    assert answer.returncode == 2
    assert "RNM-CONF-0001" in answer.stderr
