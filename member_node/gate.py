"""The gate: the only gRPC channel of this silo, through which each message passes the journal.

Decides the kind of an outgoing message from its method and type. A message is turned into bytes here,
written down, and only those bytes are handed to gRPC, whose own serializer is switched off: there is no
way around. A method or a message that is not listed stays inside. Headers of the caller's own are not
passed on at all, for they would not be in the journal. A shell module.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Protocol, Self

import grpc

from fedproto.errors import LocalFault
from fedproto.v1.exchange_pb2 import MemberFrame
from member_node.egress import EgressJournal, not_allowed

_FRAMES = "/fedproto.v1.Exchange/Session"

# Method by method; Exchange's frames are told apart by what they carry.
_METHODS = {
    "/fedproto.v1.Governance/DeclareDataset": "governance.dataset",
    "/fedproto.v1.Governance/Vote": "governance.vote",
    "/fedproto.v1.Governance/SignParticipation": "governance.participation",
    "/fedproto.v1.Governance/AuditSum": "governance.audit",
    "/fedproto.v1.Ledger/GetCheckpoint": "ledger.read",
    "/fedproto.v1.Ledger/GetEntries": "ledger.read",
    "/fedproto.v1.Artifacts/Get": "artifact.read",
    "/fedproto.v1.Witness/Attend": "witness.answer",
    "/fedproto.v1.Witness/Validate": "witness.validation",
}

Serializer = Callable[[Any], bytes]


class Journal(Protocol):
    """What the gate needs of the egress journal."""

    def record(self, kind: str, data: bytes, *, to: str, run: str = "", round_no: int = 0) -> None:
        """Write a message down, or refuse it."""


def kind_of(method: str, message: object) -> str:
    """Return the journal's kind of an outgoing message; refuse one that may not leave."""
    if method == _FRAMES:
        if isinstance(message, MemberFrame) and message.WhichOneof("frame"):
            return f"exchange.{message.WhichOneof('frame')}"
        raise not_allowed(f"{method} with {type(message).__name__}")
    kind = _METHODS.get(method)
    if kind is None:
        raise not_allowed(method)
    return kind


@dataclass(frozen=True, slots=True, kw_only=True)
class GatedChannel(grpc.Channel):
    """A gRPC channel that keeps the journal; `run` and `round_no` label what passes."""

    inner: grpc.Channel
    journal: Journal
    to: str
    run: str = ""
    round_no: int = 0

    def about(self, run: str, round_no: int) -> "GatedChannel":
        """Return the same channel, labelled with a round."""
        return replace(self, run=run, round_no=round_no)

    def _seal(self, method: str, serialize: Serializer, message: Any) -> bytes:
        kind = kind_of(method, message)
        data = serialize(message)
        self.journal.record(kind, data, to=self.to, run=self.run, round_no=self.round_no)
        return data

    def _unary(self, multi: Any, method: str, serialize: Serializer) -> Callable[..., Any]:
        def call(request: Any, timeout: float | None = None) -> Any:
            data = self._seal(method, serialize, request)
            try:
                return multi(data, timeout=timeout)
            except ValueError:
                # gRPC's way to say that the channel was closed meanwhile: the node is stopping.
                raise _closed(self.to) from None

        return call

    def _stream(self, multi: Any, method: str, serialize: Serializer) -> Callable[..., Any]:
        def call(requests: Iterator[Any], timeout: float | None = None) -> Any:
            sealed = (self._seal(method, serialize, request) for request in requests)
            try:
                return multi(sealed, timeout=timeout)
            except ValueError:
                raise _closed(self.to) from None

        return call

    def unary_unary(  # type: ignore[override]
        self, method: str, request_serializer: Serializer, response_deserializer: Any, **_: object
    ) -> Callable[..., Any]:
        """Return a call of one message and one answer."""
        multi = self.inner.unary_unary(method, None, response_deserializer)
        return self._unary(multi, method, request_serializer)

    def unary_stream(  # type: ignore[override]
        self, method: str, request_serializer: Serializer, response_deserializer: Any, **_: object
    ) -> Callable[..., Any]:
        """Return a call of one message and a stream of answers."""
        multi = self.inner.unary_stream(method, None, response_deserializer)
        return self._unary(multi, method, request_serializer)

    def stream_unary(  # type: ignore[override]
        self, method: str, request_serializer: Serializer, response_deserializer: Any, **_: object
    ) -> Callable[..., Any]:
        """Return a call of a stream and one answer."""
        multi = self.inner.stream_unary(method, None, response_deserializer)
        return self._stream(multi, method, request_serializer)

    def stream_stream(  # type: ignore[override]
        self, method: str, request_serializer: Serializer, response_deserializer: Any, **_: object
    ) -> Callable[..., Any]:
        """Return a call of two streams."""
        multi = self.inner.stream_stream(method, None, response_deserializer)
        return self._stream(multi, method, request_serializer)

    def subscribe(self, callback: Any, try_to_connect: bool = False) -> None:  # noqa: FBT001, FBT002
        """Pass on: tells of the connection's state, sends nothing."""
        self.inner.subscribe(callback, try_to_connect)

    def unsubscribe(self, callback: Any) -> None:
        """Pass on."""
        self.inner.unsubscribe(callback)

    def close(self) -> None:
        """Close the connection."""
        self.inner.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _closed(to: str) -> LocalFault:
    return LocalFault(
        "RNM-TLS-0001",
        what=f"a call to {to} was not made",
        why="the node is stopping",
        mend="start the node again",
    )


def gated(channel: grpc.Channel, journal: EgressJournal, to: str) -> GatedChannel:
    """Put the gate in front of a channel."""
    return GatedChannel(inner=channel, journal=journal, to=to)
