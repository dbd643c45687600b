import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from base_kit import some_documents
from tokenizers import Tokenizer

from base_model import packing
from base_model.packing import Batches, Stream, pack
from base_model.sources import Document
from base_model.tokenizer import BOS, EOS
from base_model.tokenizer import save as save_tokenizer
from fedproto.errors import LocalFault

_KILLED = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from base_kit import some_documents
from base_model import packing, tokenizer
packing._SHARD = 50
def kill(done, total):
    if done >= 100:
        os.kill(os.getpid(), signal.SIGKILL)
packing.pack(some_documents(), tokenizer.load(Path(sys.argv[2])), Path(sys.argv[2]) / "p", kill)
"""


def test_a_killed_packing_goes_on_and_ends_with_the_same_stream(
    tokenizer: Tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_tokenizer(tokenizer, tmp_path)
    done = subprocess.run(
        [sys.executable, "-c", _KILLED, Path(__file__).parent, tmp_path], check=False
    )
    assert done.returncode == -signal.SIGKILL
    folder = tmp_path / "p"
    left = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert left
    assert not (folder / "index.json").exists()
    with pytest.raises(LocalFault) as caught:
        packing.read(folder)
    assert caught.value.code == "RNM-DATA-0001"

    monkeypatch.setattr(packing, "_SHARD", 50)
    resumed = pack(some_documents(), tokenizer, folder)
    # Finished shards were taken over, not made again.
    assert {path: path.stat().st_mtime_ns for path in left} == left
    whole = pack(some_documents(), tokenizer, tmp_path / "other")
    assert np.array_equal(resumed, whole)


def test_a_stream_holds_each_document_between_its_marks(
    tokenizer: Tokenizer, tmp_path: Path
) -> None:
    stream = pack([Document("g", "一"), Document("g", "二")], tokenizer, tmp_path / "p")
    ids = [BOS, *tokenizer.encode("一").ids, EOS, BOS, *tokenizer.encode("二").ids, EOS]
    assert stream.tolist() == ids


def test_other_documents_or_another_tokenizer_are_packed_again(
    tokenizer: Tokenizer, tmp_path: Path
) -> None:
    pack([Document("g", "一" * 10)], tokenizer, tmp_path)
    assert pack([Document("g", "二" * 10)], tokenizer, tmp_path).tolist()[1:-1] == (
        tokenizer.encode("二" * 10).ids
    )


@pytest.mark.parametrize("damage", ["shard changed", "shard gone", "index cut"])
def test_a_damaged_stream_is_refused(tokenizer: Tokenizer, tmp_path: Path, damage: str) -> None:
    documents = some_documents()
    pack(documents, tokenizer, tmp_path)
    (shard,) = tmp_path.glob("*.bin")
    if damage == "shard changed":
        data = bytearray(shard.read_bytes())
        data[10] ^= 1
        shard.write_bytes(data)
    elif damage == "shard gone":
        shard.unlink()
    else:
        (tmp_path / "index.json").write_bytes(b'{"key"')
    with pytest.raises(LocalFault) as caught:
        pack(documents, tokenizer, tmp_path)
    assert caught.value.code == "RNM-DATA-0002"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_leaves_no_index(
    tokenizer: Tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.write

    def full(handle: int, data: object) -> int:
        with open("/dev/full", "wb", buffering=0) as nowhere:
            return nowhere.write(b"x")  # ENOSPC, from the kernel

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(LocalFault) as caught:
        pack(some_documents(), tokenizer, tmp_path / "p")
    monkeypatch.setattr(os, "write", real)
    assert caught.value.code == "RNM-DISK-0001"
    assert list((tmp_path / "p").iterdir()) == []


def batches(seed: int = 7, size: int = 1000) -> Batches:
    return Batches(stream=np.arange(size, dtype=np.uint16), sequence=8, seed=seed)


def test_batches_depend_on_seed_and_step_alone() -> None:
    later = [batches().batch(step, 4) for step in (5, 3)]
    assert torch.equal(later[1], batches().batch(3, 4))
    assert not torch.equal(batches(8).batch(3, 4), later[1])


@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_the_samples_of_a_step_are_the_same_however_many_share_it(ranks: int) -> None:
    whole = batches().batch(40, 4)
    parts = [batches().batch(40, 4, rank=rank, ranks=ranks) for rank in range(ranks)]
    for rank, part in enumerate(parts):
        assert torch.equal(part, whole[rank::ranks])


def test_an_epoch_shows_each_window_once() -> None:
    own = batches()
    seen = torch.cat([own.batch(step, 4)[:, 0] for step in range(own.windows // 4)])
    assert len(set(seen.tolist())) == len(seen)


def test_a_corpus_shorter_than_a_window_is_named() -> None:
    with pytest.raises(LocalFault) as caught:
        batches(size=8)
    assert caught.value.code == "RNM-DATA-0003"


def test_a_stream_in_shards_gives_the_windows_of_the_whole(
    tokenizer: Tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packing, "_SHARD", 50)
    whole = pack(some_documents(), tokenizer, tmp_path)
    stream = Stream.open(tmp_path)
    assert len(list(tmp_path.glob("*.bin"))) == 5
    assert stream.size == whole.size
    for start in range(0, whole.size - 700, 611):
        assert np.array_equal(stream.window(start, 700), whole[start : start + 700])
    assert np.array_equal(stream.window(0, whole.size), whole)
    for start, length in ((-1, 5), (whole.size - 4, 5)):
        with pytest.raises(ValueError, match="not in a stream"):
            stream.window(start, length)


def test_a_damaged_shard_is_refused_when_a_window_touches_it(
    tokenizer: Tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packing, "_SHARD", 50)
    pack(some_documents(), tokenizer, tmp_path)
    last = sorted(tmp_path.glob("*.bin"))[-1]
    data = bytearray(last.read_bytes())
    data[3] ^= 1
    last.write_bytes(data)
    stream = Stream.open(tmp_path)
    stream.window(0, 10)
    with pytest.raises(LocalFault) as caught:
        stream.window(stream.size - 10, 10)
    assert caught.value.code == "RNM-DATA-0002"
    assert last.name in caught.value.why
    last.unlink()
    with pytest.raises(LocalFault):
        Stream.open(tmp_path)
    (tmp_path / "index.json").unlink()
    with pytest.raises(LocalFault) as caught:
        Stream.open(tmp_path)
    assert caught.value.code == "RNM-DATA-0001"


@pytest.mark.parametrize(("vocabulary", "kind"), [(2**16, "uint16"), (2**16 + 1, "uint32")])
def test_tokens_of_a_large_vocabulary_keep_their_numbers(
    tmp_path: Path, vocabulary: int, kind: str
) -> None:
    pieces = [[5, vocabulary - 1], [7]]
    stream = packing.pack_tokens(pieces, vocabulary, tmp_path)
    assert stream.dtype == kind
    assert stream.tolist() == [BOS, 5, vocabulary - 1, EOS, BOS, 7, EOS]
    assert Stream.open(tmp_path).window(0, 7).tolist() == stream.tolist()
    own = Batches(stream=stream, sequence=6, seed=1)
    assert own.batch(0, 1).tolist() == [stream.tolist()]
    packing.pack_tokens([[9]], vocabulary, tmp_path)
    assert packing.read(tmp_path).tolist() == [BOS, 9, EOS]
    index = tmp_path / "index.json"
    index.write_text(index.read_text().replace("<u", ">u"))
    with pytest.raises(LocalFault) as caught:
        packing.read(tmp_path)
    assert caught.value.code == "RNM-DATA-0002"
