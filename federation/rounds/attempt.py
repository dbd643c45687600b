"""One attempt at one round: frames in, the pure halves' answers out, a sum or an abort at the end.

Decides nothing by itself: `phases` says when to move on, `SecAggServer` what a message is worth. A
member that breaks off, refuses or sends what it must not is a dropout with a code. Where the cohort is
summed in groups, they go through the phases side by side; one that falls short gives no sum. A shell
module.
"""

import queue
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from weakref import ref

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


@dataclass(slots=True, kw_only=True)
class _Group:
    """Members that are summed together, and how far they are: at first the whole cohort."""

    members: frozenset[MemberId]
    server: SecAggServer
    attempt: Attempt


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
        least_groups: int = 1,
    ) -> None:
        """Begin; `barred` were named in an earlier attempt at the round.

        `cohort` is the least number of members in a sum, `least_groups` that of sums.
        """
        content = authorisation.content
        self._content = content
        server = SecAggServer(
            authorisation=authorisation,
            roster=roster,
            chunks=spool,
            barred=barred,
            keystream=fastest_keystream(),
        )
        members = frozenset(content.members)
        attempt = phases.begin(members, cohort=cohort, threshold=content.recovery_threshold)
        self._groups = [_Group(members=members, server=server, attempt=attempt)]
        self._least_groups = least_groups
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
        # Whether a sum may be open: from then on no other attempt is made over other members.
        self.opened = False
        # Why groups gave no sum.
        self.faults: list[FederationError] = []

    def run(self) -> tuple[AggregateSum, ...]:
        """Return the sum of each group; raise RNM-SECAGG-0002 if too few are left."""
        totals: tuple[AggregateSum, ...] = ()
        try:
            while self._phase is not Phase.DONE:
                totals = self._play() or totals
        except FederationError as error:
            self.excluded |= dict.fromkeys(self._culprits(error), error.code)
            self._note("aborted", code=error.code)
            for group in self._groups:
                group.attempt = phases.abort(group.attempt)
            raise
        return totals

    @property
    def _phase(self) -> Phase:
        return self._groups[0].attempt.phase

    def _group_of(self, member: MemberId) -> _Group:
        return next(group for group in self._groups if member in group.members)

    def _culprits(self, error: FederationError) -> list[MemberId]:
        """Return the members that an error names."""
        named: tuple[str, ...] = (error.peer,) if isinstance(error, PeerFault) else ()
        if isinstance(error, IdentifiableAbort):
            named = error.culprits
        return [name for name in self._content.members if name in named]

    def _play(self) -> tuple[AggregateSum, ...]:
        with telemetry.tracer().start_as_current_span("fed.round.phase") as span:
            span.set_attribute("fed.phase", self._phase.value)
            before = sum(self._received.values())
            self._await_phase()
            answered = sum(len(group.attempt.answered) for group in self._groups)
            span.set_attribute("fed.cohort.size", answered)
            span.set_attribute("fed.bytes.rx", sum(self._received.values()) - before)
            return self._close()

    def _await_phase(self) -> None:
        self._late_at = time.monotonic() + self._timeout_s
        while True:
            left_s = self._late_at - time.monotonic()
            due = [phases.decide(group.attempt, late=left_s <= 0) for group in self._groups]
            if Command.WAIT not in due:
                break
            self._take_one(min(left_s, 0.5))
        for group, command in zip(list(self._groups), due, strict=True):
            if command is Command.ABORT:
                if self._phase is Phase.UPLOAD:
                    # Too few, perhaps because one of them kept others from masking.
                    group.server.require_settled()
                self._lose_group(group, self._too_few(group))

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
            answers = phases.ANSWERS.get(frame.WhichOneof("frame") or "")
            group, phase = self._group_of(member), self._phase
            if complete and answers is phase and member in group.attempt.waiting:
                group.attempt = phases.answered(group.attempt, member)
                self._note(phases.DONE_WORDS[phase], member=member, size=self._received[member])
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
        server = self._group_of(member).server
        match frame.WhichOneof("frame"):
            case "advertise":
                server.receive_advertise(member, frame.advertise)
            case "encrypted_shares":
                server.receive_shares(member, frame.encrypted_shares)
            case "complaint":
                return self._relay("complaint", server.receive_complaint(member, frame.complaint))
            case "opening":
                return self._relay("opening", server.receive_opening(member, frame.opening))
            case "upload_begin" | "masked_chunk" | "masked_header":
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
        """Take a part of an upload, and tell who may send more."""
        complete, chunk = False, frame.masked_chunk
        server = self._group_of(member).server
        match frame.WhichOneof("frame"):
            case "upload_begin":
                server.begin_upload(member)
                self._credits.open(member, server.upload_chunks)
            case "masked_chunk":
                complete = server.receive_chunk(member, chunk.index, chunk.data)
                self._credits.spend(member)
            case _:
                complete = server.receive_header(member, frame.masked_header)
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

    def _close(self) -> tuple[AggregateSum, ...]:
        """Close the phase: tell those who are left what follows from it."""
        phase, totals = self._phase, []
        for group in list(self._groups):
            try:
                if phase is Phase.REVEAL:
                    totals.append(group.server.finish())
                else:
                    self._close_group(group, phase)
            except IdentifiableAbort as error:
                # Nothing is open before the reveal: an attempt without the culprits is better.
                if phase is not Phase.REVEAL:
                    raise
                self._lose_group(group, error)
            except FederationError as error:
                self._lose_group(group, error)
        if phase is Phase.REVEAL:
            self._publish(totals)
        for member in {name for group in self._groups for name in group.attempt.waiting}:
            self._lose(member, "RNM-ROUND-0002")
        self._note("closed")
        for group in self._groups:
            group.attempt = phases.close(group.attempt, frozenset(self._present))
        if phase is Phase.ADVERTISE:
            self._split()
        return tuple(totals)

    def _close_group(self, group: _Group, phase: Phase) -> None:
        server = group.server
        match phase:
            case Phase.ADVERTISE:
                self._broadcast(group, CoordinatorFrame(key_list=server.close_advertise()))
            case Phase.SHARE:
                lists = server.close_shares()
                for member in lists:
                    self._lobby.send(member, partial(_share_list, lists, member))
            case Phase.UPLOAD:
                self._broadcast(group, CoordinatorFrame(survivor_list=server.close_uploads()))
            case Phase.CONFIRM:
                confirmations = server.close_confirm()
                self.opened = True
                self._broadcast(group, CoordinatorFrame(confirmations=confirmations))
            case Phase.AUDIT:
                pass
            case _:
                raise ValueError(f"{phase.value} is not closed in groups")

    def _split(self) -> None:
        """Go on in groups: they follow from the key list that everybody was shown."""
        (whole,) = self._groups
        self._groups = [
            _Group(
                members=frozenset(names),
                server=server,
                attempt=phases.part(whole.attempt, frozenset(names), server.threshold),
            )
            for names, server in whole.server.split().items()
        ]

    def _publish(self, totals: list[AggregateSum]) -> None:
        """Send each group its transcript, and the digests of all."""
        digests = [bytes.fromhex(total.transcript_sha256) for total in totals]
        for group in self._groups:
            published = encode(group.server.published.signed_by(self._key))
            others = digests if self._content.groups > 1 else []
            self._broadcast(group, CoordinatorFrame(transcript=published, transcripts=others))

    def _lose_group(self, group: _Group, error: FederationError) -> None:
        """Go on without a group; raise its error if too few are left, or its sum is known already."""
        if len(self._groups) <= self._least_groups or self._phase is Phase.AUDIT:
            raise error
        self._groups.remove(group)
        self.faults.append(error)
        self.excluded |= dict.fromkeys(self._culprits(error), error.code)
        for member in sorted(group.members & self._present):
            self._lobby.dismiss(member, error)
            self._leave(member, error.code)

    def _serve(self, auditor: MemberId, member: MemberId, index: int) -> None:
        """Send a chunk to an auditor, read when it is ready for it; refuse a heap of requests."""
        if self._lobby.backlog(auditor) >= _UNREAD:
            raise not_genuine(auditor, "it asks for more chunks than it reads")
        server = self._group_of(auditor).server
        server.require_auditor(auditor, member, index)
        # Weak: a request that is never fetched keeps no sum in memory once the attempt is over.
        held = ref(server)

        def chunk() -> CoordinatorFrame:
            data = now.read_masked(member, index) if (now := held()) else b""
            return CoordinatorFrame(chunk=UploadChunk(index=index, data=data))

        self._lobby.send(auditor, chunk)

    def _grant(self) -> None:
        for member, chunks in self._credits.grant().items():
            self._lobby.send(member, CoordinatorFrame(credit=chunks))

    def _broadcast(self, group: _Group, frame: CoordinatorFrame) -> None:
        for member in sorted(group.attempt.answered & self._present):
            self._lobby.send(member, frame)

    def _lose(self, member: MemberId, code: str) -> None:
        if member in self._present:
            group = self._group_of(member)
            group.attempt = phases.left(group.attempt, member)
            self._leave(member, code)

    def _leave(self, member: MemberId, code: str) -> None:
        self._present.discard(member)
        self._credits.leave(member)
        self._grant()
        self.excluded.setdefault(member, code)
        self._note("left", member=member, code=code)

    def _note(self, state: str, *, member: str = "", code: str = "", size: int = 0) -> None:
        self._journal.note(
            self._phase.value,
            state,
            round_no=self._content.round,
            attempt=self._content.attempt,
            member=member,
            code=code,
            size=size,
        )

    def _too_few(self, group: _Group) -> LocalFault:
        out = {m: code for m, code in self.excluded.items() if m in group.members}
        out |= dict.fromkeys(group.attempt.waiting, "no answer")
        reasons = ", ".join(f"{member}: {why}" for member, why in sorted(out.items()))
        return LocalFault(
            _TOO_FEW,
            what=f"round {self._content.round} was aborted in phase {self._phase.value}",
            why=f"fewer than {group.attempt.needed} members are left ({reasons or 'no answer'})",
            mend="see why they left with `renmei explain CODE`; the next attempt asks them again",
        )


def _share_list(lists: Mapping[MemberId, bytes], member: MemberId) -> CoordinatorFrame:
    return CoordinatorFrame(share_list=lists[member])
