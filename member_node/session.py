"""One attempt at one round: drives the secure-aggregation client over the Exchange stream.

Decides the order of the frames and nothing of their content: what they mean and whether they are
genuine is decided by the pure client. Trusts the coordinator with nothing; a frame out of order or one
that the client refuses ends the attempt, and the coordinator is told a code, never a value. The delta
comes in from the trainer while keys are exchanged, and is handed to the client alone. Implements the
phases of SA-1 from the member's side. A shell module.
"""

import queue
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Protocol, TypeAlias

import grpc
from opentelemetry import context

from fedproto import telemetry
from fedproto.authorisation import SignedAuthorisation
from fedproto.errors import CODES, FederationError, LocalFault, PeerFault
from fedproto.ids import Digest, MemberId
from fedproto.layout import FlatVector
from fedproto.secagg.audit_messages import SumTranscript
from fedproto.secagg.sum_audit import Witnessed
from fedproto.transport import from_rpc_error
from fedproto.v1 import exchange_pb2_grpc
from fedproto.v1.exchange_pb2 import (
    Abort,
    ChunkRequest,
    CoordinatorFrame,
    Hello,
    MemberFrame,
    UploadChunk,
)
from member_node.gate import GatedChannel
from member_node.sum_auditor import Finding, audit_sum

COORDINATOR = "coordinator"
_MAX_WHY = 200
_FLUSH_S = 2.0


class Masked(Protocol):
    """What the member's half makes of a delta."""

    @property
    def header(self) -> bytes:
        """Signed sizes and digests."""

    @property
    def chunks(self) -> Iterable[bytes]:
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
_Happening: TypeAlias = "CoordinatorFrame | _Trained | grpc.RpcError | None"


