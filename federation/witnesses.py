"""The log's side of witnessing: asks every witness to cosign each new checkpoint.

Members behind firewalls attend over a stream that they opened; a witness that strangers can reach is
asked over plain HTTP, in the same bytes.

Trusts no witness: its cosignature is verified before it is kept. A witness that says it has seen more
than this log holds, or another history, ends the service with the evidence: the log may have been
rolled back or forked. Implements the log's side of C2SP tlog-witness. A shell module.
"""

import logging
import threading
from collections.abc import Callable, Generator, Iterator
from typing import Any, TypeAlias

from audit import witness
from audit.faults import unverified
from audit.http_client import HttpWitness
from audit.note import parse_lines
from audit.validation import validators
from federation.calls import Call
from federation.guard import StartGuard
from federation.register import Register
from fedproto.errors import FederationError, LocalFault
from fedproto.ids import MemberId
from fedproto.v1 import witness_pb2_grpc
from fedproto.v1.witness_pb2 import ValidateResponse, WitnessAnswer, WitnessRequest

_WAKE_S = 1.0
_OK, _CONFLICT = 200, 409
# A witness that attends elsewhere too may move on between question and answer, but not for ever.
_MAX_CONFLICTS = 3
_FIRST_PAUSE_S = 0.5
_LONGEST_PAUSE_S = 30.0
_UNREACHABLE = "RNM-TLS-0001"
_LOG = logging.getLogger(__name__)

Questions: TypeAlias = Generator[bytes, tuple[int, bytes], None]


class WitnessService(witness_pb2_grpc.WitnessServicer):
    """One stream for each attending witness."""

    def __init__(self, register: Register, guard: StartGuard | None = None) -> None:
        """Serve a log's witnesses; with a guard, the log signs nothing until they have spoken."""
        self._register, self._guard = register, guard

    def Attend(  # noqa: N802  # gRPC's name
        self, request_iterator: Iterator[WitnessAnswer], call: Call
    ) -> Iterator[WitnessRequest]:
        """Send each new checkpoint and keep what comes back."""
        member = call.caller
        first = next(request_iterator, None)
        if first is None:
            return
        if self._guard is not None:
            self._guard.report(member, first.body)
        questions, number = self._questions(member, call.is_active), 0
        body = next(questions, None)
        while body is not None:
            number += 1
            yield WitnessRequest(id=number, add_checkpoint=body)
            answer = next(request_iterator, None)
            if answer is None or answer.id != number:
                return
            body = _told(questions, answer.status, answer.body)

    def _questions(self, member: MemberId, goes_on: Callable[[], bool]) -> Questions:
        """Yield the body of each add-checkpoint for a witness; take its status and body.

        Raises:
            LocalFault: RNM-LEDGER-0004 it knows another history, or a longer one.
        """
        ledger = self._register.ledger
        # What it last said that it knows, and what it has cosigned over this stream: the two differ
        # when its cosignature was lost on the way, and then it is asked for it again.
        known, cosigned, conflicts = 0, 0, 0
        while goes_on() and not self._register.closed:
            if not self._await_more_than(cosigned):
                continue
            note = ledger.signed_checkpoint()
            size = int(note.split(b"\n", 2)[1])
            proof = ledger.prove_consistency(known, size) if known else []
            status, body = yield witness.request_body(known, proof, note)
            if status == _OK:
                self._keep(member, body, size)
                known, cosigned, conflicts = size, size, 0
                continue
            conflicts += 1
            known = _stated(member, status, body, (size, conflicts))

    def call(self, member: MemberId, asked: HttpWitness, goes_on: Callable[[], bool]) -> None:
        """Ask a witness over HTTP as long as `goes_on`; raise RNM-TLS-0001 or as `Attend`."""
        if self._guard is not None:
            note = asked.latest(self._register.ledger.state.charter.origin)
            self._guard.report(member, note or b"")
        questions = self._questions(member, goes_on)
        body = next(questions, None)
        while body is not None:
            body = _told(questions, *asked.add_checkpoint(body))

    def Validate(self, request: Any, call: Call) -> ValidateResponse:  # noqa: N802
        """Keep a member's validation; raise RNM-LEDGER-0001 for any that is not its own."""
        lines = parse_lines(request.line)
        charter = self._register.ledger.state.charter
        own = {v.verifier.key_id for v in validators(charter) if v.member == call.caller}
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


class Caller:
    """Asks one witness by its URL, in a thread of its own, until it is closed or told to go."""

    def __init__(self, service: WitnessService, member: MemberId, asked: HttpWitness) -> None:
        """Begin at once; what it cosigned last is reported to the guard first."""
        self._service, self._member, self._asked = service, member, asked
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"witness-{member}", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Ask no more."""
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        pause = _FIRST_PAUSE_S
        while not self._stop.is_set():
            try:
                self._service.call(self._member, self._asked, lambda: not self._stop.is_set())
            except LocalFault as fault:
                _LOG.error("witness %s: %s: %s", self._member, fault.code, fault.why)
                if fault.code != _UNREACHABLE:
                    # Its history is another one: there is nothing left to ask of it.
                    return
            self._stop.wait(pause)
            pause = min(2 * pause, _LONGEST_PAUSE_S)


def _told(questions: Questions, status: int, body: bytes) -> bytes | None:
    """Hand over an answer; return the next question, or nothing when there is none."""
    try:
        return questions.send((status, body))
    except StopIteration:
        return None


def _stated(member: MemberId, status: int, body: bytes, asked: tuple[int, int]) -> int:
    """Return the size that a witness says it knows; raise and log if that cannot be."""
    size, conflicts = asked
    stated = body.strip()
    known = int(stated) if stated.isdigit() and len(stated) < 19 else 0
    if status == _CONFLICT and known <= size and conflicts <= _MAX_CONFLICTS:
        return known
    fault = LocalFault(
        "RNM-LEDGER-0004",
        what=f"witness {member} did not cosign the ledger at size {size}",
        why=f"it answered {status} (size {known}): its history is another or a longer "
        "one, or it does not know this log",
        mend="stop the coordinator; compare its ledger with that member's mirror before "
        "anything else is signed",
    )
    _LOG.error("%s: %s; %s", fault.code, fault.what, fault.why)
    raise fault
