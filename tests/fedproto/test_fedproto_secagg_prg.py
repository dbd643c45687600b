"""The keystream: known answers, both paths alike, 256 bits of seed, uniform masks."""

import hashlib

import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from hypothesis import given, settings
from hypothesis import strategies as st

from fedproto.secagg import ring
from fedproto.secagg.params import WORD, Params
from fedproto.secagg.prg import (
    CHUNK_BYTES,
    CHUNK_WORDS,
    SLACK,
    CtrKeystream,
    GcmKeystream,
    Masks,
)
from fedproto.secagg.quantise import Rounding, quantise
from fedproto.secagg.stages import MaskSeed

SEED = hashlib.sha256(b"seed").digest()


def stream(keystream, seed, chunk, count):
    out = memoryview(bytearray(count + SLACK))
    keystream(seed).write(chunk, count, out)
    return bytes(out[:count])


def openssl_ctr(seed, chunk, count):
    block = chunk.to_bytes(12, "big") + (2).to_bytes(4, "big")
    return Cipher(algorithms.AES(seed), modes.CTR(block)).encryptor().update(bytes(count))


@pytest.mark.parametrize("keystream", [GcmKeystream, CtrKeystream])
@pytest.mark.parametrize(("chunk", "count"), [(0, CHUNK_BYTES), (1, 100), (2**40, 4), (7, 65_536)])
def test_both_paths_yield_the_ctr_keystream_from_counter_two(keystream, chunk, count):
    assert stream(keystream, SEED, chunk, count) == openssl_ctr(SEED, chunk, count)


def test_the_nist_known_answer_of_aes_256_holds():
    # SP 800-38A F.5.5 CTR-AES256: E(key, f0f1..ff) from its first block.
    key = bytes.fromhex("603deb1015ca71be2b73aef0857d77811f352c073b6108d72d9810a30914dff4")
    encryptor = Cipher(algorithms.AES256(key), modes.ECB()).encryptor()
    block = encryptor.update(bytes.fromhex("f0f1f2f3f4f5f6f7f8f9fafbfcfdfeff"))
    assert block.hex() == "0bdf7df1591716335e9a8b15c860c502"
    first = stream(GcmKeystream, key, 0, 16)
    encryptor = Cipher(algorithms.AES256(key), modes.ECB()).encryptor()
    assert first == encryptor.update(bytes(15) + b"\x02")


def test_every_bit_of_the_seed_changes_the_keystream():
    """Flower's SecAgg+ folds a seed to 32 bits: other seeds give the same mask. Here none does."""
    seen = {stream(GcmKeystream, SEED, 0, 32)}
    for bit in range(256):
        seed = bytearray(SEED)
        seed[bit // 8] ^= 1 << (bit % 8)
        changed = stream(GcmKeystream, bytes(seed), 0, 32)
        differing = int.from_bytes(changed, "big") ^ int.from_bytes(
            stream(GcmKeystream, SEED, 0, 32), "big"
        )
        assert 80 < differing.bit_count() < 176
        seen.add(changed)
    assert len(seen) == 257


def test_seeds_that_fold_to_the_same_32_bits_give_other_masks():
    """The xor-fold by which Flower's generator is searched does not relate two keystreams."""
    words = np.frombuffer(SEED, ">u4")
    fold = np.bitwise_xor.reduce(words)
    rng = np.random.default_rng(1)
    seen = set()
    for _ in range(2000):
        other = rng.integers(0, 2**32, 8, dtype=np.uint32)
        other[7] = fold ^ np.bitwise_xor.reduce(other[:7])
        seed = other.astype(">u4").tobytes()
        assert np.bitwise_xor.reduce(np.frombuffer(seed, ">u4")) == fold
        seen.add(stream(GcmKeystream, seed, 0, 8))
    assert len(seen) == 2000


@pytest.mark.parametrize("length", [0, 16, 31, 33])
def test_a_seed_of_another_length_is_refused(length):
    with pytest.raises(ValueError, match="32 bytes"):
        MaskSeed(seed=bytes(length), add=True)


@settings(max_examples=30, deadline=None)
@given(
    size=st.integers(1, 2 * CHUNK_WORDS + 3),
    seeds=st.lists(st.tuples(st.binary(min_size=32, max_size=32), st.booleans()), max_size=4),
)
def test_masks_come_off_again_whatever_the_path(size, seeds):
    words = np.arange(size, dtype=WORD)
    masked = words.copy()
    masks = Masks([MaskSeed(seed=s, add=a) for s, a in seeds], GcmKeystream)
    for chunk, block in ring.blocks(masked):
        masks.apply(chunk, block)
    back = Masks([MaskSeed(seed=s, add=not a) for s, a in seeds], CtrKeystream)
    for chunk, block in ring.blocks(masked):
        back.apply(chunk, block)
    assert np.array_equal(masked, words)


def params(d):
    return Params(members=4, threshold=3, tolerated=1, parameters=d, qmax=2**19 - 1, clip=1.0)


def test_the_fused_pass_equals_quantising_and_then_masking():
    d = 2 * CHUNK_WORDS + 77
    delta = (np.random.default_rng(2).standard_normal(d) / 1000).astype(np.float32)
    vector = quantise(delta, 0.7, params(d), SEED)
    seeds = [MaskSeed(seed=hashlib.sha256(bytes([i])).digest(), add=i % 2 == 0) for i in range(5)]
    apart = np.empty(d + 1, WORD)
    rounding = Rounding(vector, CtrKeystream)
    for chunk, block in ring.blocks(apart):
        rounding.write(chunk, block)
    ring.unmask(apart, seeds)
    assert b"".join(ring.mask(vector, seeds)) == apart.tobytes()


def test_a_vector_is_not_sent_without_a_mask():
    with pytest.raises(ValueError, match="without a mask"):
        ring.mask(quantise(np.zeros(3, np.float32), 1.0, params(3), SEED), [])


@pytest.mark.parametrize("seeds", [1, 4])
def test_a_masked_vector_of_zeros_is_uniform(seeds):
    """Chi-square over byte values at each of the four places of a word, and over neighbouring bits."""
    d = 200_000
    vector = quantise(np.zeros(d, np.float32), 1.0, params(d), SEED)
    masks = [MaskSeed(seed=hashlib.sha256(b"u%d" % i).digest(), add=True) for i in range(seeds)]
    words = np.frombuffer(b"".join(ring.mask(vector, masks)), np.uint8)
    for place in range(4):
        counts = np.bincount(words[place::4], minlength=256)
        expected = counts.sum() / 256
        chi2 = float(((counts - expected) ** 2 / expected).sum())
        # 255 degrees of freedom: mean 255, standard deviation 22.6; seven of them either way.
        assert 97 < chi2 < 413
    bits = np.unpackbits(words)
    for lag in (1, 8, 32):
        same = np.count_nonzero(bits[:-lag] == bits[lag:]) / (bits.size - lag)
        assert abs(same - 0.5) < 7 * 0.5 / np.sqrt(bits.size)


def test_the_uniformity_test_can_fail():
    unmasked = np.zeros(200_000, np.uint8)
    counts = np.bincount(unmasked, minlength=256)
    expected = counts.sum() / 256
    assert float(((counts - expected) ** 2 / expected).sum()) > 413
