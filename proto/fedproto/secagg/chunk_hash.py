"""The hash of upload chunks: BLAKE3 in its key derivation mode, the tag as context.

Decides the one digest here that isn't SHA-256. A round hashes every masked byte twice, and SHA-256 of
it cost more than drawing the masks. The digest binds a member, and the coordinator, to bytes that they
sent; nothing secret leans on it. Collisions take 2^128 work, as with SHA-256. Keys, signatures and
every list that is signed stay with SHA-256. Implements the BLAKE3 specification (2021), §2.3. Pure.
"""

from blake3 import blake3


def chunk_hash(tag: str, index: int, data: bytes | memoryview) -> bytes:
    """Return the digest of a chunk's index, as eight big-endian bytes, and its bytes."""
    state = blake3(index.to_bytes(8, "big"), derive_key_context=tag)
    return state.update(data).digest()
