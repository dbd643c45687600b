"""One attempt at one round: drives the secure-aggregation client over the Exchange stream.

Decides the order of the frames and nothing of their content: what they mean and whether they are
genuine is decided by the pure client. Trusts the coordinator with nothing; a frame out of order or one
that the client refuses ends the attempt, and the coordinator is told a code, never a value. The delta
comes in from the trainer while keys are exchanged, and is handed to the client alone. Implements the
phases of SA-1 from the member's side. A shell module.
"""

import queue
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Protocol, TypeAlias

from fedproto import telemetry
from fedproto.authorisation import SignedAuthorisation
from fedproto.errors import CODES, FederationError, LocalFault, PeerFault
from fedproto.ids import Digest, MemberId
from fedproto.layout import FlatVector
from fedproto.outbox import RESUME_S
from fedproto.secagg.audit_messages import SumTranscript
from fedproto.secagg.faults import COORDINATOR
from fedproto.secagg.sum_audit import Witnessed
from fedproto.v1.exchange_pb2 import (
    Abort,
    ChunkRequest,
    CoordinatorFrame,
    MemberFrame,
    UploadBegin,
    UploadChunk,
)
from member_node.exchange_link import Arrival, ExchangeLink, broken_rule
from member_node.gate import GatedChannel
from member_node.sum_auditor import Finding, audit_sum

_MAX_WHY = 200


class Masked(Protocol):
    """What the member's half makes of a delta."""

    @property
    def header(self) -> bytes:
        """Signed sizes and digests."""

    @property
    def chunks(self) -> Sequence[bytes]:
        """The masked vector, cut up."""

    @property
    def digest(self) -> Digest:
        """The digest that the receipt names."""


