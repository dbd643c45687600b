"""The outer step against a reference written out by hand, and the artifacts that it is kept in."""

import numpy as np
import pytest

from federation import optimiser
from federation.artifacts import ArtifactStore
from fedproto.errors import FederationError
from fedproto.ids import sha256_hex
from fedproto.layout import vector_digest

RNG = np.random.default_rng(5)


def vector(size=100):
    return RNG.normal(size=size).astype(np.float32)


def refused(code, act):
    with pytest.raises(FederationError) as caught:
        act()
    assert caught.value.code == code


def test_without_momentum_and_at_rate_one_it_is_plain_fedavg():
    start, delta = vector(), vector()
    step = optimiser.advance(optimiser.start(start), delta, rate=1.0, decay=0.0)
    assert np.array_equal(step.adapter, start + delta)


def test_nesterov_is_what_its_definition_says():
    start, deltas = vector(), [vector() for _ in range(4)]
    state = optimiser.start(start)
    x, v = start.astype(np.float64), np.zeros(100)
    for delta in deltas:
        state = optimiser.advance(state, delta, rate=0.7, decay=0.9)
        v = 0.9 * v + delta
        x = x + 0.7 * (delta + 0.9 * v)
    assert np.allclose(state.adapter, x, atol=1e-5)
    assert np.allclose(state.momentum, v, atol=1e-5)


def test_the_same_inputs_give_the_same_bytes():
    start, delta = vector(), vector()
    one = optimiser.advance(optimiser.start(start), delta, rate=0.7, decay=0.9)
    two = optimiser.advance(optimiser.start(start.copy()), delta.copy(), rate=0.7, decay=0.9)
    assert vector_digest(one.adapter) == vector_digest(two.adapter)
    assert one.adapter.dtype == np.float32


def test_an_artifact_is_kept_under_the_digest_that_it_has_and_no_other(tmp_path):
    store = ArtifactStore(tmp_path)
    digest = sha256_hex(b"content")
    store.put(digest, iter([b"con", b"tent"]), vector=False)
    assert b"".join(store.read(digest)) == b"content"
    assert b"".join(store.read(digest, 3)) == b"tent"
    refused("RNM-MODEL-0001", lambda: store.put("0" * 64, iter([b"content"]), vector=False))
    refused("RNM-MODEL-0001", lambda: store.put("../escape", iter([b"x"]), vector=False))
    refused("RNM-MODEL-0003", lambda: list(store.read("../" + digest)))
    refused("RNM-MODEL-0003", lambda: list(store.read("1" * 64)))
    assert sorted(p.name for p in (tmp_path / "files").iterdir()) == [digest]


def test_a_round_is_kept_with_its_momentum_and_read_back(tmp_path):
    store = ArtifactStore(tmp_path)
    adapter, momentum = vector(), vector()
    digest = store.keep_round(adapter, momentum)
    assert digest == vector_digest(adapter)
    assert np.array_equal(store.adapter(digest, 100), adapter)
    assert np.array_equal(store.momentum(digest, 100), momentum)


def test_a_momentum_that_is_damaged_or_gone_stops_the_run_by_name(tmp_path):
    store = ArtifactStore(tmp_path)
    digest = store.keep_round(vector(), vector())
    path = tmp_path / "momenta" / digest
    path.write_bytes(path.read_bytes()[:-1] + b"\0")
    refused("RNM-MODEL-0001", lambda: store.momentum(digest, 100))
    path.unlink()
    refused("RNM-MODEL-0003", lambda: store.momentum(digest, 100))


def test_a_momentum_is_served_to_nobody(tmp_path):
    store = ArtifactStore(tmp_path)
    momentum = vector()
    digest = store.keep_round(vector(), momentum)
    assert b"".join(store.read(digest)) != momentum.tobytes()
    refused("RNM-MODEL-0003", lambda: list(store.read(vector_digest(momentum))))
