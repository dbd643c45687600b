"""The courier's tunnel: the stock Flower process reaches the gateway through here and nowhere else.

Decides where the courier may connect to: one address. A proxy on loopback that knows CONNECT alone; what
flows is TLS between the courier and the gateway, which the node cannot read, so the journal gets its
sizes: each direction, every few seconds and at the end. A shell module.
"""

import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from fedproto.errors import FederationError
from member_node.log import Log

_HEAD_LIMIT = 8 << 10
_BLOCK = 64 << 10
_EVERY_S = 10.0
_CONNECT_S = 10.0
_KIND = "flower.tunnel"


class StreamJournal(Protocol):
    """What the tunnel needs of the egress journal."""

    def record_stream(self, kind: str, size: int, *, to: str) -> None:
        """Write down that so many bytes of a stream leave."""


@dataclass(slots=True)
class _Meter:
    """Bytes towards the gateway that the journal does not have yet."""

    journal: StreamJournal
    to: str
    pending: int = 0
    since: float = field(default_factory=time.monotonic)

    def add(self, size: int) -> None:
        """Count bytes about to leave; write them down every few seconds."""
        self.pending += size
        if time.monotonic() - self.since >= _EVERY_S:
            self.flush()

    def flush(self) -> None:
        """Write down what was counted."""
        if self.pending:
            self.journal.record_stream(_KIND, self.pending, to=self.to)
        self.pending = 0
        self.since = time.monotonic()


class Tunnel:
    """A CONNECT proxy on loopback to one address."""

    def __init__(self, allowed: str, journal: StreamJournal, log: Log) -> None:
        self._allowed = allowed
        self._journal = journal
        self._log = log
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._stopped = threading.Event()

    @property
    def url(self) -> str:
        """What the courier gets as HTTPS_PROXY."""
        return f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def start(self) -> None:
        """Serve in threads of its own until `stop`."""
        threading.Thread(target=self._accept, name="tunnel", daemon=True).start()

    def stop(self) -> None:
        """Close every connection; what was counted is written down by their threads."""
        self._stopped.set()
        self._shut(self._listener)
        self._listener.close()
        with self._lock:
            connections = tuple(self._open)
        for connection in connections:
            self._shut(connection)

    def _accept(self) -> None:
        while not self._stopped.is_set():
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client:
            client.settimeout(_CONNECT_S)
            target = _connect_target(_read_head(client))
            if target != self._allowed:
                self._log.info("tunnel.refused")
                _answer(client, b"HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\n\r\n")
                return
            try:
                gateway = socket.create_connection(_split(target), timeout=_CONNECT_S)
            except OSError:
                # No answer at all: the SuperNode tries again. After a 502 it would give up its work
                # for good, while its process stays and looks alive.
                self._log.info("tunnel.unreachable")
                return
            with gateway:
                self._relay(client, gateway)

    def _relay(self, client: socket.socket, gateway: socket.socket) -> None:
        client.settimeout(None)
        gateway.settimeout(None)
        with self._lock:
            self._open |= {client, gateway}
        _answer(client, b"HTTP/1.1 200 Connection established\r\n\r\n")
        meter = _Meter(self._journal, self._allowed)
        back = threading.Thread(target=self._pump, args=(gateway, client, None), daemon=True)
        back.start()
        try:
            self._pump(client, gateway, meter.add)
            back.join()
            meter.flush()
        except FederationError as error:
            # A journal that cannot be written lets nothing more out.
            self._log.failed("tunnel.closed", error)
            self._shut(client)
            self._shut(gateway)
        finally:
            with self._lock:
                self._open -= {client, gateway}

    def _pump(
        self, source: socket.socket, sink: socket.socket, count: Callable[[int], None] | None
    ) -> None:
        try:
            while data := source.recv(_BLOCK):
                if count is not None:
                    count(len(data))
                sink.sendall(data)
        except OSError:
            self._shut(source)
        finally:
            self._shut(sink, socket.SHUT_WR)

    def _shut(self, connection: socket.socket, how: int = socket.SHUT_RDWR) -> None:
        try:
            connection.shutdown(how)
        except OSError:
            # The other side was quicker; the socket is closed by its owner.
            return


def _read_head(client: socket.socket) -> bytes:
    head = b""
    try:
        while b"\r\n\r\n" not in head and len(head) < _HEAD_LIMIT:
            # One byte at a time past the head would be the courier's own TLS bytes.
            data = client.recv(1)
            if not data:
                return b""
            head += data
    except OSError:
        return b""
    return head


def _connect_target(head: bytes) -> str:
    words = head.split(b"\r\n", 1)[0].split(b" ")
    if len(words) != 3 or words[0] != b"CONNECT":
        return ""
    return words[1].decode("ascii", "replace")


def _split(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    return host.strip("[]"), int(port)


def _answer(client: socket.socket, head: bytes) -> None:
    try:
        client.sendall(head)
    except OSError:
        # The courier is gone; there is nobody to answer.
        return