class MemberHalf(Protocol):
    """The member's half of secure aggregation."""

    def advertise(self) -> bytes:
        """Phase 0."""

    def share_keys(self, key_list: bytes) -> bytes:
        """Phase 1."""

    @property
    def survivors(self) -> Sequence[MemberId]:
        """Over whom it confirmed the sum."""

    @property
    def awaits_openings(self) -> Sequence[MemberId]:
        """The dealers of whom it complained, and who have not opened the pair yet."""

    def check_shares(self, share_list: bytes) -> Sequence[bytes]:
        """Phase 1: return the complaints over what was dealt."""

    def take_opening(self, opening: bytes) -> None:
        """Take the pair that a dealer opened."""

    def open_share(self, complaint: bytes) -> bytes:
        """Open the pair that a holder complained of."""

    def mask(
        self, share_list: bytes, delta: FlatVector, weight: float, rounding_seed: bytes
    ) -> Masked:
        """Phase 2."""

    def confirm(self, survivor_list: bytes) -> bytes:
        """Phase 3."""

    def reveal(self, confirmations: bytes) -> bytes:
        """Phase 4."""

    def take_transcript(self, transcript: bytes) -> tuple[Witnessed, SumTranscript]:
        """Phase 5: return what was seen of the attempt, and what the coordinator signed of it."""

    def round_digest(self, published: SumTranscript, transcripts: tuple[bytes, ...]) -> bytes:
        """Phase 5: return the digest of what all groups published, this member's among it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainedDelta:
    """What the trainer gives for a round; secret, so without a repr."""

    delta: FlatVector = field(repr=False)
    weight: float = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Upload:
    """The masked upload that a receipt is signed over."""

    digest: Digest
    bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundResult:
    """How an attempt ended well."""

    upload: Upload
    model_out: Digest
    included: tuple[MemberId, ...]


_Trained: TypeAlias = "Future[TrainedDelta]"
_Happening: TypeAlias = "Arrival | _Trained"


class ExchangeSession:
    """One session, one attempt; `run` is called once."""

    def __init__(
        self,
        *,
        channel: GatedChannel,
        authorisation: SignedAuthorisation,
        half: MemberHalf,
        trained: _Trained,
        rounding_seed: bytes,
        me: MemberId,
        sign_receipt: Callable[[Upload], None],
        sign_audit: Callable[[Finding], None],
        note_opened: Callable[[tuple[MemberId, ...]], None],
        timeout_s: float,
        patience_s: float = RESUME_S,
    ) -> None:
        """Prepare; a broken connection is opened again for `patience_s`."""
        round_ = authorisation.content
        self._inbox: queue.SimpleQueue[_Happening] = queue.SimpleQueue()
        self._link = ExchangeLink(
            channel.about(round_.run, round_.round),
            authorisation.ctx,
            self._inbox.put,
            timeout_s=timeout_s,
            patience_s=patience_s,
        )
        self._half = half
        self._future = trained
        self._trained: TrainedDelta | None = None
        self._rounding_seed = rounding_seed
        self._me = me
        self._sign_receipt = sign_receipt
        self._sign_audit = sign_audit
        self._note_opened = note_opened
        # What is masked and sent as the coordinator's credits come.
        self._masked: Masked | None = None
        self._sent = 0
        self._masked_bytes = 0
        self.last_received = b""

    def run(self) -> RoundResult:
        """Play the member's part to the end.

        Raises:
            PeerFault: the coordinator broke the protocol; `last_received` is the evidence.
            FederationError: the attempt was aborted, timed out, or this node failed.
        """
        self._link.open()
        self._future.add_done_callback(self._inbox.put)
        try:
            return self._play()
        except FederationError as error:
            self._link.put(MemberFrame(abort=_abort(error)))
            raise
        except BaseException:
            # Said all the same, or the coordinator would wait for this member to come back.
            self._link.put(MemberFrame(abort=Abort(code="RNM-BUG-0001")))
            raise
        finally:
            self._link.close()

    def _play(self) -> RoundResult:
        half = self._half
        self._link.put(MemberFrame(advertise=half.advertise()))
        shares = half.share_keys(self._expect("key_list").key_list)
        self._link.put(MemberFrame(encrypted_shares=shares))
        share_list = self._expect("share_list").share_list
        for complaint in half.check_shares(share_list):
            self._link.put(MemberFrame(complaint=complaint))
        self._upload(share_list, self._await_trained())
        with telemetry.tracer().start_as_current_span("member.upload") as span:
            survivors = self._expect("survivor_list").survivor_list
            span.set_attribute("bytes", self._masked_bytes)
        confirmation = half.confirm(survivors)
        if self._masked is None:
            raise _out_of_order("an upload", "its confirmation")
        upload = Upload(digest=self._masked.digest, bytes=self._masked_bytes)
        self._masked = None
        # Before the confirmation, so that no sum is opened whose receipts are not in the ledger.
        self._sign_receipt(upload)
        self._link.put(MemberFrame(confirm=confirmation))
        shares = half.reveal(self._expect("confirmations").confirmations)
        # On the disk before they leave: from here on the sum over these members may be open.
        self._note_opened(tuple(half.survivors))
        self._link.put(MemberFrame(reveal=shares))
        self._audit(self._expect("transcript"))
        result = self._expect("result").result
        return RoundResult(
            upload=upload,
            model_out=Digest(result.model_out.hex()),
            included=tuple(MemberId(member) for member in result.included),
        )

    def _audit(self, frame: CoordinatorFrame) -> None:
        """Add this member's slice of the sum up again; what is found goes into the ledger."""
        with telemetry.tracer().start_as_current_span("member.audit") as span:
            seen, published = self._half.take_transcript(frame.transcript)
            whole = self._half.round_digest(published, tuple(frame.transcripts))
            finding = audit_sum(self._me, seen, published, self._ask_chunk, self._take_chunk)
            finding = replace(finding, transcript=Digest(whole.hex()))
            span.set_attribute("chunks", finding.chunks)
        self._sign_audit(finding)
        if finding.fault is not None:
            raise finding.fault
        self._link.put(MemberFrame(audited=bytes.fromhex(finding.transcript)))

    def _ask_chunk(self, member: MemberId, index: int) -> None:
        self._link.put(MemberFrame(read_chunk=ChunkRequest(member=member, index=index)))

    def _take_chunk(self) -> tuple[int, bytes]:
        chunk = self._expect("chunk").chunk
        return chunk.index, chunk.data

    def _upload(self, share_list: bytes, trained: TrainedDelta) -> None:
        with telemetry.tracer().start_as_current_span("member.mask") as span:
            self._masked = self._half.mask(
                share_list, trained.delta, trained.weight, self._rounding_seed
            )
            span.set_attribute("parameters", trained.delta.size)
        self._trained = None
        self._link.put(MemberFrame(upload_begin=UploadBegin()))

    def _send_chunks(self, credit: int) -> None:
        """Mask and send as many more chunks as the coordinator has room for; last, what signs them."""
        masked = self._masked
        if masked is None or not 0 < credit <= len(masked.chunks) - self._sent:
            raise _out_of_order("a credit for chunks that are due", f"one for {credit}")
        for index in range(self._sent, self._sent + credit):
            # Masked here, while the one before is on its way.
            self._masked_bytes += len(masked.chunks[index])
            self._link.put(partial(_chunk_frame, masked.chunks, index))
        self._sent += credit
        if self._sent == len(masked.chunks):
            self._link.put(MemberFrame(masked_header=masked.header))

    def _expect(self, kind: str) -> CoordinatorFrame:
        """Return the next frame, which must be of this kind."""
        while True:
            frame = self._next_frame()
            if frame is None:
                continue
            if frame.WhichOneof("frame") == kind:
                return frame
            self._aside(frame, kind)

    def _await_trained(self) -> TrainedDelta:
        """Wait for the trainer, and for the pairs that this member complained of."""
        while self._trained is None or self._half.awaits_openings:
            frame = self._next_frame()
            if frame is not None:
                self._aside(frame, "abort")
        return self._trained

    def _aside(self, frame: CoordinatorFrame, expected: str) -> None:
        """Take a credit, or a frame of a dispute: the half knows when there is one."""
        match frame.WhichOneof("frame"):
            case "credit":
                self._send_chunks(frame.credit)
            case "complaint":
                opening = self._half.open_share(frame.complaint)
                self._link.put(MemberFrame(opening=opening))
            case "opening":
                self._half.take_opening(frame.opening)
            case other:
                raise _out_of_order(expected, other)

    def _next_frame(self) -> CoordinatorFrame | None:
        """Return the next frame, or nothing when it was the trainer that had something to say."""
        happening = self._inbox.get()
        if isinstance(happening, Future):
            self._trained = happening.result()
            return None
        if isinstance(happening, FederationError):
            raise happening
        if happening is None:
            raise _ended("RNM-ROUND-0001", "the coordinator closed the stream without a result")
        self.last_received = happening.SerializeToString()
        if happening.WhichOneof("frame") == "abort":
            raise _ended(happening.abort.code, happening.abort.why)
        return happening


def _chunk_frame(chunks: Sequence[bytes], index: int) -> MemberFrame:
    return MemberFrame(masked_chunk=UploadChunk(index=index, data=chunks[index]))


def _abort(error: FederationError) -> Abort:
    """Return what the coordinator is told: of a fault of its own why, else no more than a code."""
    if isinstance(error, PeerFault):
        culprit = "" if error.peer == COORDINATOR else error.peer
        return Abort(code=error.code, why=error.why[:_MAX_WHY], culprit=culprit)
    return Abort(code=error.code, why=CODES[error.code].en)


def _ended(code: str, why: str) -> LocalFault:
    return LocalFault(
        code if code in CODES else "RNM-ROUND-0001",
        what="the coordinator ended the attempt",
        # Another party's words: shown, but short and plain.
        why="".join(char for char in why if char.isprintable())[:_MAX_WHY] or "it did not say why",
        mend="nothing at this node; the coordinator opens a new attempt or records the abort",
    )


def _out_of_order(expected: str, got: str | None) -> PeerFault:
    return broken_rule(f"expected {expected}, got {got or 'a frame without content'}")
