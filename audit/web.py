"""A small HTTP server that strangers may talk to: bounded in connections, bytes and time.

Decides nothing of what is served, and answers one request a connection: nothing waits, nothing is
smuggled behind another. No version, no directory listing, no redirect, no log of who asked what. Bound
to loopback unless told otherwise: TLS belongs to the proxy before it. Implements the part of RFC 9112
that C2SP tlog-tiles and tlog-witness need. A shell module.
"""

import logging
import socket
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

from fedproto.errors import FederationError, LocalFault

TEXT = "text/plain; charset=utf-8"
CONNECTIONS = 32
# A whole request, not each byte of it, has to be here by then; and a whole answer gone.
REQUEST_S = 10.0
ANSWER_S = 120.0
# What is read of a refused request, so that closing does not throw the answer away with it.
_DRAIN_BYTES = 1 << 20
_DRAIN_S = 1.0
_BUSY = (
    b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nContent-Length: 0\r\n"
    b"Connection: close\r\n\r\n"
)
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One request, its body read whole; header names are in lower case."""

    method: str
    path: str
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = field(default=b"", repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What goes back."""

    status: int
    body: bytes = field(default=b"", repr=False)
    content_type: str = TEXT
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """What is served: a function of requests, the methods that it knows, and the longest body."""

    answer: Callable[[Request], Answer]
    methods: frozenset[str]
    max_body: int = 0


def say(status: HTTPStatus, headers: Mapping[str, str] | None = None) -> Answer:
    """Return an answer that says its status alone."""
    return Answer(status=status, body=f"{status.phrase.lower()}\n".encode(), headers=headers or {})


class WebServer:
    """Serves a site until it is closed."""

    def __init__(
        self,
        host: str,
        port: int,
        site: Site,
        *,
        request_s: float = REQUEST_S,
        connections: int = CONNECTIONS,
    ) -> None:
        """Listen at once; `port` 0 takes a free one. Raise RNM-NET-0001 if the address is not free."""
        handler = type("Connection", (_Connection,), {"site": site, "request_s": request_s})
        try:
            self._server = _Server((host, port), handler, connections)
        except OSError as error:
            raise LocalFault(
                "RNM-NET-0001",
                what=f"{host}:{port} was not opened",
                why=error.strerror or type(error).__name__,
                mend="choose another port, or end the process that holds it",
            ) from None
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.1}, daemon=True
        )
        self._thread.start()

    @property
    def port(self) -> int:
        """The port that it listens on."""
        return int(self._server.server_address[1])

    @property
    def url(self) -> str:
        """Where it listens."""
        host = str(self._server.server_address[0])
        return f"http://{f'[{host}]' if ':' in host else host}:{self.port}"

    def wait(self) -> None:
        """Wait until it is closed."""
        self._thread.join()

    def close(self) -> None:
        """Stop listening; what is being answered ends with the process."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 64
    # A second server on the port must not share it silently.
    allow_reuse_port = False

    def __init__(
        self, address: tuple[str, int], handler: type[BaseHTTPRequestHandler], connections: int
    ) -> None:
        self.address_family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        self._room = threading.BoundedSemaphore(connections)
        super().__init__(address, handler)

    def server_bind(self) -> None:
        # The library's own looks its host's name up: nothing here asks a name server.
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = "", self.server_address[1]

    def process_request(self, request: Any, client_address: Any) -> None:
        if self._room.acquire(blocking=False):
            super().process_request(request, client_address)
            return
        with suppress(OSError):
            request.settimeout(0)
            request.send(_BUSY)
            request.recv(_DRAIN_BYTES)
        self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._room.release()

    def handle_error(self, *_: object) -> None:
        """Log a bug; a connection that broke is the other side's affair."""
        if not isinstance(sys.exception(), OSError):
            _LOG.exception("a request ended in an error of this program")


