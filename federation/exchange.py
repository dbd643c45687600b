"""The Exchange service: one session for each member of an attempt, brought together in a lobby.

Decides who may join: a member of the attempt, with the digest of its authorisation, in one session. A
session whose stream broke waits for the next one of the same name; the attempt hears of it only when
none comes. What frames mean is decided by the attempt; this only moves them, and holds a sender back
when they are not read. A shell module.
"""

import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeAlias

import grpc

from federation.calls import Call
from federation.leases import Leases
from fedproto.errors import FederationError, LocalFault
from fedproto.ids import MemberId
from fedproto.outbox import RESUME_S, SESSION_BYTES, Outbox
from fedproto.v1.exchange_pb2 import Abort, CoordinatorFrame, Hello, MemberFrame, Welcome

# Frames that wait to be read, over all members; the rest waits in the members' send windows.
_BACKLOG = 8
_PUT_S = 0.5
# How often one member may connect in one attempt; each time costs the others next to nothing.
MAX_STREAMS = 1000
# Lobbies that are kept for a while after they were closed.
_KEPT = 2


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
Make: TypeAlias = Callable[[], CoordinatorFrame]
Sendable: TypeAlias = CoordinatorFrame | Make


class _Seat:
    """One member's session: what it is told, and how much of what it says was handed on."""

    def __init__(self, session: bytes) -> None:
        self.session = session
        self.outbox: Outbox[Sendable] = Outbox()
        self.streams = 0
        self.gone = False
        self.newest = 0
        self.taken = 0
        # Held while a frame is handed on: a stream that was replaced hands nothing on any more, and
        # the next one is told exactly what arrived.
        self._turn = threading.Lock()
        self._changed = threading.Condition()

    def attach(self, taken: int) -> int:
        """Let a stream go on after `taken` frames; return its number. Raise ValueError."""
        with self._turn, self._changed:
            self.newest = self.outbox.attach(taken)
            self.streams += 1
            self._changed.notify_all()
            return self.newest

    def take(self, stream: int, frame: MemberFrame, hand_on: Callable[[MemberFrame], None]) -> bool:
        """Hand a frame on; return False if another stream has taken over. Raise ValueError."""
        with self._turn:
            if self.newest != stream:
                return False
            self.outbox.settle(frame.taken)
            hand_on(frame)
            self.taken += 1
            return True

    def leave(self, stream: int, patience_s: float) -> bool:
        """Wait for another stream to take over; return whether the member is gone."""
        with self._changed:
            self._changed.wait_for(lambda: self.newest != stream or self.outbox.ended, patience_s)
            # After the last word there is nothing to be gone from: it may still be fetched.
            self.gone = self.newest == stream and not self.outbox.ended
            return self.gone

    def end(self) -> None:
        """End the session after what was sent."""
        self.outbox.end()
        with self._changed:
            self._changed.notify_all()


@dataclass(slots=True)
class Lobby:
    """The members of one attempt, as far as they have joined."""

    members: frozenset[MemberId]
    resume_s: float = RESUME_S
    leases: Leases = field(default_factory=Leases)
    inbox: "queue.Queue[Happening]" = field(default_factory=lambda: queue.Queue(_BACKLOG))
    _seats: dict[MemberId, _Seat] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _closed: bool = False

    def join(self, member: MemberId, hello: Hello, taken: int = 0) -> "Stream":
        """Let a member in, or its session go on; raise RNM-ROUND-0001, RNM-GOV-0003 or RNM-FORM-0002."""
        with self._lock:
            seat = self._seats.get(member)
            if member not in self.members or (self._closed and seat is None):
                raise _not_open(member)
            if seat is None:
                seat = self._seats[member] = _Seat(_session_of(member, hello))
            if seat.session != hello.session:
                raise LocalFault(
                    "RNM-GOV-0003",
                    what=f"a second session of {member} was refused",
                    why="this attempt has one already",
                    mend="stop the other node that uses this member's keys",
                )
            if seat.gone or seat.streams >= MAX_STREAMS:
                raise _not_open(member)
        try:
            number = seat.attach(taken)
        except ValueError as error:
            raise _malformed(member, str(error)) from None
        return Stream(lobby=self, member=member, seat=seat, number=number)

    def has_joined(self, member: MemberId) -> bool:
        """Say whether a member has opened its session."""
        return member in self._seats

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
        seat = self._seats.get(member)
        if seat is not None:
            seat.outbox.put(frame)

    def backlog(self, member: MemberId) -> int:
        """Return how many frames a member has not read yet."""
        seat = self._seats.get(member)
        return seat.outbox.untaken if seat is not None else 0

    def dismiss(self, member: MemberId, error: FederationError) -> None:
        """Tell a member why it is out, and end its session."""
        abort = Abort(code=error.code, why=error.why[:200])
        self.send(member, CoordinatorFrame(abort=abort))
        seat = self._seats.get(member)
        if seat is not None:
            seat.end()

    def close(self) -> None:
        """End every session after what was sent."""
        with self._lock:
            self._closed = True
            for seat in self._seats.values():
                seat.end()


