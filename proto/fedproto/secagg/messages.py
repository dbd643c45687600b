"""The strict codec of secure aggregation messages, and what makes a message signed.

Decides: one message has one encoding. `decode` refuses an unknown field, trailing bytes, a default
written out, another order of fields: whatever does not come back byte for byte when it is encoded
again. Signatures are over tagged hashes of fields, so they do not depend on protobuf. Trusts nothing
of a message before `decode` and `verify`. Implements fedproto/v1/secagg.proto. Pure.
"""

import dataclasses
import typing
from dataclasses import dataclass
from functools import cache
from typing import Any, Protocol, Self, TypeVar, cast

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
    if encode(message) != raw:
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


def _protobuf_class(cls: type) -> type[Message]:
    return cast(type[Message], getattr(secagg_pb2, cls.__name__))


@cache
def _fields(cls: Any) -> dict[str, Any]:
    hints = typing.get_type_hints(cls)
    return {name: getattr(hint, "__supertype__", hint) for name, hint in hints.items()}


def _to_protobuf(message: Any) -> Message:
    cls: Any = type(message)
    return _protobuf_class(cls)(**{name: _plain(getattr(message, name)) for name in _fields(cls)})


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return _to_protobuf(value) if dataclasses.is_dataclass(value) else value


def _from_protobuf(cls: Any, wire: Message) -> Any:
    values: dict[str, Any] = {}
    for name, hint in _fields(cls).items():
        value = getattr(wire, name)
        if typing.get_origin(hint) is tuple:
            item = typing.get_args(hint)[0]
            values[name] = tuple(
                _from_protobuf(item, each) if dataclasses.is_dataclass(item) else each
                for each in value
            )
        else:
            values[name] = _from_protobuf(hint, value) if dataclasses.is_dataclass(hint) else value
    return cls(**values)
