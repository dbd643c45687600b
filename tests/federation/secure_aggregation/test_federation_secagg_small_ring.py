"""The 16-bit ring: half the bytes, sums as exact, and no cohort in which they could wrap."""

import numpy as np
import pytest

from fedproto.authorisation import SUITES, word_bits
from fedproto.errors import LocalFault
from fedproto.secagg.params import PEAK, Params
from fedproto.secagg.quantise import dequantise
from fedproto.secagg.stages import MaskedVector, chunk_digest

# What the small ring takes: the most bits for a cohort.
LARGEST = {4: 14, 16: 12, 64: 10}


def params(members, bits, ring, d=100):
    return Params(
        members=members,
        threshold=members,
        tolerated=1,
        parameters=d,
        qmax=2 ** (bits - 1) - 1,
        clip=2.0,
        word_bits=ring,
    )


@pytest.mark.parametrize(("n", "bits"), LARGEST.items())
def test_the_ring_follows_from_cohort_and_bits(n, bits):
    assert word_bits(n, bits) == 16
    assert word_bits(n, bits + 1) == 32
    assert word_bits(n + 1, bits) == (16 if (n + 1) * (2 ** (bits - 1) - 1) < 2**15 else 32)


@pytest.mark.parametrize(("ring", "members", "bits"), [(16, 4, 15), (16, 65, 10), (32, 256, 24)])
def test_a_cohort_that_could_wrap_is_refused_and_one_less_is_not(ring, members, bits):
    with pytest.raises(LocalFault) as caught:
        params(members + 1, bits, ring)
    assert caught.value.code == "RNM-SECAGG-0004"
    assert f"could wrap a {ring}-bit sum" in caught.value.why


@pytest.mark.parametrize(("n", "bits"), LARGEST.items())
@pytest.mark.parametrize("sign", [1, -1])
def test_the_largest_sum_that_is_allowed_does_not_wrap(n, bits, sign):
    fixed = params(n, bits, 16)
    total = np.zeros(fixed.words, fixed.word)
    one = np.full(fixed.words, sign * fixed.qmax, fixed.signed_word)
    one[-1] = fixed.qmax
    for _ in range(n):
        total += one.view(fixed.word)
    mean, weight = dequantise(total, fixed, n)
    assert weight == n
    assert np.array_equal(mean, np.full(100, np.float32(sign * fixed.peak)))


@pytest.mark.parametrize(("n", "bits", "tolerated"), [(4, 14, 1), (16, 12, 5)])
@pytest.mark.parametrize("dropped", [(), ("m01",)], ids=["whole", "one lost"])
def test_a_sum_in_the_small_ring_is_exact(attempt, n, bits, tolerated, dropped):
    run = attempt(n, d=700, tolerated=tolerated, bits=bits, word_bits=16)
    run.advertise()
    run.share()
    run.mask(without=dropped)
    run.confirm()
    run.reveal()
    result = run.server.finish()
    mean, weight = run.expected(run.survivors)
    assert np.array_equal(result.mean_delta, mean)
    assert result.weight == weight


def test_sixty_four_members_sum_exactly_in_ten_bits(attempt):
    run = attempt(64, d=200, tolerated=21, bits=10, word_bits=16)
    run.advertise()
    run.share()
    run.mask(without=("m63",))
    run.confirm()
    run.reveal()
    mean, _ = run.expected(run.survivors)
    assert np.array_equal(run.server.finish().mean_delta, mean)


def test_chunks_of_the_small_ring_hold_twice_as_many_words(attempt):
    d = (1 << 19) + 5
    run = attempt(4, d=d, bits=14, word_bits=16)
    run.advertise()
    run.share()
    run.mask()
    assert [len(run.uploads["m00"].chunks[i]) for i in range(2)] == [1 << 20, 12]
    run.confirm()
    run.reveal()
    mean, _ = run.expected(run.survivors)
    assert np.array_equal(run.server.finish().mean_delta, mean)


def test_a_usual_value_keeps_many_steps_and_a_wild_one_is_cut(attempt):
    d = 10_000
    fixed = params(16, 12, 16, d)
    usual = fixed.clip / np.sqrt(d)
    assert fixed.peak == pytest.approx(PEAK * usual)
    assert usual * fixed.qmax / fixed.peak > 200
    assert params(16, 22, 32, d).peak == fixed.clip, "the large ring cuts nothing"


def test_a_suite_of_the_other_ring_is_refused(attempt):
    for ring, suite in ((16, SUITES[32]), (32, SUITES[16]), (8, "none")):
        with pytest.raises(ValueError, match="not known, or not of"):
            attempt(4, bits=14, word_bits=ring, suite=suite)


@pytest.mark.parametrize("kind", ["<u2", "<u4"])
def test_digests_name_the_very_bytes_that_are_sent(kind):
    vector = MaskedVector(np.arange((1 << 20) + 3, dtype=np.uint32).astype(kind))
    assert vector.chunk_digests() == tuple(chunk_digest(i, c) for i, c in enumerate(vector))
    assert b"".join(vector) == vector._words.tobytes()