@dataclass(frozen=True, slots=True, kw_only=True)
class Stream:
    """One stream of a member's session."""

    lobby: Lobby
    member: MemberId
    seat: _Seat
    number: int

    def frames(self) -> Iterator["Make"]:
        """Yield the answer to Hello, then what the member is told, until another stream takes over."""
        yield partial(CoordinatorFrame, welcome=Welcome(), taken=self.seat.taken)
        for item in self.seat.outbox.items(self.number):
            # gRPC asks for the next frame once it got rid of this one.
            with self.lobby.leases.place():
                yield partial(self._made, item)

    def _made(self, item: Sendable) -> CoordinatorFrame:
        if callable(item):
            frame = item()
        else:
            # A list is one frame for all members: each gets a copy with a count of its own.
            frame = CoordinatorFrame()
            frame.CopyFrom(item)
        frame.taken = self.seat.taken
        return frame

    def detach(self) -> None:
        """End the frames: the connection is lost."""
        self.seat.outbox.detach(self.number)

    def read(self, frames: Iterator[MemberFrame]) -> None:
        """Hand the member's frames to the attempt, and in the end that it is gone, if it is."""
        patience_s, code = self.lobby.resume_s, "RNM-TLS-0001"
        try:
            for frame in frames:
                handed_on = self.seat.take(self.number, frame, self._hand_on)
                # Else the last chunk of every member would lie here until its next word.
                del frame
                if not handed_on:
                    return
        except ValueError:
            # It counts frames that it was never sent.
            patience_s, code = 0.0, "RNM-FORM-0002"
        except Exception:  # noqa: BLE001, S110  # gRPC raises a bare Exception when the peer hangs up
            # Not swallowed: unless another stream takes over, the attempt is told that it is gone.
            pass
        # However the frames ended: gRPC ends those of a broken connection, too, as if all were said.
        # A member that leaves says so in a frame.
        if self.seat.leave(self.number, patience_s):
            self.seat.end()
            self.lobby.tell(Gone(self.member, code))

    def _hand_on(self, frame: MemberFrame) -> None:
        self.lobby.tell(Framed(self.member, frame))


class Hub:
    """The lobbies that are open, by the digest of their authorisation."""

    def __init__(self, resume_s: float = RESUME_S) -> None:
        self.resume_s = resume_s
        self._lobbies: dict[bytes, Lobby] = {}
        # The lobbies that were closed last: a session whose stream broke still hears how it ended.
        self._closed: dict[bytes, Lobby] = {}

    def open(self, ctx: bytes, members: Iterable[MemberId]) -> Lobby:
        """Open the lobby of an attempt."""
        lobby = Lobby(frozenset(members), self.resume_s)
        self._lobbies[ctx] = lobby
        return lobby

    def close(self, ctx: bytes) -> None:
        """Close the lobby of an attempt, if it is open."""
        lobby = self._lobbies.pop(ctx, None)
        if lobby is not None:
            lobby.close()
            self._closed[ctx] = lobby
            for oldest in list(self._closed)[:-_KEPT]:
                del self._closed[oldest]

    def close_all(self) -> None:
        """Close every lobby."""
        for ctx in list(self._lobbies):
            self.close(ctx)

    def find(self, ctx: bytes, member: MemberId) -> Lobby:
        """Return the lobby of an authorisation; raise RNM-ROUND-0001 if it is not there."""
        lobby = self._lobbies.get(ctx) or self._closed.get(ctx)
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


def _session_of(member: MemberId, hello: Hello) -> bytes:
    if len(hello.session) != SESSION_BYTES:
        raise _malformed(member, f"a session has {SESSION_BYTES} bytes")
    return hello.session


def _malformed(member: MemberId, why: str) -> LocalFault:
    return LocalFault(
        "RNM-FORM-0002",
        what=f"a stream of {member} was refused",
        why=why,
        mend="both sides need versions of Renmei that speak the same format",
    )


class ExchangeService:
    """Streams of members."""

    def __init__(self, hub: Hub) -> None:
        """Serve the lobbies of a hub."""
        self._hub = hub

    def Session(  # noqa: N802  # gRPC's name
        self, request_iterator: Iterator[MemberFrame], call: Call
    ) -> Iterator[Make]:
        """Join the lobby that Hello names, then carry frames both ways."""
        member = call.caller
        first = next(request_iterator, None)
        if first is None or first.WhichOneof("frame") != "hello":
            raise _malformed(member, "its first frame is not Hello")
        lobby = self._hub.find(first.hello.ctx, member)
        stream = lobby.join(member, first.hello, first.taken)
        call.add_callback(stream.detach)
        threading.Thread(
            target=stream.read, args=(request_iterator,), daemon=True, name=f"read-{member}"
        ).start()
        yield from stream.frames()


def write(make: Make) -> bytes:
    """Return a frame's bytes. gRPC keeps what it was given until the next frame: so not the frame."""
    return make().SerializeToString()


def handler(service: ExchangeService) -> "grpc.GenericRpcHandler[Any, Any]":
    """Return what a server adds to serve Exchange."""
    method = grpc.stream_stream_rpc_method_handler(
        service.Session, request_deserializer=MemberFrame.FromString, response_serializer=write
    )
    return grpc.method_handlers_generic_handler("fedproto.v1.Exchange", {"Session": method})
