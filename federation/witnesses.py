"""The Witness service: asks every attending member to cosign each new checkpoint.

Trusts no witness: its cosignature is verified before it is kept. A witness that says it has seen more
than this log holds, or another history, ends the service with the evidence: the log may have been
rolled back or forked. Implements the log's side of C2SP tlog-witness. A shell module.
"""

import logging
from collections.abc import Iterator
from typing import Any

from audit import witness
from federation.register import Register
from federation.roles import caller_of
from fedproto.errors import FederationError, LocalFault
from fedproto.ids import MemberId
from fedproto.v1 import witness_pb2_grpc
from fedproto.v1.witness_pb2 import WitnessAnswer, WitnessRequest

_WAKE_S = 1.0
_OK, _CONFLICT = 200, 409
_LOG = logging.getLogger(__name__)


class WitnessService(witness_pb2_grpc.WitnessServicer):
    """One stream for each attending witness."""

    def __init__(self, register: Register) -> None:
        self._register = register

    def Attend(  # noqa: N802  # gRPC's name
        self, request_iterator: Iterator[WitnessAnswer], context: Any
    ) -> Iterator[WitnessRequest]:
        """Send each new checkpoint and keep what comes back."""
        member = caller_of(context)
        if next(request_iterator, None) is None:
            return
        ledger, number, seen = self._register.ledger, 0, 0
        while context.is_active():
            if not self._await_more_than(seen):
                continue
            note = ledger.signed_checkpoint()
            size = int(note.split(b"\n", 2)[1])
            proof = ledger.prove_consistency(seen, size) if seen else []
            number += 1
            yield WitnessRequest(id=number, add_checkpoint=witness.request_body(seen, proof, note))
            answer = next(request_iterator, None)
            if answer is None or answer.id != number:
                return
            seen = self._take(member, answer, size)

    def _await_more_than(self, size: int) -> bool:
        return self._register.wait(lambda: self._register.ledger.head.size > size, _WAKE_S)

    def _take(self, member: MemberId, answer: WitnessAnswer, size: int) -> int:
        """Keep a cosignature; return the size that the witness has now seen."""
        if answer.status == _OK:
            try:
                self._register.ledger.add_cosignatures(size, answer.body)
            except FederationError as error:
                _LOG.error("cosignature of %s refused: %s %s", member, error.code, error.why)
            self._register.ring()
            return size
        if answer.status == _CONFLICT:
            stated = answer.body.strip()
            known = int(stated) if stated.isdigit() and len(stated) < 19 else 0
            if known <= self._register.ledger.head.size:
                return known
        raise LocalFault(
            "RNM-LEDGER-0004",
            what=f"witness {member} did not cosign the ledger at size {size}",
            why=f"it answered {answer.status}: it has seen another or a longer history",
            mend="stop the coordinator; compare its ledger with that member's mirror before "
            "anything else is signed",
        )
