"""One attempt at one round: frames in, the pure halves' answers out, a sum or an abort at the end.

Decides nothing by itself: `phases` says when to move on, `SecAggServer` what a message is worth. A
member that breaks off, refuses or sends what it must not is a dropout with a code. A shell module.
"""

import queue
import time
from collections.abc import Callable, Mapping
from functools import partial

from federation.exchange import Framed, Gone, Lobby
from federation.journal import RunJournal
from federation.rounds import phases
from federation.rounds.credits import Credits
from federation.rounds.phases import Attempt, Command, Phase
from federation.secure_aggregation.server import SecAggServer
from federation.secure_aggregation.uploads import Chunks
from fedproto import telemetry
from fedproto.authorisation import SignedAuthorisation
from fedproto.calibration import fastest_keystream
from fedproto.errors import FederationError, LocalFault, PeerFault
from fedproto.identity import SigningKey, VerifyKey
from fedproto.ids import MemberId
from fedproto.secagg.faults import IdentifiableAbort, not_genuine
from fedproto.secagg.messages import encode
from fedproto.secagg.stages import AggregateSum
from fedproto.v1.exchange_pb2 import CoordinatorFrame, MemberFrame, UploadChunk

_LATE = "RNM-SECAGG-0005"
_TOO_FEW = "RNM-SECAGG-0002"
# Requests that wait for one auditor; it has half as many under way.
_UNREAD = 8
_WORDS = {
    Phase.ADVERTISE: "joined",
    Phase.SHARE: "shared",
    Phase.UPLOAD: "masked",
    Phase.CONFIRM: "confirmed",
    Phase.REVEAL: "revealed",
    Phase.AUDIT: "audited",
}
# The phase that a frame answers: the same bytes may come again later, and are no answer then.
_ANSWERS = {
    "advertise": Phase.ADVERTISE,
    "encrypted_shares": Phase.SHARE,
    "masked_chunk": Phase.UPLOAD,
    "confirm": Phase.CONFIRM,
    "reveal": Phase.REVEAL,
    "audited": Phase.AUDIT,
}


