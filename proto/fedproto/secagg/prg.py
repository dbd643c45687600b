"""The keystream of a mask: AES-256 in counter mode, in chunks of 256 KiB.

KS(seed, i) = AES-256-CTR(key = seed, initial block = be96(i) || be32(2)). That is the AES-256-GCM
keystream for nonce be96(i), which OpenSSL yields with its fastest vector code; a processor on which
plain counter mode is faster takes CtrKeystream and gets the same bytes. All 256 bits of the seed
enter the key: there is no smaller seed space to search. Implements SA-1 (PRG), NIST SP 800-38A/D.
Never sees whose seed it is. Pure.
"""

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from fedproto.secagg.params import WORD, Words
from fedproto.secagg.stages import MaskSeed

CHUNK_BYTES = 256 << 10
CHUNK_WORDS = CHUNK_BYTES // WORD.itemsize
# Room behind a keystream for the GCM tag, or for what CTR asks of its output buffer.
SLACK = 16

_ZEROS = memoryview(bytes(CHUNK_BYTES))


class Keystream(Protocol):
    """The keystream of one seed, chunk by chunk."""

    def __init__(self, seed: bytes) -> None: ...

    def write(self, chunk: int, count: int, out: memoryview) -> None:
        """Write the first `count` bytes of chunk `chunk` to `out`, which has SLACK bytes more."""


class GcmKeystream:
    """Encrypts zeros with AES-256-GCM; the tag lands in the slack and is ignored."""

    __slots__ = ("_cipher",)

    def __init__(self, seed: bytes) -> None:
        self._cipher = AESGCM(seed)

    def write(self, chunk: int, count: int, out: memoryview) -> None:
        """Write the first `count` bytes of a chunk; the nonce is the chunk's number, used once."""
        nonce = chunk.to_bytes(12, "big")
        self._cipher.encrypt_into(nonce, _ZEROS[:count], None, out[: count + SLACK])


class CtrKeystream:
    """Encrypts zeros with AES-256-CTR, from the counter at which GCM starts."""

    __slots__ = ("_key",)

    def __init__(self, seed: bytes) -> None:
        self._key = algorithms.AES256(seed)

    def write(self, chunk: int, count: int, out: memoryview) -> None:
        """Write the first `count` bytes of a chunk."""
        block = chunk.to_bytes(12, "big") + b"\x00\x00\x00\x02"
        encryptor = Cipher(self._key, modes.CTR(block)).encryptor()
        encryptor.update_into(_ZEROS[:count], out[: count + SLACK])


class KeystreamBuffer:
    """Memory for one chunk of keystream, small enough to stay in a core's cache."""

    __slots__ = ("_bytes", "view")

    def __init__(self) -> None:
        self._bytes = np.empty(CHUNK_BYTES + SLACK, np.uint8)
        self.view = self._bytes.data

    def words(self, count: int, word: np.dtype[Any] = WORD) -> Words:
        """Return the first `count` words."""
        return self._bytes[:CHUNK_BYTES].view(word)[:count]

    def halves(self, count: int) -> np.ndarray[tuple[int], np.dtype[np.uint16]]:
        """Return the first `count` 16-bit little-endian numbers."""
        return self._bytes[:CHUNK_BYTES].view(np.dtype("<u2"))[:count]


class Masks:
    """Several seeds, applied together to a block of words while it is in the cache."""

    __slots__ = ("_buffer", "_streams")

    def __init__(
        self, seeds: Sequence[MaskSeed], keystream: type[Keystream] = GcmKeystream
    ) -> None:
        self._streams = [(keystream(seed.seed), seed.add) for seed in seeds]
        self._buffer = KeystreamBuffer()

    def apply(self, chunk: int, block: Words) -> None:
        """Add or subtract, modulo 2^32 or 2^16, every seed's chunk `chunk` to `block`, in place."""
        words = self._buffer.words(block.size, block.dtype)
        for stream, add in self._streams:
            stream.write(chunk, block.nbytes, self._buffer.view)
            (np.add if add else np.subtract)(block, words, out=block)
