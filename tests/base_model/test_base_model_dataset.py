import argparse
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from dataset_kit import OPTIONS, made_lock

from base_model import data_commands, dataset
from base_model.dataset import HELD_OUT, SERIES, STREAMS, Options, build, mixture, open_manifest
from base_model.series import Origin
from base_model.tokenizer import load, series_vocabulary
from base_model.tokenizer import train as train_tokenizer
from fedproto.errors import LocalFault

_KILLED = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from dataset_kit import OPTIONS, made_lock
from base_model import dataset
def note(label):
    if label == sys.argv[3]:
        os.kill(os.getpid(), signal.SIGKILL)
root = Path(sys.argv[2])
dataset.build(made_lock(root), root, root / "out", OPTIONS, note)
"""


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    # Docstrings of large packages are slow to read; that they are read is another test's.
    monkeypatch.setattr("base_model.corpus.DOCSTRING_PACKAGES", ())


@pytest.fixture
def built(tmp_path: Path) -> Path:
    build(made_lock(tmp_path), tmp_path, tmp_path / "out", OPTIONS)
    return tmp_path / "out"


def test_a_build_names_every_source_part_and_near_duplicate(built: Path) -> None:
    made = open_manifest(built)
    assert [(s.name, s.near_duplicates) for s in made.sources] == [
        ("prose 1.0", 5),
        ("more 1.0", 0),
    ]
    assert [part.name for part in made.parts] == [SERIES, "more", "prose"]
    assert made.near_duplicates.removed == 5
    # A small corpus has fewer merges than were asked for.
    assert 297 < made.tokenizer.vocabulary <= 400
    assert made.tokenizer.bins == 32
    words = load(built)
    assert series_vocabulary(words) is not None
    for part in made.parts:
        assert part.train_tokens > 0
        assert part.held_out_items > 0


def test_series_are_synthetic_split_by_maker_and_none_is_of_a_private_one(built: Path) -> None:
    (entry,) = open_manifest(built).series
    assert entry.origin is Origin.SYNTHETIC
    assert entry.series == 6
    held = list(dataset.held_out_series(built / HELD_OUT / f"{SERIES}.jsonl"))
    assert len(held) == 1
    header, values = held[0]
    assert header.origin is Origin.SYNTHETIC
    assert values.shape == (256, 2)


def test_a_build_is_the_same_wherever_it_is_made(built: Path, tmp_path: Path) -> None:
    other = tmp_path / "elsewhere"
    other.mkdir()
    again = build(made_lock(other), other, other / "out", OPTIONS)
    assert again.digest == open_manifest(built).digest


@pytest.mark.parametrize("where", ["tokenizer", "more", SERIES])
def test_a_build_killed_anywhere_goes_on_to_the_same_manifest(tmp_path: Path, where: str) -> None:
    script = _KILLED.replace(
        "from base_model import dataset",
        "from base_model import corpus, dataset\ncorpus.DOCSTRING_PACKAGES = ()",
    )
    done = subprocess.run(
        [sys.executable, "-c", script, Path(__file__).parent, tmp_path, where],
        check=False,
        env=os.environ,
    )
    assert done.returncode == -signal.SIGKILL
    with pytest.raises(LocalFault) as caught:
        open_manifest(tmp_path / "out")
    assert caught.value.code == "RNM-DATA-0001"
    lock = made_lock(tmp_path)
    resumed = build(lock, tmp_path, tmp_path / "out", OPTIONS)
    assert resumed == build(lock, tmp_path, tmp_path / "whole", OPTIONS)


def test_a_build_that_is_made_again_counts_as_unfinished_until_it_has_ended(
    built: Path, tmp_path: Path
) -> None:
    def stop(label: str) -> None:
        raise KeyboardInterrupt

    other = Options(domains=("base",), vocabulary=300)
    with pytest.raises(KeyboardInterrupt):
        build(made_lock(tmp_path), tmp_path, built, other, stop)
    with pytest.raises(LocalFault) as caught:
        open_manifest(built)
    assert caught.value.code == "RNM-DATA-0001"
    made = build(made_lock(tmp_path), tmp_path, built, other)
    assert open_manifest(built) == made
    assert [part.name for part in made.parts] == ["prose"]


def test_a_mixture_of_a_build_streams_text_and_series(built: Path) -> None:
    made = open_manifest(built)
    own = mixture(built, {"prose": 7, SERIES: 3}, sequence=32, seed=1, expected=made.digest)
    tokens = own.batch(0, 20)
    vocabulary = series_vocabulary(load(built))
    assert vocabulary is not None
    of_series = (tokens >= vocabulary.first).any(dim=1)
    # Three in ten, in any stretch of ten.
    assert 5 <= int(of_series.sum()) <= 7
    assert own.resume(own.position(5, 4), 4) == 5


def test_a_build_that_was_changed_is_refused(built: Path) -> None:
    made = open_manifest(built)
    with pytest.raises(LocalFault) as caught:
        mixture(built, {"none": 1}, sequence=32, seed=1)
    assert caught.value.code == "RNM-DATA-0003"
    with pytest.raises(LocalFault) as caught:
        open_manifest(built, made.lock_sha256)
    assert caught.value.code == "RNM-DATA-0002"
    # Another stream under its name.
    stream = built / STREAMS / "prose"
    stream.rename(built / STREAMS / "gone")
    (built / STREAMS / "more").rename(stream)
    with pytest.raises(LocalFault) as caught:
        mixture(built, {"prose": 1}, sequence=32, seed=1)
    assert caught.value.code == "RNM-DATA-0002"
    held = built / HELD_OUT / "prose.jsonl"
    held.write_bytes(held.read_bytes()[:-9])
    with pytest.raises(LocalFault) as caught:
        dataset.held_out_texts(built, made)
    assert caught.value.code == "RNM-DATA-0002"


def test_without_can_databases_it_goes_on_and_says_so(tmp_path: Path) -> None:
    lock = made_lock(tmp_path)
    (tmp_path / "opendbc-1.0-py3-none-any.whl").unlink()
    made = build(lock, tmp_path, tmp_path / "out", OPTIONS)
    assert made.absent == (SERIES,)
    assert made.series == ()


class Recorder:
    lang = "en"

    def say(self, *, en: str, ja: str) -> str:
        return en

    def note(self, text: str) -> None:
        pass


def test_the_command_builds_and_reports_fertility_beside_published_figures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock = made_lock(tmp_path)
    monkeypatch.setattr(data_commands, "read_lock", lambda: lock)
    out = tmp_path / "out"
    args = argparse.Namespace(cache=str(tmp_path), out=str(out), vocabulary=400, bins=0)
    reply = data_commands.data(args, Recorder())
    assert isinstance(reply.data, dict)
    assert reply.data["corpus_sha256"] == open_manifest(out).digest
    json.dumps(reply.data)
    asked = argparse.Namespace(data=str(out), report=True)
    told = data_commands.tokenizer(asked, Recorder())
    assert isinstance(told.data, dict)
    assert told.data["bytes_without_token"] == 0
    rows = {row["name"]: row for row in told.data["held_out"]}
    assert {"prose", "more"} <= set(rows)
    assert rows["prose"]["tokens_per_byte"] < rows["prose"]["tokens_per_character"]
    assert "Rakuda" in told.text
    assert "GPT-4" in told.text
    short = data_commands.tokenizer(argparse.Namespace(data=str(out), report=False), Recorder())
    assert "Rakuda" not in short.text
    (out / "tokenizer.json").write_text(train_tokenizer(["other"], 300).to_str())
    with pytest.raises(LocalFault) as caught:
        data_commands.tokenizer(asked, Recorder())
    assert caught.value.code == "RNM-DATA-0002"


def test_a_vocabulary_without_room_is_refused(tmp_path: Path) -> None:
    args = argparse.Namespace(cache=str(tmp_path), out=str(tmp_path), vocabulary=300, bins=256)
    with pytest.raises(LocalFault) as caught:
        data_commands.data(args, Recorder())
    assert caught.value.code == "RNM-CONF-0001"
