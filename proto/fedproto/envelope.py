"""The envelope of every signed act: DSSE v1 over canonical JSON.

Verify, then parse: `open_envelope` hands out the payload only after every signature verified over
the very bytes that were received; `claim` hands out what is to be verified, for who has it done
elsewhere. The payload type in the pre-authentication encoding is the domain tag. Implements
secure-systems-lab/dsse v1.0 (PAE) with canonical JSON (RFC 8785) outside and inside, so one act has one
leaf. Pure.
"""

import base64
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from fedproto import jcs
from fedproto.errors import LocalFault
from fedproto.identity import SigningKey, VerifyKey
from fedproto.ids import KeyId
from fedproto.jcs import Json

EVENT_TYPE = "application/vnd.renmei.event.v1+json"
AUTHORISATION_TYPE = "application/vnd.renmei.round-authorisation.v1+json"

# An entry of the log has at most 65,535 bytes (C2SP tlog-tiles entry bundles).
MAX_ENVELOPE = 65_535

Resolver = Callable[[KeyId], VerifyKey | None]


@dataclass(frozen=True, slots=True)
class Opened:
    """A verified payload, its exact bytes, and the ids of the keys that signed it, sorted."""

    payload: Json
    payload_bytes: bytes
    signers: tuple[KeyId, ...]


@dataclass(frozen=True, slots=True)
class Claim:
    """That a key has signed a message; not verified yet."""

    key: VerifyKey
    signature: bytes
    message: bytes

    def verify(self) -> None:
        """Raise RNM-SIG-0001 unless it is so."""
        self.key.verify(self.signature, self.message)


@dataclass(frozen=True, slots=True)
class Claimed:
    """An envelope of which nothing is verified yet: it opens to who has verified every claim."""

    claims: tuple[Claim, ...]
    _payload: bytes = field(repr=False)
    _signers: tuple[KeyId, ...] = field(repr=False)

    def open_verified(self) -> Opened:
        """Parse the payload, once all claims are verified; RNM-FORM-0001 if it is not canonical."""
        return Opened(jcs.loads(self._payload), self._payload, self._signers)


def _pae(payload_type: str, payload: bytes) -> bytes:
    kind = payload_type.encode("ascii")
    return b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(payload), payload)


def _fault(code: str, why: str) -> LocalFault:
    return LocalFault(
        code,
        what="a signed statement was refused",
        why=why,
        mend="do not act on it; ask its sender to send it again",
    )


def seal(payload_type: str, payload: Json, keys: Sequence[SigningKey]) -> bytes:
    """Return the envelope of `payload`, signed by every one of `keys`."""
    body = jcs.dumps(payload)
    message = _pae(payload_type, body)
    signed = {key.verify_key.key_id: key.sign(message) for key in keys}
    return _encode(payload_type, body, signed)


def countersign(envelope: bytes, payload_type: str, key: SigningKey) -> bytes:
    """Return `envelope` with the signature of `key` added; the others are not checked here."""
    body, signatures = _decode(envelope, payload_type)
    signatures[key.verify_key.key_id] = key.sign(_pae(payload_type, body))
    return _encode(payload_type, body, signatures)


def _encode(payload_type: str, body: bytes, signatures: dict[KeyId, bytes]) -> bytes:
    return jcs.dumps(
        {
            "payload": base64.b64encode(body).decode("ascii"),
            "payloadType": payload_type,
            "signatures": [
                {"keyid": key_id, "sig": base64.b64encode(signatures[key_id]).decode("ascii")}
                for key_id in sorted(signatures)
            ],
        }
    )


def _base64(text: Json) -> bytes:
    if not isinstance(text, str):
        raise _fault("RNM-FORM-0002", "a field of the envelope is not text")
    try:
        raw = base64.b64decode(text, validate=True)
    except ValueError:
        raise _fault("RNM-FORM-0001", "a field of the envelope is not base64") from None
    # Base64 has spare bits at its end: two spellings of the same bytes would be two leaves of one act.
    last = len(raw) % 3 or 3
    if base64.b64encode(raw[-last:]) != text[-4:].encode("ascii"):
        raise _fault("RNM-FORM-0001", "a field of the envelope is not in canonical base64")
    return raw