class AttemptRunner:
    """Runs one attempt; `run` is called once."""

    def __init__(
        self,
        *,
        authorisation: SignedAuthorisation,
        roster: Mapping[MemberId, VerifyKey],
        cohort: int,
        phase_timeout_s: float,
        lobby: Lobby,
        journal: RunJournal,
        stopping: Callable[[], bool],
        spool: Chunks,
        key: SigningKey,
        barred: frozenset[MemberId] = frozenset(),
    ) -> None:
        """Begin; `barred` were named in an earlier attempt at the round."""
        content = authorisation.content
        self._content = content
        self._server = SecAggServer(
            authorisation=authorisation,
            roster=roster,
            chunks=spool,
            barred=barred,
            keystream=fastest_keystream(),
        )
        self._attempt: Attempt = phases.begin(
            frozenset(content.members), cohort=cohort, threshold=content.recovery_threshold
        )
        self._credits = Credits(len(content.members), content.tolerated)
        self._key = key
        self._timeout_s = phase_timeout_s
        self._lobby = lobby
        self._journal = journal
        self._stopping = stopping
        self._present = set(content.members)
        self._late_at = 0.0
        # Bytes that each member sent in this attempt; sizes are no secret, contents are.
        self._received: dict[MemberId, int] = dict.fromkeys(content.members, 0)
        # Why each member is out, for the round's record.
        self.excluded: dict[MemberId, str] = {}

    def run(self) -> AggregateSum:
        """Return the sum over the survivors; raise RNM-SECAGG-0002 if too few are left."""
        total: AggregateSum | None = None
        try:
            while self._attempt.phase is not Phase.DONE:
                total = self._phase() or total
        except FederationError as error:
            self.excluded |= dict.fromkeys(self._culprits(error), error.code)
            self._note("aborted", code=error.code)
            self._attempt = phases.abort(self._attempt)
            raise
        assert total is not None  # noqa: S101  # closing the reveal phase gives the sum
        return total

    def _culprits(self, error: FederationError) -> list[MemberId]:
        """Return the members that an error names."""
        if isinstance(error, IdentifiableAbort):
            return list(error.culprits)
        if isinstance(error, PeerFault) and error.peer in self._content.members:
            return [MemberId(error.peer)]
        return []

    def _phase(self) -> AggregateSum | None:
        with telemetry.tracer().start_as_current_span("fed.round.phase") as span:
            span.set_attribute("fed.phase", self._attempt.phase.value)
            before = sum(self._received.values())
            self._await_phase()
            span.set_attribute("fed.cohort.size", len(self._attempt.answered))
            span.set_attribute("fed.bytes.rx", sum(self._received.values()) - before)
            return self._close()

    def _await_phase(self) -> None:
        self._late_at = time.monotonic() + self._timeout_s
        while True:
            left_s = self._late_at - time.monotonic()
            match phases.decide(self._attempt, late=left_s <= 0):
                case Command.CLOSE:
                    return
                case Command.ABORT:
                    raise self._too_few()
                case Command.WAIT:
                    self._take_one(min(left_s, 0.5))

    def _take_one(self, timeout_s: float) -> None:
        if self._stopping():
            raise LocalFault(
                "RNM-ROUND-0001",
                what="the attempt was given up",
                why="the coordinator is stopping",
                mend="start the coordinator again: the run goes on with a new attempt",
            )
        try:
            happening = self._lobby.inbox.get(timeout=max(timeout_s, 0.001))
        except queue.Empty:
            return
        match happening:
            case Gone(member, code):
                self._lose(member, code)
            case Framed(member, frame):
                self._receive(member, frame)

    def _receive(self, member: MemberId, frame: MemberFrame) -> None:
        if member not in self._present:
            return
        self._received[member] += frame.ByteSize()
        try:
            complete = self._hand_over(member, frame)
            answers = _ANSWERS.get(frame.WhichOneof("frame") or "")
            phase = self._attempt.phase
            if complete and answers is phase and member in self._attempt.waiting:
                self._attempt = phases.answered(self._attempt, member)
                self._note(_WORDS[phase], member=member, size=self._received[member])
        except IdentifiableAbort:
            # What was dealt cannot be used: the end of the attempt, not of one member's part.
            raise
        except FederationError as error:
            if error.code == _LATE:
                return
            # A PeerFault that names the coordinator means that somebody stands between us: the
            # member is not to blame, but its stream is of no use to this attempt either way.
            self._lobby.dismiss(member, error)
            self._lose(member, error.code)

    def _hand_over(self, member: MemberId, frame: MemberFrame) -> bool:
        """Give a frame to the protocol; say whether it completes the member's part of a phase."""
        server = self._server
        match frame.WhichOneof("frame"):
            case "advertise":
                server.receive_advertise(member, frame.advertise)
            case "encrypted_shares":
                server.receive_shares(member, frame.encrypted_shares)
            case "complaint":
                return self._relay("complaint", server.receive_complaint(member, frame.complaint))
            case "opening":
                return self._relay("opening", server.receive_opening(member, frame.opening))
            case "masked_header" | "masked_chunk":
                return self._take_upload(member, frame)
            case "confirm":
                server.receive_confirm(member, frame.confirm)
            case "reveal":
                server.receive_reveal(member, frame.reveal)
            case "read_chunk":
                self._serve(member, MemberId(frame.read_chunk.member), frame.read_chunk.index)
                return False
            case "audited":
                # A word that it is done; what it found is in the ledger, where the round is closed.
                return True
            case "abort":
                self._lose(member, frame.abort.code or "RNM-ROUND-0001")
                return False
            case other:
                raise PeerFault(
                    "RNM-SECAGG-0001",
                    peer=member,
                    what=f"a frame of {member} was refused",
                    why=f"{other or 'an empty frame'} has no place in an attempt",
                    mend="both sides need versions of Renmei that speak the same format",
                )
        return True

    def _take_upload(self, member: MemberId, frame: MemberFrame) -> bool:
        """Take a header or a chunk, and tell who may send more."""
        complete, chunk = False, frame.masked_chunk
        if frame.WhichOneof("frame") == "masked_chunk":
            complete = self._server.receive_chunk(member, chunk.index, chunk.data)
            self._credits.spend(member)
        elif self._server.receive_header(member, frame.masked_header):
            self._credits.open(member, self._server.upload_chunks)
        self._grant()
        return complete

    def _relay(self, kind: str, message: tuple[MemberId, bytes] | None) -> bool:
        """Pass a dispute on to whom it concerns; it completes nobody's part."""
        if message is not None:
            to, raw = message
            complaint = kind == "complaint"
            frame = CoordinatorFrame(complaint=raw) if complaint else CoordinatorFrame(opening=raw)
            self._lobby.send(to, frame)
            self._note(kind, member=to)
        return False

    def _close(self) -> AggregateSum | None:
        """Close the phase: tell those who are left what follows from it."""
        phase, total = self._attempt.phase, None
        match phase:
            case Phase.ADVERTISE:
                self._broadcast(CoordinatorFrame(key_list=self._server.close_advertise()))
            case Phase.SHARE:
                lists = self._server.close_shares()
                for member in lists:
                    self._lobby.send(member, partial(_share_list, lists, member))
            case Phase.UPLOAD:
                self._broadcast(CoordinatorFrame(survivor_list=self._server.close_uploads()))
            case Phase.CONFIRM:
                self._broadcast(CoordinatorFrame(confirmations=self._server.close_confirm()))
            case Phase.REVEAL:
                total = self._server.finish()
                published = self._server.published.signed_by(self._key)
                self._broadcast(CoordinatorFrame(transcript=encode(published)))
            case Phase.AUDIT:
                pass
            case Phase.DONE | Phase.ABORTED:
                raise ValueError("an attempt that has ended has no phase to close")
        for member in self._attempt.waiting:
            self._lose(member, "RNM-ROUND-0002")
        self._note("closed")
        self._attempt = phases.close(self._attempt, frozenset(self._present))
        return total

    def _serve(self, auditor: MemberId, member: MemberId, index: int) -> None:
        """Send a chunk to an auditor, read when it is ready for it; refuse a heap of requests."""
        if self._lobby.backlog(auditor) >= _UNREAD:
            raise not_genuine(auditor, "it asks for more chunks than it reads")
        self._server.require_auditor(auditor, member, index)

        def chunk() -> CoordinatorFrame:
            data = self._server.read_masked(member, index)
            return CoordinatorFrame(chunk=UploadChunk(index=index, data=data))

        self._lobby.send(auditor, chunk)

    def _grant(self) -> None:
        for member, chunks in self._credits.grant().items():
            self._lobby.send(member, CoordinatorFrame(credit=chunks))

    def _broadcast(self, frame: CoordinatorFrame) -> None:
        for member in sorted(self._attempt.answered & self._present):
            self._lobby.send(member, frame)

    def _lose(self, member: MemberId, code: str) -> None:
        if member in self._present:
            self._present.discard(member)
            self._credits.leave(member)
            self._grant()
            self.excluded[member] = code
            self._attempt = phases.left(self._attempt, member)
            self._note("left", member=member, code=code)

    def _note(self, state: str, *, member: str = "", code: str = "", size: int = 0) -> None:
        self._journal.note(
            self._attempt.phase.value,
            state,
            round_no=self._content.round,
            attempt=self._content.attempt,
            member=member,
            code=code,
            size=size,
        )

    def _too_few(self) -> LocalFault:
        out = self.excluded | dict.fromkeys(self._attempt.waiting, "no answer")
        reasons = ", ".join(f"{member}: {why}" for member, why in sorted(out.items()))
        return LocalFault(
            _TOO_FEW,
            what=f"round {self._content.round} was aborted in phase {self._attempt.phase.value}",
            why=f"fewer than {self._attempt.needed} members are left ({reasons or 'no answer'})",
            mend="see why they left with `renmei explain CODE`; the next attempt asks them again",
        )


def _share_list(lists: Mapping[MemberId, bytes], member: MemberId) -> CoordinatorFrame:
    return CoordinatorFrame(share_list=lists[member])
