"""The quicker keystream is taken, whichever it is, and the bytes don't depend on it."""

import numpy as np
import pytest

from fedproto import calibration
from fedproto.calibration import fastest_keystream
from fedproto.secagg import ring
from fedproto.secagg.params import Params
from fedproto.secagg.prg import CtrKeystream, GcmKeystream
from fedproto.secagg.quantise import quantise
from fedproto.secagg.stages import MaskSeed


@pytest.fixture(autouse=True)
def _fresh():
    fastest_keystream.cache_clear()
    yield
    fastest_keystream.cache_clear()


@pytest.mark.parametrize("quick", [GcmKeystream, CtrKeystream])
def test_the_quicker_one_is_taken(monkeypatch, quick):
    monkeypatch.setattr(calibration, "_cost", lambda kind: 1.0 if kind is quick else 2.0)
    assert fastest_keystream() is quick


def test_it_is_measured_once():
    assert fastest_keystream() in (GcmKeystream, CtrKeystream)
    fastest_keystream()
    assert fastest_keystream.cache_info().misses == 1


@pytest.mark.parametrize("bits", [(22, 32), (12, 16)])
def test_a_masked_vector_is_the_same_by_either(bits):
    qmax, word = 2 ** (bits[0] - 1) - 1, bits[1]
    d = 300_000
    params = Params(
        members=4, threshold=3, tolerated=1, parameters=d, qmax=qmax, clip=1.0, word_bits=word
    )
    delta = (np.random.default_rng(3).standard_normal(d) / 1000).astype(np.float32)
    vector = quantise(delta, 0.5, params, bytes(32))
    seeds = [MaskSeed(seed=bytes([i]) * 32, add=i % 2 == 0) for i in range(3)]
    gcm, ctr = (ring.mask(vector, seeds, kind) for kind in (GcmKeystream, CtrKeystream))
    assert gcm.chunk_digests() == ctr.chunk_digests()
    total = gcm._words.copy()
    ring.unmask(total, [MaskSeed(seed=s.seed, add=not s.add) for s in seeds], CtrKeystream)
    assert abs(int(total.view(params.signed_word)[:-1].max())) <= qmax
