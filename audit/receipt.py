"""COSE receipts: one entry's inclusion in the log, for verifiers that speak SCITT.

Decides whether the log's key signed a root that an entry is under, at the place that the receipt names.
Trusts the log's key alone: a receipt carries no witness, so whoever can verify a tlog-proof should.
Implements RFC 9942 with RFC9162_SHA256 (vds 1). RFC 9942 leaves size and index unsigned; here the subject
(CWT claim 2, which RFC 9943 asks for) repeats them, so that they are signed. Pure.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from audit import cbor, merkle
from audit.checkpoint import SignedCheckpoint
from audit.faults import unverified
from audit.note import NOTE_TYPE, NoteSigner, NoteVerifier, SignatureLine
from fedproto.ids import Digest

MEDIA_TYPE = "application/cose"
MAX_RECEIPT = 8_192
_SIGN1_TAG = 18
_ALG, _KID, _CLAIMS, _VDS, _VDP = 1, 4, 15, 395, 396
_ISSUER, _SUBJECT = 1, 2
_EDDSA = -8
_RFC9162_SHA256 = 1
_INCLUSION = -1


@dataclass(frozen=True, slots=True, kw_only=True)
class Inclusion:
    """Where a verified receipt places its entry; `root` is hex."""

    index: int
    size: int
    root: Digest


def issue(
    entry: bytes,
    index: int,
    hashes: Sequence[bytes],
    checkpoint: SignedCheckpoint,
    log_key: NoteSigner,
) -> bytes:
    """Return a receipt for an entry under a checkpoint that the log has already signed.

    Raises:
        LocalFault: RNM-LEDGER-0001 the proof does not lead there: nothing was signed.
    """
    head = checkpoint.head
    leaf = merkle.leaf_hash(entry)
    merkle.verify_inclusion(leaf, index, head.size, hashes, head.root_bytes)
    log = log_key.verifier
    if checkpoint.note.find(log) is None:
        raise _refused("the checkpoint is signed by another key than the receipt would be")
    protected = _protected(log, leaf, index, head.size)
    signature = log_key.sign(_signed_bytes(protected, head.root_bytes)).signature
    path: list[cbor.Value] = list(hashes)
    inclusion = cbor.encode([head.size, index, path])
    unprotected: dict[int, cbor.Value] = {_VDP: {_INCLUSION: [inclusion]}}
    return cbor.encode(cbor.Tagged(_SIGN1_TAG, [protected, unprotected, None, signature]))


def verify(data: bytes, entry: bytes, log: NoteVerifier) -> Inclusion:
    """Return where the log's key says that an entry is.

    Raises:
        LocalFault: RNM-LEDGER-0001.
    """
    if len(data) > MAX_RECEIPT:
        raise _refused(f"it has more than {MAX_RECEIPT} bytes")
    if log.kind != NOTE_TYPE:
        raise _refused("the key to verify it with is not a log's")
    try:
        protected, inclusion, signature = _open(cbor.decode(data))
        size, index, path = _open_inclusion(cbor.decode(inclusion))
    except ValueError as error:
        raise _refused(str(error)) from None
    leaf = merkle.leaf_hash(entry)
    if protected != _protected(log, leaf, index, size):
        raise _refused("its protected header is not the one of this log for this entry and place")
    root = merkle.root_from_inclusion(leaf, index, size, path)
    line = SignatureLine(log.name, log.key_id, signature)
    log.verify(line, _signed_bytes(protected, root))
    return Inclusion(index=index, size=size, root=Digest(root.hex()))


def _protected(log: NoteVerifier, leaf: bytes, index: int, size: int) -> bytes:
    subject = f"{leaf.hex()}/{index}/{size}"
    return cbor.encode(
        {
            _ALG: _EDDSA,
            _KID: log.key_id,
            _CLAIMS: {_ISSUER: log.name, _SUBJECT: subject},
            _VDS: _RFC9162_SHA256,
        }
    )


def _signed_bytes(protected: bytes, root: bytes) -> bytes:
    """Return the Sig_structure of RFC 9052 over the root, which is the detached payload."""
    return cbor.encode(["Signature1", protected, b"", root])


def _open(value: cbor.Value) -> tuple[bytes, bytes, bytes]:
    match value:
        case cbor.Tagged(
            tag=18,
            value=[bytes() as protected, {396: proofs, **others}, None, bytes() as signature],
        ) if not others:
            match proofs:
                case {-1: [bytes() as inclusion], **more} if not more:
                    return protected, inclusion, signature
    raise ValueError("it is not a COSE_Sign1 with one inclusion proof and a detached payload")


def _open_inclusion(value: cbor.Value) -> tuple[int, int, list[bytes]]:
    match value:
        case [int() as size, int() as index, [*path]] if 0 <= index < size < 2**63:
            hashes = [item for item in path if isinstance(item, bytes)]
            if len(hashes) == len(path):
                return size, index, hashes
    raise ValueError("its inclusion proof is not size, index and hashes")


def _refused(why: str) -> Exception:
    return unverified("a receipt was refused", why)