class ExchangeSession:
    """One stream, one attempt; `run` is called once."""

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
    ) -> None:
        round_ = authorisation.content
        self._channel = channel.about(round_.run, round_.round)
        self._authorisation = authorisation
        self._half = half
        self._future = trained
        self._trained: TrainedDelta | None = None
        self._rounding_seed = rounding_seed
        self._me = me
        self._sign_receipt = sign_receipt
        self._sign_audit = sign_audit
        self._note_opened = note_opened
        self._timeout_s = timeout_s
        # Frames are pulled one by one when the network has room: an upload is never held twice.
        self._outbox: queue.SimpleQueue[Iterable[MemberFrame] | None] = queue.SimpleQueue()
        self._inbox: queue.SimpleQueue[_Happening] = queue.SimpleQueue()
        self._ended = threading.Event()
        self._context = context.get_current()
        self._sent_bytes = 0
        self.last_received = b""

    def run(self) -> RoundResult:
        """Play the member's part to the end.

        Raises:
            PeerFault: the coordinator broke the protocol; `last_received` is the evidence.
            FederationError: the attempt was aborted, timed out, or this node failed.
        """
        call = exchange_pb2_grpc.ExchangeStub(self._channel).Session(
            self._outgoing(), timeout=self._timeout_s
        )
        threading.Thread(target=self._receive, args=(call,), daemon=True).start()
        self._future.add_done_callback(self._inbox.put)
        try:
            return self._play()
        except FederationError as error:
            self._send(MemberFrame(abort=_abort(error)))
            raise
        finally:
            self._outbox.put(None)
            # The other side ends the stream when it has read the last frame.
            self._ended.wait(_FLUSH_S)
            call.cancel()

    def _play(self) -> RoundResult:
        half = self._half
        self._send(
            MemberFrame(hello=Hello(ctx=self._authorisation.ctx)),
            MemberFrame(advertise=half.advertise()),
        )
        shares = half.share_keys(self._expect("key_list").key_list)
        self._send(MemberFrame(encrypted_shares=shares))
        share_list = self._expect("share_list").share_list
        for complaint in half.check_shares(share_list):
            self._send(MemberFrame(complaint=complaint))
        upload_digest = self._upload(share_list, self._await_trained())
        survivors = self._expect("survivor_list").survivor_list
        confirmation = half.confirm(survivors)
        upload = Upload(digest=upload_digest, bytes=self._sent_bytes)
        # Before the confirmation, so that no sum is opened whose receipts are not in the ledger.
        self._sign_receipt(upload)
        self._send(MemberFrame(confirm=confirmation))
        shares = half.reveal(self._expect("confirmations").confirmations)
        # On the disk before they leave: from here on the sum over these members may be open.
        self._note_opened(tuple(half.survivors))
        self._send(MemberFrame(reveal=shares))
        self._audit(self._expect("transcript").transcript)
        result = self._expect("result").result
        return RoundResult(
            upload=upload,
            model_out=Digest(result.model_out.hex()),
            included=tuple(MemberId(member) for member in result.included),
        )

    def _audit(self, transcript: bytes) -> None:
        """Add this member's slice of the sum up again; what is found goes into the ledger."""
        with telemetry.tracer().start_as_current_span("member.audit") as span:
            seen, published = self._half.take_transcript(transcript)
            finding = audit_sum(self._me, seen, published, self._ask_chunk, self._take_chunk)
            span.set_attribute("chunks", finding.chunks)
        self._sign_audit(finding)
        if finding.fault is not None:
            raise finding.fault
        self._send(MemberFrame(audited=bytes.fromhex(finding.transcript)))

    def _ask_chunk(self, member: MemberId, index: int) -> None:
        self._send(MemberFrame(read_chunk=ChunkRequest(member=member, index=index)))

    def _take_chunk(self) -> tuple[int, bytes]:
        chunk = self._expect("chunk").chunk
        return chunk.index, chunk.data

    def _upload(self, share_list: bytes, trained: TrainedDelta) -> Digest:
        with telemetry.tracer().start_as_current_span("member.mask") as span:
            masked = self._half.mask(share_list, trained.delta, trained.weight, self._rounding_seed)
            span.set_attribute("parameters", trained.delta.size)
        self._trained = None
        self._send(MemberFrame(masked_header=masked.header))
        self._outbox.put(self._chunks(masked.chunks))
        return masked.digest

    def _chunks(self, chunks: Iterable[bytes]) -> Iterator[MemberFrame]:
        with telemetry.tracer().start_as_current_span("member.upload", self._context) as span:
            for index, data in enumerate(chunks):
                self._sent_bytes += len(data)
                yield MemberFrame(masked_chunk=UploadChunk(index=index, data=data))
            span.set_attribute("bytes", self._sent_bytes)

    def _expect(self, kind: str) -> CoordinatorFrame:
        """Return the next frame, which must be of this kind."""
        while True:
            frame = self._next_frame()
            if frame is None:
                continue
            if frame.WhichOneof("frame") == kind:
                return frame
            self._dispute(frame, kind)

    def _await_trained(self) -> TrainedDelta:
        """Wait for the trainer, and for the pairs that this member complained of."""
        while self._trained is None or self._half.awaits_openings:
            frame = self._next_frame()
            if frame is not None:
                self._dispute(frame, "abort")
        return self._trained

    def _dispute(self, frame: CoordinatorFrame, expected: str) -> None:
        """Take a frame of a dispute; the half knows when there is one. Any other is out of order."""
        match frame.WhichOneof("frame"):
            case "complaint":
                opening = self._half.open_share(frame.complaint)
                self._send(MemberFrame(opening=opening))
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
        if isinstance(happening, grpc.RpcError):
            raise from_rpc_error(happening, self._channel.to)
        if happening is None:
            raise _ended("RNM-ROUND-0001", "the coordinator closed the stream without a result")
        self.last_received = happening.SerializeToString()
        if happening.WhichOneof("frame") == "abort":
            raise _ended(happening.abort.code, happening.abort.why)
        return happening

    def _receive(self, call: Iterable[CoordinatorFrame]) -> None:
        try:
            for frame in call:
                self._inbox.put(frame)
            self._inbox.put(None)
        except grpc.RpcError as error:
            self._inbox.put(error)
        finally:
            self._ended.set()

    def _send(self, *frames: MemberFrame) -> None:
        self._outbox.put(frames)

    def _outgoing(self) -> Iterator[MemberFrame]:
        while (frames := self._outbox.get()) is not None:
            yield from frames


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
    return PeerFault(
        "RNM-SECAGG-0001",
        peer=COORDINATOR,
        what="a frame of the coordinator was refused",
        why=f"expected {expected}, got {got or 'a frame without content'}",
        mend="the evidence is kept at this node; show it to the consortium",
    )
