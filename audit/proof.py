"""A tlog-proof: one entry's inclusion in one cosigned checkpoint, in one file that verifies offline.

Decides whether the log signed, enough witnesses cosigned, and the entry is under, the checkpoint inside.
Trusts the witness policy that the verifier pinned. The extra data is nobody's statement: it is neither
signed nor hashed. Implements C2SP tlog-proof v1, strictly. Pure.
"""

import base64
from collections.abc import Sequence
from dataclasses import dataclass

from audit import merkle, note
from audit.faults import unverified
from audit.policy import CosignedCheckpoint, WitnessPolicy

SUFFIX = ".tlog-proof"
MAX_HASHES = 63
MAX_EXTRA = 65_536
_HEADER = "c2sp.org/tlog-proof@v1"
_HASH_TEXT = 44
_MAX_INDEX_DIGITS = 18
# The checkpoint, the extra data in base64, and the lines around them.
MAX_PROOF = note.MAX_NOTE + MAX_EXTRA * 4 // 3 + (MAX_HASHES + 2) * (_HASH_TEXT + 1) + 128


@dataclass(frozen=True, slots=True, kw_only=True)
class TlogProof:
    """A parsed proof, not yet verified; `checkpoint` is a signed note."""

    index: int
    hashes: tuple[bytes, ...]
    checkpoint: bytes
    extra: bytes = b""

    def encode(self) -> bytes:
        """Return the bytes that `parse` reads."""
        rows = [_HEADER]
        if self.extra:
            rows.append(f"extra {_encode64(self.extra)}")
        rows.append(f"index {self.index}")
        rows += map(_encode64, self.hashes)
        return "\n".join(rows).encode() + b"\n\n" + self.checkpoint


def make(index: int, hashes: Sequence[bytes], checkpoint: bytes, extra: bytes = b"") -> bytes:
    """Return a proof file; raise RNM-LEDGER-0001 if it were none that `parse` reads."""
    data = TlogProof(index=index, hashes=tuple(hashes), checkpoint=checkpoint, extra=extra).encode()
    parse(data)
    return data


def parse(data: bytes) -> TlogProof:
    """Read a proof file strictly: every accepted input is what `TlogProof.encode` writes.

    Raises:
        LocalFault: RNM-LEDGER-0001.
    """
    if len(data) > MAX_PROOF:
        raise _refused(f"it has more than {MAX_PROOF} bytes")
    head, separator, checkpoint = data.partition(b"\n\n")
    if not separator or not head.isascii():
        raise _refused("no empty line stands between the proof and its checkpoint")
    rows = head.decode("ascii").split("\n")
    if rows.pop(0) != _HEADER:
        raise _refused(f"it does not start with {_HEADER}")
    extra = b""
    if rows and rows[0].startswith("extra "):
        extra = _extra(rows.pop(0))
    if not rows:
        raise _refused("it has no index")
    index = _index(rows.pop(0))
    if len(rows) > MAX_HASHES:
        raise _refused(f"it has more than {MAX_HASHES} hashes")
    note.parse(checkpoint)
    proof = TlogProof(
        index=index, hashes=tuple(map(_hash, rows)), checkpoint=checkpoint, extra=extra
    )
    if proof.encode() != data:
        raise _refused("it is not in canonical form")
    return proof


def verify(data: bytes, entry: bytes, policy: WitnessPolicy) -> CosignedCheckpoint:
    """Return the cosigned checkpoint under which an entry was proven to be.

    Raises:
        LocalFault: RNM-LEDGER-0001 the proof, a signature or the inclusion does not hold;
            RNM-LEDGER-0006 too few witnesses.
    """
    proof = parse(data)
    cosigned = policy.open(proof.checkpoint)
    head = cosigned.signed.head
    leaf = merkle.leaf_hash(entry)
    merkle.verify_inclusion(leaf, proof.index, head.size, proof.hashes, head.root_bytes)
    return cosigned


def _index(row: str) -> int:
    number = row.removeprefix("index ")
    if number == row or not number.isdigit() or len(number) > _MAX_INDEX_DIGITS:
        raise _refused("its index is not a number")
    return int(number)


def _extra(row: str) -> bytes:
    extra = _decode64(row.removeprefix("extra "), "its extra data")
    if not 0 < len(extra) <= MAX_EXTRA:
        raise _refused(f"its extra data are not within 1 and {MAX_EXTRA} bytes")
    return extra


def _hash(row: str) -> bytes:
    value = _decode64(row, "a hash")
    if len(value) != merkle.HASH_BYTES:
        raise _refused(f"a hash is not {merkle.HASH_BYTES} bytes long")
    return value


def _encode64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def _decode64(text: str, what: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except ValueError:
        raise _refused(f"{what} is not base64") from None


def _refused(why: str) -> Exception:
    return unverified("a proof of inclusion was refused", why)
