"""Which of the two keystreams is quicker on this machine; their bytes are the same.

Decides speed, never content: OpenSSL's GCM code is the quickest where a processor has wide vector AES,
plain counter mode may be where it has not. Measured once a process, at first use, in a few milliseconds.
A shell module: it reads a clock.
"""

import time
from functools import cache

from fedproto.secagg.prg import CHUNK_BYTES, CtrKeystream, GcmKeystream, Keystream, KeystreamBuffer

_ROUNDS = 4
_CHUNKS = 4


@cache
def fastest_keystream() -> type[Keystream]:
    """Return the quicker of the keystreams, by the best of a few rounds."""
    # Turn about, so that a busy moment of the machine meets both.
    rounds = [(_cost(GcmKeystream), _cost(CtrKeystream)) for _ in range(_ROUNDS)]
    gcm, ctr = (min(costs) for costs in zip(*rounds, strict=True))
    return GcmKeystream if gcm <= ctr else CtrKeystream


def _cost(kind: type[Keystream]) -> float:
    """Return the CPU seconds of a few chunks; the key is no secret, and nothing is encrypted."""
    stream, buffer = kind(bytes(32)), KeystreamBuffer()
    began = time.thread_time()
    for chunk in range(_CHUNKS):
        stream.write(chunk, CHUNK_BYTES, buffer.view)
    return time.thread_time() - began
