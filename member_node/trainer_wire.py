"""Frames between agent and trainer: four bytes of length, then one protobuf message.

Decides where a message ends. Trusts nothing: a frame that is too long, cut short or no message ends the
connection. No frame has a place for a private adapter.
"""

import socket
from typing import TypeVar

from google.protobuf.message import DecodeError, Message

MAX_FRAME = 1 << 30
_BLOCK = 1 << 20
M = TypeVar("M", bound=Message)


class BadFrame(Exception):
    """The other side sent what is no frame; the connection is of no use any more."""


def send(connection: socket.socket, message: Message) -> None:
    """Send one message."""
    data = message.SerializeToString()
    connection.sendall(len(data).to_bytes(4, "big"))
    connection.sendall(data)


def receive(connection: socket.socket, kind: type[M]) -> M | None:
    """Return the next message, or nothing at the end of the stream; raise BadFrame."""
    prefix = _exactly(connection, 4)
    if not prefix:
        return None
    size = int.from_bytes(prefix, "big")
    if len(prefix) < 4 or size > MAX_FRAME:
        raise BadFrame(f"its length is not one of a frame of at most {MAX_FRAME} bytes")
    data = _exactly(connection, size)
    if len(data) < size:
        raise BadFrame("the stream ended within a frame")
    message = kind()
    try:
        message.ParseFromString(bytes(data))
    except DecodeError:
        raise BadFrame("it is not the message that it should be") from None
    return message


def _exactly(connection: socket.socket, size: int) -> bytearray:
    """Return `size` bytes, fewer at the end; memory grows with what comes, not with what is announced."""
    received = bytearray()
    while len(received) < size:
        block = connection.recv(min(_BLOCK, size - len(received)))
        if not block:
            break
        received += block
    return received
