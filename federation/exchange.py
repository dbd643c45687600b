"""The Exchange service: one stream for each member of an attempt, brought together in a lobby.

Decides who may join: a member of the attempt, once, with the digest of its authorisation. What frames
mean is decided by the attempt; this only moves them, and holds a sender back when they are not read.
A shell module.
"""

import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from federation.roles import caller_of
from fedproto.errors import FederationError, LocalFault
from fedproto.ids import MemberId
from fedproto.v1 import exchange_pb2_grpc
from fedproto.v1.exchange_pb2 import Abort, CoordinatorFrame, MemberFrame

# Frames that wait to be read, over all members; the rest waits in the members' send windows.
_BACKLOG = 8
_PUT_S = 0.5


@dataclass(frozen=True, slots=True)
class Framed:
    """A frame of a member."""

    member: MemberId
    frame: MemberFrame


@dataclass(frozen=True, slots=True)
class Gone:
    """A member is not, or no longer, part of the attempt; `code` says why."""

    member: MemberId
    code: str


Happening: TypeAlias = Framed | Gone
# A frame, or what makes it once the member is ready for it: a chunk waits on disk, not in memory.
Sendable: TypeAlias = CoordinatorFrame | Callable[[], CoordinatorFrame]
Outbox: TypeAlias = "queue.SimpleQueue[Sendable | None]"


@dataclass(slots=True)
class Lobby:
    """The members of one attempt, as far as they have joined."""

    members: frozenset[MemberId]
    inbox: "queue.Queue[Happening]" = field(default_factory=lambda: queue.Queue(_BACKLOG))
    _outboxes: dict[MemberId, Outbox] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _closed: bool = False

    def join(self, member: MemberId) -> Outbox:
        """Let a member in; raise RNM-ROUND-0001 or RNM-GOV-0003."""
        with self._lock:
            if self._closed or member not in self.members:
                raise _not_open(member)
            if member in self._outboxes:
                raise LocalFault(
                    "RNM-GOV-0003",
                    what=f"a second stream of {member} was refused",
                    why="this attempt has one already",
                    mend="stop the other node that uses this member's keys",
                )
            outbox: Outbox = queue.SimpleQueue()
            self._outboxes[member] = outbox
            return outbox

    def has_joined(self, member: MemberId) -> bool:
        """Say whether a member has opened its stream."""
        return member in self._outboxes

    def tell(self, happening: Happening) -> None:
        """Hand something to the attempt; waits while it has enough to read."""
        while not self._closed:
            try:
                self.inbox.put(happening, timeout=_PUT_S)
            except queue.Full:
                continue
            return

    def send(self, member: MemberId, frame: Sendable) -> None:
        """Send a frame to a member that has joined."""
        outbox = self._outboxes.get(member)
        if outbox is not None:
            outbox.put(frame)

    def backlog(self, member: MemberId) -> int:
        """Return how many frames a member has not read yet."""
        outbox = self._outboxes.get(member)
        return outbox.qsize() if outbox is not None else 0

    def dismiss(self, member: MemberId, error: FederationError) -> None:
        """Tell a member why it is out, and end its stream."""
        abort = Abort(code=error.code, why=error.why[:200])
        self.send(member, CoordinatorFrame(abort=abort))
        outbox = self._outboxes.get(member)
        if outbox is not None:
            outbox.put(None)

    def close(self) -> None:
        """End every stream after what was sent."""
        with self._lock:
            self._closed = True
            for outbox in self._outboxes.values():
                outbox.put(None)


class Hub:
    """The lobbies that are open, by the digest of their authorisation."""

    def __init__(self) -> None:
        self._lobbies: dict[bytes, Lobby] = {}

    def open(self, ctx: bytes, members: Iterable[MemberId]) -> Lobby:
        """Open the lobby of an attempt."""
        lobby = Lobby(frozenset(members))
        self._lobbies[ctx] = lobby
        return lobby

    def close(self, ctx: bytes) -> None:
        """Close the lobby of an attempt, if it is open."""
        lobby = self._lobbies.pop(ctx, None)
        if lobby is not None:
            lobby.close()

    def close_all(self) -> None:
        """Close every lobby."""
        for ctx in list(self._lobbies):
            self.close(ctx)

    def find(self, ctx: bytes, member: MemberId) -> Lobby:
        """Return the lobby of an authorisation; raise RNM-ROUND-0001 if it is not open."""
        lobby = self._lobbies.get(ctx)
        if lobby is None:
            raise _not_open(member)
        return lobby


def _not_open(member: MemberId) -> LocalFault:
    return LocalFault(
        "RNM-ROUND-0001",
        what=f"{member} was not let into the attempt",
        why="the attempt is not open, or not for this member",
        mend="nothing: the node takes part again with the next authorisation",
    )


class ExchangeService(exchange_pb2_grpc.ExchangeServicer):
    """Streams of members."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub

    def Session(  # noqa: N802  # gRPC's name
        self, request_iterator: Iterator[MemberFrame], context: Any
    ) -> Iterator[CoordinatorFrame]:
        """Join the lobby that Hello names, then carry frames both ways."""
        member = caller_of(context)
        first = next(request_iterator, None)
        if first is None or first.WhichOneof("frame") != "hello":
            raise LocalFault(
                "RNM-FORM-0002",
                what=f"a stream of {member} was refused",
                why="its first frame is not Hello",
                mend="both sides need versions of Renmei that speak the same format",
            )
        lobby = self._hub.find(first.hello.ctx, member)
        outbox = lobby.join(member)
        context.add_callback(lambda: outbox.put(None))
        reader = threading.Thread(
            target=_read, args=(lobby, member, request_iterator), daemon=True, name=f"read-{member}"
        )
        reader.start()
        while (frame := outbox.get()) is not None:
            yield frame() if callable(frame) else frame


def _read(lobby: Lobby, member: MemberId, frames: Iterator[MemberFrame]) -> None:
    try:
        for frame in frames:
            lobby.tell(Framed(member, frame))
    except Exception:  # noqa: BLE001, S110  # gRPC raises a bare Exception when the peer hangs up
        # Not swallowed: however the stream ended, the attempt is told that the member is gone.
        pass
    finally:
        lobby.tell(Gone(member, "RNM-TLS-0001"))
