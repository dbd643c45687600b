"""The process that verifies signatures for a coordinator: `python -m federation.signature_worker`.

Trusts its standard input, the coordinator's end of a socket; decides nothing but whether a signature
holds, and keeps no secret. A claim is the verify key, the signature, the length of the message in four
bytes and the message; the answers are a byte each, in the order of the claims. It ends with its input.
"""

import socket
from io import BufferedIOBase
from typing import Final

from fedproto.envelope import Claim
from fedproto.errors import LocalFault
from fedproto.identity import PUBLIC_BYTES, SIGNATURE_BYTES, VerifyKey

HOLDS: Final = 1
_LENGTH = 4
_FIXED = PUBLIC_BYTES + SIGNATURE_BYTES + _LENGTH


def encode(claim: Claim) -> bytes:
    """Return a claim as it is sent; its signature must be of the right length."""
    length = len(claim.message).to_bytes(_LENGTH, "big")
    return b"".join((claim.key.raw, claim.signature, length, claim.message))


def serve(line: socket.socket) -> None:
    """Answer claims until the other side ends."""
    with line, line.makefile("rb") as claims:
        while (claim := _read(claims)) is not None:
            line.sendall(bytes((_holds(claim),)))


def _read(claims: BufferedIOBase) -> Claim | None:
    fixed = claims.read(_FIXED)
    if len(fixed) < _FIXED:
        return None
    signed = PUBLIC_BYTES + SIGNATURE_BYTES
    length = int.from_bytes(fixed[signed:], "big")
    message = claims.read(length)
    if len(message) < length:
        return None
    return Claim(VerifyKey(fixed[:PUBLIC_BYTES]), fixed[PUBLIC_BYTES:signed], message)


def _holds(claim: Claim) -> int:
    try:
        claim.verify()
    except LocalFault:
        return 0
    return HOLDS


def main() -> None:
    """Serve standard input."""
    serve(socket.socket(fileno=0))


if __name__ == "__main__":
    main()
