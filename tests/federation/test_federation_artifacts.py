"""Artifacts: what is kept under a digest has it, and nothing else is kept at all."""

import hashlib

import numpy as np
import pytest

from federation.artifacts import ArtifactStore
from fedproto.errors import LocalFault
from fedproto.ids import sha256_hex
from fedproto.layout import vector_digest

DATA = b"weights " * 400_000
VECTOR = np.linspace(-1, 1, 1000, dtype=np.float32)
MOMENTUM = np.full(1000, 0.25, np.float32)


@pytest.fixture
def store(tmp_path):
    return ArtifactStore(tmp_path)


def kept(tmp_path):
    return sorted(path.name for path in (tmp_path / "files").iterdir())


def refused(code, call):
    with pytest.raises(LocalFault) as caught:
        call()
    assert caught.value.code == code
    return caught.value


def blocks_of(data, size=1 << 20):
    return iter([data[at : at + size] for at in range(0, len(data), size)])


def test_a_file_comes_back_whole_or_from_an_offset(store):
    store.put(sha256_hex(DATA), blocks_of(DATA), vector=False)
    assert b"".join(store.read(sha256_hex(DATA))) == DATA
    assert b"".join(store.read(sha256_hex(DATA), 1_500_000)) == DATA[1_500_000:]


@pytest.mark.parametrize("offset", [len(DATA), len(DATA) + 1, 2**64 - 1])
def test_beyond_the_end_there_is_nothing(store, offset):
    store.put(sha256_hex(DATA), blocks_of(DATA), vector=False)
    assert b"".join(store.read(sha256_hex(DATA), offset)) == b""


def test_bytes_with_another_digest_are_refused_and_not_kept(store, tmp_path):
    digest = sha256_hex(b"something else")
    refused("RNM-MODEL-0001", lambda: store.put(digest, blocks_of(DATA), vector=False))
    assert kept(tmp_path) == []
    refused("RNM-MODEL-0003", lambda: list(store.read(digest)))


def test_a_vector_is_named_by_the_digest_of_its_numbers_and_not_of_its_file(store, tmp_path):
    raw = VECTOR.tobytes()
    refused("RNM-MODEL-0001", lambda: store.put(sha256_hex(raw), iter([raw]), vector=True))
    store.put(vector_digest(VECTOR), iter([raw]), vector=True)
    assert kept(tmp_path) == [vector_digest(VECTOR)]
    assert (store.adapter(vector_digest(VECTOR), 1000) == VECTOR).all()


@pytest.mark.parametrize("size", [0, 1, 3999, 4001])
def test_a_vector_that_was_cut_is_refused(store, tmp_path, size):
    raw = (VECTOR.tobytes() + b"x")[:size]
    refused("RNM-MODEL-0001", lambda: store.put(vector_digest(VECTOR), iter([raw]), vector=True))
    assert kept(tmp_path) == []


@pytest.mark.parametrize("name", ["", "../../keys/log.key", "A" * 64, "0" * 63, "/etc/passwd"])
def test_a_name_that_is_no_digest_reaches_no_file(store, name):
    refused("RNM-MODEL-0001", lambda: store.put(name, iter([b"x"]), vector=False))
    refused("RNM-MODEL-0003", lambda: list(store.read(name)))
    assert not store.has(name)


def test_all_together_stay_within_the_quota(tmp_path):
    store = ArtifactStore(tmp_path, quota=len(DATA) + 100)
    store.put(sha256_hex(DATA), blocks_of(DATA), vector=False)
    more = b"y" * 101
    fault = refused(
        "RNM-MODEL-0001", lambda: store.put(sha256_hex(more), iter([more]), vector=False)
    )
    assert "all artifacts together" in fault.why
    store.put(sha256_hex(more[:100]), iter([more[:100]]), vector=False)
    assert len(kept(tmp_path)) == 2


def test_an_upload_that_breaks_off_leaves_nothing(store, tmp_path):
    class HungUp(Exception):
        """What gRPC raises when the sender is gone."""

    def broken():
        yield DATA[:1000]
        raise HungUp

    with pytest.raises(HungUp):
        store.put(sha256_hex(DATA), broken(), vector=False)
    assert kept(tmp_path) == []


def test_what_a_kill_left_half_brought_is_gone_after_the_restart(store, tmp_path):
    store.put(sha256_hex(DATA), blocks_of(DATA), vector=False)
    (tmp_path / "files" / ".put-abc").write_bytes(b"half")
    again = ArtifactStore(tmp_path)
    assert kept(tmp_path) == [sha256_hex(DATA)]
    assert again.has(sha256_hex(DATA))


def test_an_adapter_and_its_momentum_come_back_bit_for_bit(store):
    digest = store.keep_round(VECTOR, MOMENTUM)
    assert digest == vector_digest(VECTOR)
    assert store.adapter(digest, 1000).tobytes() == VECTOR.tobytes()
    assert store.momentum(digest, 1000).tobytes() == MOMENTUM.tobytes()


@pytest.mark.parametrize("damage", [b"", b"\x00" * 4032, b"short"], ids=["empty", "zeros", "short"])
@pytest.mark.parametrize("part", ["files", "momenta"])
def test_a_damaged_adapter_or_momentum_is_named_and_not_used(store, tmp_path, part, damage):
    digest = store.keep_round(VECTOR, MOMENTUM)
    (tmp_path / part / digest).write_bytes(damage)
    load = store.adapter if part == "files" else store.momentum
    refused("RNM-MODEL-0001", lambda: load(digest, 1000))


def test_one_changed_bit_of_a_momentum_is_noticed(store, tmp_path):
    digest = store.keep_round(VECTOR, MOMENTUM)
    path = tmp_path / "momenta" / digest
    data = bytearray(path.read_bytes())
    data[2000] ^= 1
    path.write_bytes(data)
    refused("RNM-MODEL-0001", lambda: store.momentum(digest, 1000))


def test_a_missing_adapter_or_momentum_is_named(store, tmp_path):
    digest = store.keep_round(VECTOR, MOMENTUM)
    (tmp_path / "momenta" / digest).unlink()
    fault = refused("RNM-MODEL-0003", lambda: store.momentum(digest, 1000))
    assert "backup" in fault.mend
    (tmp_path / "files" / digest).unlink()
    refused("RNM-MODEL-0003", lambda: store.adapter(digest, 1000))


def test_an_adapter_of_another_length_is_refused(store):
    digest = store.keep_round(VECTOR, MOMENTUM)
    refused("RNM-MODEL-0001", lambda: store.adapter(digest, 999))
    refused("RNM-MODEL-0001", lambda: store.momentum(digest, 999))


def test_momenta_are_for_the_coordinator_alone(store, tmp_path):
    digest = store.keep_round(VECTOR, MOMENTUM)
    assert (tmp_path / "momenta" / digest).stat().st_mode & 0o077 == 0
    sealed = hashlib.sha256(MOMENTUM.tobytes()).digest() + MOMENTUM.tobytes()
    assert sealed not in b"".join(store.read(digest))
