"""The Witness service: asks every attending member to cosign each new checkpoint.

Trusts no witness: its cosignature is verified before it is kept. A witness that says it has seen more
than this log holds, or another history, ends the service with the evidence: the log may have been
rolled back or forked. Implements the log's side of C2SP tlog-witness. A shell module.
"""

import logging
from collections.abc import Iterator
from typing import Any

from audit import witness
from audit.faults import unverified
from audit.note import parse_lines
from audit.validation import validators
from federation.guard import StartGuard
from federation.register import Register
from federation.roles import caller_of
from fedproto.errors import FederationError, LocalFault
from fedproto.ids import MemberId
from fedproto.v1 import witness_pb2_grpc
from fedproto.v1.witness_pb2 import ValidateResponse, WitnessAnswer, WitnessRequest

_WAKE_S = 1.0
_OK, _CONFLICT = 200, 409
# A witness that attends elsewhere too may move on between question and answer, but not for ever.
_MAX_CONFLICTS = 3
_LOG = logging.getLogger(__name__)


class WitnessService(witness_pb2_grpc.WitnessServicer):
    """One stream for each attending witness."""

    def __init__(self, register: Register, guard: StartGuard | None = None) -> None:
        """Serve a log's witnesses; with a guard, the log signs nothing until they have spoken."""
        self._register, self._guard = register, guard

    def Attend(  # noqa: N802  # gRPC's name
        self, request_iterator: Iterator[WitnessAnswer], context: Any
    ) -> Iterator[WitnessRequest]:
        """Send each new checkpoint and keep what comes back."""
        member = caller_of(context)
        first = next(request_iterator, None)
        if first is None:
            return
        if self._guard is not None:
            self._guard.report(member, first.body)
        ledger, number = self._register.ledger, 0
        # What it last said that it knows, and what it has cosigned over this stream: the two differ
        # when its cosignature was lost on the way, and then it is asked for it again.
        known, cosigned, conflicts = 0, 0, 0
        while context.is_active() and not self._register.closed:
            if not self._await_more_than(cosigned):
                continue
            note = ledger.signed_checkpoint()
            size = int(note.split(b"\n", 2)[1])
            proof = ledger.prove_consistency(known, size) if known else []
            number += 1
            yield WitnessRequest(id=number, add_checkpoint=witness.request_body(known, proof, note))
            answer = next(request_iterator, None)
            if answer is None or answer.id != number:
                return
            if answer.status == _OK:
                self._keep(member, answer.body, size)
                known, cosigned, conflicts = size, size, 0
                continue
            conflicts += 1
            known = self._stated(member, answer, size, conflicts)

    def Validate(self, request: Any, context: Any) -> ValidateResponse:  # noqa: N802
        """Keep a member's validation; raise RNM-LEDGER-0001 for any that is not its own."""
        lines = parse_lines(request.line)
        charter = self._register.ledger.state.charter
        own = {v.verifier.key_id for v in validators(charter) if v.member == caller_of(context)}
        if not {line.key_id for line in lines} <= own:
            raise unverified("a validation was refused", "it is not by the caller's validator key")
        self._register.ledger.add_cosignatures(request.size, request.line)
        self._register.ring()
        return ValidateResponse()

    def _await_more_than(self, size: int) -> bool:
        return self._register.wait(lambda: self._register.ledger.head.size > size, _WAKE_S)

    def _keep(self, member: MemberId, lines: bytes, size: int) -> None:
        try:
            self._register.ledger.add_cosignatures(size, lines)
        except FederationError as error:
            _LOG.error("cosignature of %s refused: %s %s", member, error.code, error.why)
        self._register.ring()

    def _stated(self, member: MemberId, answer: WitnessAnswer, size: int, conflicts: int) -> int:
        """Return the size that the witness says it knows; raise and log if that cannot be."""
        stated = answer.body.strip()
        known = int(stated) if stated.isdigit() and len(stated) < 19 else 0
        if answer.status == _CONFLICT and known <= size and conflicts <= _MAX_CONFLICTS:
            return known
        fault = LocalFault(
            "RNM-LEDGER-0004",
            what=f"witness {member} did not cosign the ledger at size {size}",
            why=f"it answered {answer.status} (size {known}): its history is another or a longer "
            "one, or it does not know this log",
            mend="stop the coordinator; compare its ledger with that member's mirror before "
            "anything else is signed",
        )
        _LOG.error("%s: %s; %s", fault.code, fault.what, fault.why)
        raise fault
