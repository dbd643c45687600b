"""The member's session with the coordinator: frames both ways, over as many streams as it takes.

Decides when another stream is opened: the connection broke, and neither side said a last word. Then the
same frames go on where the other side stopped taking them; nothing is masked, signed or counted twice.
Trusts the coordinator with nothing: what it says it has taken can only make this side wait or send the
same bytes again. A shell module.
"""

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

import grpc

from fedproto.errors import FederationError, PeerFault
from fedproto.outbox import RESUME_S, Outbox, new_session
from fedproto.secagg.faults import COORDINATOR
from fedproto.transport import from_rpc_error, is_broken_connection
from fedproto.v1 import exchange_pb2_grpc
from fedproto.v1.exchange_pb2 import CoordinatorFrame, Hello, MemberFrame
from member_node.gate import GatedChannel

_FIRST_PAUSE_S = 0.1
_LONGEST_PAUSE_S = 2.0
_FLUSH_S = 2.0

# A frame, or what makes it when the network has room for it: an upload is never held twice.
Sendable: TypeAlias = MemberFrame | Callable[[], MemberFrame]
# The end is an error, or nothing when the coordinator ended the stream in order.
Arrival: TypeAlias = CoordinatorFrame | FederationError | None


class ExchangeLink:
    """One session; `open` and `close` are called once each."""

    def __init__(
        self,
        channel: GatedChannel,
        ctx: bytes,
        deliver: Callable[[Arrival], None],
        *,
        timeout_s: float,
        patience_s: float = RESUME_S,
    ) -> None:
        """Prepare; `deliver` gets what comes, in order, and then the end once."""
        self._channel = channel
        self._hello = Hello(ctx=ctx, session=new_session())
        self._deliver = deliver
        self._deadline = time.monotonic() + timeout_s
        self._patience_s = patience_s
        self._outbox: Outbox[Sendable] = Outbox()
        self._taken = 0
        self._call: Any = None
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True, name="exchange")

    def open(self) -> None:
        """Connect; errors are delivered."""
        self._thread.start()

    def put(self, *frames: Sendable) -> None:
        """Send frames after those before them."""
        self._outbox.put(*frames)

    def close(self) -> None:
        """Let the last frames out, within two seconds, and end the session."""
        self._outbox.end()
        # The other side ends the stream when it has read the last frame.
        self._thread.join(_FLUSH_S)
        self._closed.set()
        if self._call is not None:
            self._call.cancel()

    def _run(self) -> None:
        broke_at, pause_s = time.monotonic(), _FIRST_PAUSE_S
        while True:
            numbered, began = _Numbered(), time.monotonic()
            try:
                self._stream(numbered)
            except grpc.RpcError as error:
                now = time.monotonic()
                # A stream that was there counts, however long it was silent.
                if numbered.stream:
                    broke_at = now
                if now - began > _LONGEST_PAUSE_S:
                    pause_s = _FIRST_PAUSE_S
                if not is_broken_connection(error) or now - broke_at > self._patience_s:
                    self._deliver(from_rpc_error(error, self._channel.to))
                    return
            except FederationError as error:
                self._deliver(error)
                return
            else:
                self._deliver(None)
                return
            if self._closed.wait(pause_s):
                return
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)

    def _stream(self, numbered: "_Numbered") -> None:
        """Carry frames until the stream ends in order; raise grpc.RpcError or FederationError."""
        stub = exchange_pb2_grpc.ExchangeStub(self._channel)
        left_s = max(self._deadline - time.monotonic(), 0.001)
        self._call = call = stub.Session(self._outgoing(numbered), timeout=left_s)
        try:
            for frame in call:
                if numbered.stream == 0:
                    self._welcome(frame, numbered)
                    continue
                self._settle(frame.taken)
                self._taken += 1
                self._deliver(frame)
        finally:
            self._outbox.detach(numbered.stream)
            numbered.ready.set()

    def _welcome(self, frame: CoordinatorFrame, numbered: "_Numbered") -> None:
        if frame.WhichOneof("frame") != "welcome":
            raise broken_rule(f"expected welcome, got {frame.WhichOneof('frame')}")
        try:
            numbered.stream = self._outbox.attach(frame.taken)
        except ValueError as error:
            raise broken_rule(str(error)) from None
        numbered.ready.set()

    def _settle(self, taken: int) -> None:
        try:
            self._outbox.settle(taken)
        except ValueError as error:
            raise broken_rule(str(error)) from None

    def _outgoing(self, numbered: "_Numbered") -> Iterator[MemberFrame]:
        yield MemberFrame(hello=self._hello, taken=self._taken)
        numbered.ready.wait()
        if numbered.stream == 0:
            return
        for item in self._outbox.items(numbered.stream):
            frame = item() if callable(item) else item
            frame.taken = self._taken
            yield frame


class _Numbered:
    """One stream, which has a number once the coordinator welcomed it."""

    def __init__(self) -> None:
        self.stream = 0
        self.ready = threading.Event()


def broken_rule(why: str) -> PeerFault:
    """Return the refusal of a frame of the coordinator that is out of order."""
    return PeerFault(
        "RNM-SECAGG-0001",
        peer=COORDINATOR,
        what="a frame of the coordinator was refused",
        why=why,
        mend="the evidence is kept at this node; show it to the consortium",
    )