# What stands between the quotation marks of an envelope with one signature, apart from its values.
_SINGLE = b"{ payload : , payloadType : , signatures :[{ keyid : , sig : }]}".split()
_VALUES = (3, 7, 13, 17)


def _read_single(envelope: bytes) -> Json:
    """Return an envelope with one signature as `jcs.loads` would, told by its quotation marks; or nothing.

    Canonical JSON writes it in one way alone. What is base64 is not looked at here: whoever decodes it
    refuses all that JSON would write in another way.
    """
    parts = envelope.split(b'"')
    fixed = [part for number, part in enumerate(parts) if number not in _VALUES]
    if fixed != _SINGLE or not envelope.isascii():
        return None
    payload, kind, key_id, signature = (parts[number].decode("ascii") for number in _VALUES)
    if "\\" in kind + key_id or not (kind + key_id).isprintable():
        return None
    return {
        "payload": payload,
        "payloadType": kind,
        "signatures": [{"keyid": key_id, "sig": signature}],
    }


def _decode(envelope: bytes, payload_type: str) -> tuple[bytes, dict[KeyId, bytes]]:
    if len(envelope) > MAX_ENVELOPE:
        raise _fault("RNM-FORM-0002", f"it has {len(envelope)} bytes, more than {MAX_ENVELOPE}")
    outer = _read_single(envelope) or jcs.loads(envelope)
    if not isinstance(outer, dict) or outer.keys() != {"payload", "payloadType", "signatures"}:
        raise _fault("RNM-FORM-0002", "it is not a DSSE envelope")
    if outer["payloadType"] != payload_type:
        raise _fault("RNM-FORM-0002", f"its type is {outer['payloadType']!r}, not {payload_type}")
    listed = outer["signatures"]
    if not isinstance(listed, list) or not listed:
        raise _fault("RNM-SIG-0001", "it carries no signature")
    signatures: dict[KeyId, bytes] = {}
    order: list[str] = []
    for item in listed:
        if not isinstance(item, dict) or item.keys() != {"keyid", "sig"}:
            raise _fault("RNM-FORM-0002", "a signature entry is not {keyid, sig}")
        if not isinstance(item["keyid"], str):
            raise _fault("RNM-FORM-0002", "a key id is not text")
        order.append(item["keyid"])
        signatures[KeyId(item["keyid"])] = _base64(item["sig"])
    if order != sorted(set(order)):
        raise _fault("RNM-FORM-0001", "signatures are not sorted by key id, or one stands twice")
    return _base64(outer["payload"]), signatures


def claim(envelope: bytes, payload_type: str, resolve: Resolver) -> Claimed:
    """Return what an envelope claims, for its claims to be verified before it is opened.

    Raises:
        LocalFault: RNM-SIG-0002 a signer is unknown to `resolve`; RNM-SIG-0001 it carries no signature;
            RNM-FORM-0001 or -0002 the bytes are not exactly one canonical envelope.
    """
    body, signatures = _decode(envelope, payload_type)
    message = _pae(payload_type, body)
    claims = []
    for key_id, signature in signatures.items():
        key = resolve(key_id)
        if key is None:
            raise _fault("RNM-SIG-0002", f"key {key_id[:32]} is not on the roster")
        claims.append(Claim(key, signature, message))
    # Listed in order: `_decode` sees to it.
    return Claimed(tuple(claims), body, tuple(signatures))


def open_envelope(envelope: bytes, payload_type: str, resolve: Resolver) -> Opened:
    """Verify every signature, then parse.

    Raises:
        LocalFault: as `claim`; RNM-SIG-0001 a signature does not verify.
    """
    claimed = claim(envelope, payload_type, resolve)
    for each in claimed.claims:
        each.verify()
    return claimed.open_verified()


def peek(envelope: bytes, payload_type: str) -> Json:
    """Parse an envelope *without* verifying it; for display and for a charter's first adoption."""
    body, _ = _decode(envelope, payload_type)
    return jcs.loads(body)
