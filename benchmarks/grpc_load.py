"""A load generator for unary gRPC calls that costs little: what is measured is the server.

gRPC's own client for Python takes as long over a call as a coordinator does, on the same cores. This
one, in the manner of wrk and h2load, writes HTTP/2 frames (RFC 9113) that are the same but for their
stream and their message, and reads as much of the answers as tells a success from a failure. Only for
benchmarks: it trusts its server's framing, and keeps to its window.
"""

import ssl
import struct
import time
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from socket import IPPROTO_TCP, TCP_NODELAY, create_connection

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_DATA, _HEADERS, _SETTINGS, _PING, _GOAWAY, _WINDOW = 0x0, 0x1, 0x4, 0x6, 0x7, 0x8
_END_STREAM, _END_HEADERS, _ACK = 0x1, 0x4, 0x1
_DEFAULT_WINDOW = 65_535
# The answers are small; with windows this wide their bytes need not be counted.
_WIDE = 2**31 - 1
_LARGEST_FRAME = 16_384


@dataclass(frozen=True, slots=True)
class Load:
    """What came of a number of calls: seconds for all, seconds for each, and the answers' bytes."""

    took: float
    times: list[float]
    answers: list[bytes]


def connect(address: str, keys: Path) -> ssl.SSLSocket:
    """Open a connection by mutual TLS 1.3 as the party of `keys`."""
    context = ssl.create_default_context(cafile=str(keys / "root.crt"))
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_cert_chain(str(keys / "tls.crt"), str(keys / "tls.key"))
    context.set_alpn_protocols(["h2"])
    host, _, port = address.rpartition(":")
    raw = create_connection((host, int(port)), timeout=30)
    raw.setsockopt(IPPROTO_TCP, TCP_NODELAY, 1)
    return context.wrap_socket(raw, server_hostname=host)


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return struct.pack(">IBI", len(payload) << 8 | kind, flags, stream) + payload


def _literal(name: bytes, value: bytes) -> bytes:
    """A header field without indexing and without Huffman code (RFC 7541, 6.2.2)."""
    return bytes([0, len(name)]) + name + bytes([len(value)]) + value


class Caller:
    """Calls one method of one server over one connection."""

    def __init__(self, connection: ssl.SSLSocket, address: str, method: str) -> None:
        self._connection = connection
        self._headers = b"".join(
            _literal(name, value)
            for name, value in (
                (b":method", b"POST"),
                (b":scheme", b"https"),
                (b":path", method.encode()),
                (b":authority", address.encode()),
                (b"te", b"trailers"),
                (b"content-type", b"application/grpc"),
            )
        )
        self._stream = 1
        self._window = _DEFAULT_WINDOW
        self._unread = b""
        settings = struct.pack(">HIHI", 0x2, 0, 0x4, _WIDE)
        connection.sendall(
            _PREFACE
            + _frame(_SETTINGS, 0, 0, settings)
            + _frame(_WINDOW, 0, 0, struct.pack(">I", _WIDE - _DEFAULT_WINDOW))
        )

    def run(self, messages: list[bytes], in_flight: int) -> Load:
        """Send every message in order, `in_flight` at a time; raise RuntimeError if a call fails."""
        waiting = deque(messages)
        began: dict[int, float] = {}
        partial: dict[int, bytes] = {}
        times: list[float] = []
        answers: list[bytes] = []
        start = time.perf_counter()
        while waiting or began:
            out = bytearray()
            while waiting and len(began) < in_flight and self._window >= len(waiting[0]) + 5:
                began[self._stream] = time.perf_counter()
                out += self._request(waiting.popleft())
            if out:
                self._connection.sendall(out)
            for stream in self._read(partial):
                answer = partial.pop(stream, None)
                if answer is None:
                    raise RuntimeError("a call was answered with an error")
                times.append(time.perf_counter() - began.pop(stream))
                answers.append(answer)
        return Load(time.perf_counter() - start, sorted(times), answers)

    def _request(self, message: bytes) -> bytes:
        stream, self._stream = self._stream, self._stream + 2
        data = struct.pack(">BI", 0, len(message)) + message
        self._window -= len(data)
        parts = [_frame(_HEADERS, _END_HEADERS, stream, self._headers)]
        for at in range(0, len(data), _LARGEST_FRAME):
            last = _END_STREAM if at + _LARGEST_FRAME >= len(data) else 0
            parts.append(_frame(_DATA, last, stream, data[at : at + _LARGEST_FRAME]))
        return b"".join(parts)

    def _read(self, answers: dict[int, bytes]) -> list[int]:
        """Read what there is; return the streams that ended. A failed call's has no answer."""
        received = self._connection.recv(1 << 16)
        if not received:
            raise RuntimeError("the server closed the connection")
        data, at, ended, replies = self._unread + received, 0, [], b""
        while len(data) - at >= 9:
            head, flags, stream = struct.unpack_from(">IBI", data, at)
            length, kind = head >> 8, head & 0xFF
            if len(data) - at - 9 < length:
                break
            payload = data[at + 9 : at + 9 + length]
            at += 9 + length
            if kind == _DATA:
                answers[stream] = answers.get(stream, b"") + payload
            elif kind == _WINDOW and stream == 0:
                self._window += int.from_bytes(payload, "big")
            elif kind in {_SETTINGS, _PING} and not flags & _ACK:
                replies += _frame(kind, _ACK, 0, payload if kind == _PING else b"")
            elif kind == _GOAWAY:
                raise RuntimeError(f"the server went away: {payload[8:]!r}")
            if kind in {_DATA, _HEADERS} and flags & _END_STREAM:
                ended.append(stream)
        self._unread = data[at:]
        if replies:
            self._connection.sendall(replies)
        return ended
