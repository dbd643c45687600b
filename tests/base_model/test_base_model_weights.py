import json
import os
from pathlib import Path

import pytest
import torch
from base_kit import TINY
from tokenizers import Tokenizer

from base_model.model import build
from base_model.weights import load_base, publish, verify
from fedproto import jcs
from fedproto.errors import LocalFault
from fedproto.ids import Digest, sha256_hex


@pytest.fixture
def release(tokenizer: Tokenizer, tmp_path: Path) -> Path:
    return publish(build(TINY, 7), tokenizer, tmp_path)


def refused(directory: Path, digest: str) -> LocalFault:
    with pytest.raises(LocalFault) as caught:
        load_base(directory, Digest(digest))
    return caught.value


def test_a_release_loads_with_the_weights_that_were_published(release: Path) -> None:
    loaded = load_base(release, Digest(release.name))
    pairs = zip(loaded.parameters(), build(TINY, 7).parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


def test_a_release_is_named_by_the_digest_of_its_canonical_manifest(release: Path) -> None:
    raw = (release / "manifest.json").read_bytes()
    assert release.name == sha256_hex(raw)
    files = {entry["name"]: entry for entry in jcs.loads(raw)["files"]}
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= files.keys()
    for name, entry in files.items():
        data = (release / name).read_bytes()
        assert (entry["sha256"], entry["bytes"]) == (sha256_hex(data), len(data))


def test_publishing_again_gives_the_same_release_and_leaves_nothing_else(
    release: Path, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    before = {path: path.stat().st_mtime_ns for path in release.iterdir()}
    assert publish(build(TINY, 7), tokenizer, tmp_path) == release
    assert publish(build(TINY, 8), tokenizer, tmp_path) != release
    assert {path: path.stat().st_mtime_ns for path in release.iterdir()} == before
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_another_digest_is_refused(release: Path) -> None:
    assert refused(release, "a" * 64).code == "RNM-MODEL-0001"


def test_a_changed_byte_in_any_file_is_refused(release: Path) -> None:
    names = sorted(path.name for path in release.iterdir())
    assert len(names) >= 5
    for name in names:
        data = (release / name).read_bytes()
        (release / name).write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
        fault = refused(release, release.name)
        assert fault.code == "RNM-MODEL-0001"
        if name != "manifest.json":
            assert name in fault.why
        (release / name).write_bytes(data)
    verify(release, Digest(release.name))


@pytest.mark.parametrize("name", ["modeling_evil.py", "pytorch_model.bin", ".hidden"])
def test_a_file_beside_the_listed_ones_is_refused(release: Path, name: str) -> None:
    (release / name).write_bytes(b"import os")
    assert refused(release, release.name).code == "RNM-MODEL-0001"


def test_a_missing_file_is_refused(release: Path) -> None:
    (release / "tokenizer.json").unlink()
    assert refused(release, release.name).code == "RNM-MODEL-0001"


@pytest.mark.parametrize("name", ["../config.json", ".config", "manifest.json"])
def test_a_manifest_that_lists_what_is_no_plain_file_name_is_refused(
    release: Path, name: str
) -> None:
    manifest = jcs.loads((release / "manifest.json").read_bytes())
    manifest["files"][0]["name"] = name
    raw = jcs.dumps(manifest)
    (release / "manifest.json").write_bytes(raw)
    with pytest.raises(LocalFault):
        load_base(release, sha256_hex(raw))


def test_a_directory_without_a_release_is_named(tmp_path: Path) -> None:
    assert refused(tmp_path, "a" * 64).code == "RNM-MODEL-0003"


def test_code_that_a_release_points_to_is_never_run(release: Path, tmp_path: Path) -> None:
    """A release whose digest was approved, but whose configuration asks for its own code."""
    config = json.loads((release / "config.json").read_bytes())
    config["auto_map"] = {"AutoModelForCausalLM": "evil.Model"}
    (release / "config.json").write_text(json.dumps(config))
    (release / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nclass Model: pass\n")
    files = [
        {"name": p.name, "sha256": sha256_hex(p.read_bytes()), "bytes": p.stat().st_size}
        for p in sorted(release.iterdir())
        if p.name != "manifest.json"
    ]
    raw = jcs.dumps({"v": 1, "files": files})
    (release / "manifest.json").write_bytes(raw)
    load_base(release, sha256_hex(raw))
    assert not (tmp_path / "ran").exists()


def test_a_release_that_cannot_be_written_leaves_nothing(
    tokenizer: Tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(handle: int) -> None:
        with open("/dev/full", "wb", buffering=0) as nowhere:
            nowhere.write(b"x")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(LocalFault) as caught:
        publish(build(TINY, 7), tokenizer, tmp_path)
    assert caught.value.code == "RNM-DISK-0001"
    assert list(tmp_path.iterdir()) == []