class _Connection(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    site: Site
    request_s: float

    def handle(self) -> None:
        """Read one request and answer it."""
        with _cut_after(self.connection, self.request_s) as self._in_time:
            self.handle_one_request()

    def finish(self) -> None:
        super().finish()
        with suppress(OSError):
            self.connection.shutdown(socket.SHUT_WR)
            self.connection.settimeout(_DRAIN_S)
            left = _DRAIN_BYTES
            while left > 0 and (data := self.connection.recv(min(left, 65_536))):
                left -= len(data)

    def do_GET(self) -> None:  # the name that the library calls
        """Answer, whatever the method."""
        request = self._request()
        self._send(request if isinstance(request, Answer) else self._judged(request))

    do_HEAD = do_POST = do_OPTIONS = do_GET  # noqa: N815

    def _judged(self, request: Request) -> Answer:
        try:
            return self.site.answer(request)
        except FederationError as error:
            # Its own disk or state; why is not a stranger's to know.
            _LOG.error("%s: %s; %s", error.code, error.what, error.why)
            return say(HTTPStatus.INTERNAL_SERVER_ERROR)

    def _request(self) -> Request | Answer:
        """Return the request, or why it is not read."""
        if self.command not in self.site.methods:
            return self._not_allowed()
        if self.request_version == "HTTP/0.9":
            return say(HTTPStatus.BAD_REQUEST)
        body = self._body()
        if isinstance(body, Answer):
            return body
        headers = {name.lower(): value for name, value in self.headers.items()}
        # As it was spelt: the library folds `//` into `/`, and one file has one path here.
        path = self.requestline.split()[1]
        return Request(method=self.command, path=path, headers=headers, body=body)

    def _body(self) -> bytes | Answer:
        lengths = self.headers.get_all("Content-Length", [])
        if "Transfer-Encoding" in self.headers or len(lengths) > 1:
            # Two readings of where a request ends are how one is smuggled behind another.
            return say(HTTPStatus.BAD_REQUEST)
        if not lengths:
            return b"" if self.command != "POST" else say(HTTPStatus.LENGTH_REQUIRED)
        said = lengths[0]
        if not (said.isascii() and said.isdigit()):
            return say(HTTPStatus.BAD_REQUEST)
        if len(said) > 12 or int(said) > self.site.max_body:
            return say(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
        if self.command != "POST" and int(said):
            return say(HTTPStatus.BAD_REQUEST)
        body = self.rfile.read(int(said))
        return body if len(body) == int(said) else say(HTTPStatus.BAD_REQUEST)

    def _send(self, answer: Answer) -> None:
        self._in_time.cancel()
        with _cut_after(self.connection, ANSWER_S):
            # Without a version the library would leave status line and headers out.
            self.request_version, self.close_connection = self.protocol_version, True
            self.send_response_only(answer.status)
            for name, value in answer.headers.items():
                self.send_header(name, value)
            if answer.body:
                self.send_header("Content-Type", answer.content_type)
            self.send_header("Content-Length", str(len(answer.body)))
            self.send_header("X-Content-Type-Options", "nosniff")
            self.send_header("Connection", "close")
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(answer.body)

    def _not_allowed(self) -> Answer:
        allowed = ", ".join(sorted(self.site.methods))
        return say(HTTPStatus.METHOD_NOT_ALLOWED, {"Allow": allowed})

    def handle_expect_100(self) -> bool:
        """Ask for no body in advance: what is too long is refused all the same."""
        return True

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Answer what the library refuses with its status alone."""
        del message, explain
        self.command = getattr(self, "command", None) or "GET"
        unknown = code == HTTPStatus.NOT_IMPLEMENTED
        self._send(self._not_allowed() if unknown else say(HTTPStatus(code)))

    def log_message(self, *_: object) -> None:
        """Log nothing: who asked for which entry is nobody's business here."""


@contextmanager
def _cut_after(connection: socket.socket, seconds: float) -> Iterator[threading.Timer]:
    """End a connection that takes too long, byte by byte or not at all."""
    timer = threading.Timer(seconds, _cut, (connection,))
    timer.daemon = True
    timer.start()
    try:
        yield timer
    finally:
        timer.cancel()


def _cut(connection: socket.socket) -> None:
    # It may have ended by itself just now.
    with suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
