"""The strict codec of secure aggregation messages, and what makes a message signed.

Decides: one message has one encoding. `decode` refuses an unknown field, trailing bytes, a default
written out, another order of fields: whatever does not come back byte for byte when it is encoded
again. Signatures are over tagged hashes of fields, so they do not depend on protobuf. Trusts nothing
of a message before `decode` and `verify`. Implements fedproto/v1/secagg.proto. Pure.
"""

import dataclasses
import typing
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from typing import Any, Protocol, Self, TypeAlias, TypeVar, cast

from google.protobuf.message import DecodeError, Message

from fedproto.errors import LocalFault
from fedproto.identity import SIGNATURE_BYTES, SigningKey, VerifyKey
from fedproto.ids import MemberId, is_member_id
from fedproto.secagg.faults import not_genuine
from fedproto.v1 import secagg_pb2

MAX_MESSAGE_BYTES = 8 << 20
DIGEST_BYTES = 32
UNSIGNED = bytes(SIGNATURE_BYTES)

M = TypeVar("M")


class _HasMember(Protocol):
    @property
    def member(self) -> MemberId: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Signed:
    """A message that its member signed over `statement()`; the fields are the subclass's."""

    ctx: bytes
    member: MemberId
    signature: bytes = UNSIGNED

    def __post_init__(self) -> None:
        require_length("ctx", self.ctx, DIGEST_BYTES)
        require_member(self.member)
        require_length("signature", self.signature, SIGNATURE_BYTES)

    def statement(self) -> bytes:
        """Return the tagged hash that is signed."""
        raise NotImplementedError

    def signed_by(self, key: SigningKey) -> Self:
        """Return this message with its member's signature."""
        return dataclasses.replace(self, signature=key.sign(self.statement()))

    def differs(self, **expected: bytes) -> str | None:
        """Return the first of ctx, h1, h2, h3 that is not the one expected."""
        for name, digest in expected.items():
            if getattr(self, name) != digest:
                return name
        return None

    def verify(self, key: VerifyKey, blame: str) -> None:
        """Raise RNM-SECAGG-0001, naming `blame`, unless the member's signature verifies."""
        try:
            key.verify(self.signature, self.statement())
        except LocalFault:
            kind = type(self).__name__
            raise not_genuine(
                blame, f"the {kind} of {self.member} does not carry its signature"
            ) from None


def encode(message: object) -> bytes:
    """Return the one encoding of a message."""
    return _to_protobuf(message).SerializeToString(deterministic=True)


def decode(cls: type[M], raw: bytes, *, peer: str) -> M:
    """Read a message of `peer`; refuse whatever is not its one encoding (RNM-SECAGG-0001)."""
    if len(raw) > MAX_MESSAGE_BYTES:
        raise not_genuine(peer, f"it has {len(raw)} bytes, more than {MAX_MESSAGE_BYTES}")
    wire = _protobuf_class(cls)()
    try:
        wire.ParseFromString(raw)
        message = cast(M, _from_protobuf(cls, wire))
    except DecodeError:
        raise not_genuine(peer, f"it is not a {cls.__name__}") from None
    except ValueError as error:
        raise not_genuine(peer, f"a {cls.__name__} is malformed: {error}") from None
    # Every field was read into the message, so what is left of `wire` without unknown fields is what
    # `encode` would write of it; encoding the message itself costs several times as much.
    wire.DiscardUnknownFields()
    if wire.SerializeToString(deterministic=True) != raw:
        raise not_genuine(peer, f"it is a {cls.__name__}, but not in its one encoding")
    return message


def require_length(name: str, value: bytes, *lengths: int) -> None:
    """Raise ValueError unless `value` has one of the lengths."""
    if len(value) not in lengths:
        raise ValueError(f"{name} has {len(value)} bytes, not {' or '.join(map(str, lengths))}")


def require_member(member: str) -> None:
    """Raise ValueError unless `member` spells a member."""
    if not is_member_id(member):
        raise ValueError("a member id is not well formed")


def require_sorted(items: typing.Sequence[_HasMember]) -> None:
    """Raise ValueError unless items are sorted by member and name each once."""
    members = [item.member for item in items]
    if members != sorted(set(members)):
        raise ValueError("members must be sorted and stand once")


_Convert: TypeAlias = Callable[[Any], Any]


def _as_it_is(value: Any) -> Any:
    return value


def _protobuf_class(cls: type) -> type[Message]:
    return cast(type[Message], getattr(secagg_pb2, cls.__name__))


@cache
def _fields(cls: Any) -> dict[str, tuple[_Convert, _Convert]]:
    """Return how each field is written and read; looked up once for each class, not each message."""
    hints = typing.get_type_hints(cls)
    return {field.name: _converters(hints[field.name]) for field in dataclasses.fields(cls)}


def _converters(hint: Any) -> tuple[_Convert, _Convert]:
    if typing.get_origin(hint) is tuple:
        write, read = _converters(typing.get_args(hint)[0])
        if write is _as_it_is:
            return list, tuple
        return lambda items: [write(item) for item in items], lambda items: tuple(map(read, items))
    if dataclasses.is_dataclass(hint):
        return _to_protobuf, partial(_from_protobuf, hint)
    return _as_it_is, _as_it_is


def _to_protobuf(message: Any) -> Message:
    cls: Any = type(message)
    values = {name: write(getattr(message, name)) for name, (write, _) in _fields(cls).items()}
    return _protobuf_class(cls)(**values)


def _from_protobuf(cls: Any, wire: Message) -> Any:
    return cls(**{name: read(getattr(wire, name)) for name, (_, read) in _fields(cls).items()})
