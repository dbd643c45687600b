"""Frames between agent and trainer: four bytes of length, then one protobuf message."""

import socket
from typing import TypeVar

from google.protobuf.message import DecodeError, Message

MAX_FRAME = 1 << 30
M = TypeVar("M", bound=Message)


class BadFrame(Exception):
    """The other side sent what is no frame; the connection is of no use any more."""


def send(connection: socket.socket, message: Message) -> None:
    """Send one message."""
    data = message.SerializeToString()
    connection.sendall(len(data).to_bytes(4, "big") + data)


def receive(connection: socket.socket, kind: type[M]) -> M | None:
    """Return the next message, or nothing at the end of the stream; raise BadFrame."""
    prefix = _exactly(connection, 4)
    if prefix is None:
        return None
    size = int.from_bytes(prefix, "big")
    if size > MAX_FRAME:
        raise BadFrame(f"a frame of {size} bytes is more than {MAX_FRAME}")
    data = _exactly(connection, size)
    if data is None:
        raise BadFrame("the stream ended within a frame")
    message = kind()
    try:
        message.ParseFromString(data)
    except DecodeError:
        raise BadFrame("a frame is not the message that it should be") from None
    return message


def _exactly(connection: socket.socket, size: int) -> bytes | None:
    received = bytearray()
    while len(received) < size:
        block = connection.recv(min(1 << 20, size - len(received)))
        if not block:
            return None
        received += block
    return bytes(received)
