"""A small HTTP server that strangers may talk to: bounded in threads, bytes and time.

Decides nothing of what is served. Only what a site answers leaves; no version, no directory listing, no
redirect. Bound to loopback unless told otherwise: TLS belongs to the proxy before it. A shell module.
"""

import socket
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

from fedproto.errors import FederationError, LocalFault

TEXT = "text/plain; charset=utf-8"
THREADS = 32
TIMEOUT_S = 10.0
_MAX_PATH = 2_048


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


def say(status: HTTPStatus, **headers: str) -> Answer:
    """Return an answer that says its status alone; `_` in a header's name stands for `-`."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Answer(status=status, body=f"{status.phrase.lower()}\n".encode(), headers=named)


class WebServer:
    """Serves a site until it is closed."""

    def __init__(self, host: str, port: int, site: Site, *, timeout_s: float = TIMEOUT_S) -> None:
        """Listen at once; `port` 0 takes a free one. Raise RNM-NET-0001 if the address is not free."""
        try:
            self._server = _Server((host, port), _connection_of(site, timeout_s), timeout_s)
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
        host, port = self._server.server_address[:2]
        return f"http://{host!s}:{port}"

    def wait(self) -> None:
        """Wait until it is closed."""
        self._thread.join()

    def close(self) -> None:
        """Stop listening and end what is open."""
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
        self, address: tuple[str, int], handler: type[BaseHTTPRequestHandler], timeout_s: float
    ) -> None:
        self._room = threading.BoundedSemaphore(THREADS)
        self._timeout_s = timeout_s
        super().__init__(address, handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        # Who holds every thread gets no more of them; others wait in the kernel's queue.
        if not self._room.acquire(timeout=self._timeout_s):
            self.shutdown_request(request)
            return
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        # Each read has a time limit; this one is for the connection, against a byte every nine seconds.
        deadline = threading.Timer(self._timeout_s, _cut, (request,))
        deadline.daemon = True
        deadline.start()
        try:
            super().process_request_thread(request, client_address)
        finally:
            deadline.cancel()
            self._room.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of a connection that broke: it is the other side's affair."""


def _cut(connection: socket.socket) -> None:
    """End a connection that took too long, byte by byte or not at all."""
    try:
        connection.shutdown(socket.SHUT_RDWR)
    except OSError:
        # It ended by itself just now.
        return


class _Connection(BaseHTTPRequestHandler):
    """One request a connection: nothing waits, nothing is smuggled behind another."""

    protocol_version = "HTTP/1.0"
    site: Site

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
            return Answer(status=500, body=f"{error.code}\n".encode())

    def _request(self) -> Request | Answer:
        """Return the request, or why it is not read."""
        if self.command not in self.site.methods:
            allowed = ", ".join(sorted(self.site.methods))
            return say(HTTPStatus.METHOD_NOT_ALLOWED, Allow=allowed)
        if len(self.path) > _MAX_PATH:
            return say(HTTPStatus.REQUEST_URI_TOO_LONG)
        body = self._body() if self.command == "POST" else b""
        if isinstance(body, Answer):
            return body
        headers = {name.lower(): value for name, value in self.headers.items()}
        return Request(method=self.command, path=self.path, headers=headers, body=body)

    def _body(self) -> bytes | Answer:
        said = self.headers.get("Content-Length", "")
        if "Transfer-Encoding" in self.headers or not said.isdigit() or len(said) > 12:
            return say(HTTPStatus.LENGTH_REQUIRED)
        if int(said) > self.site.max_body:
            return say(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
        body = self.rfile.read(int(said))
        return body if len(body) == int(said) else say(HTTPStatus.BAD_REQUEST)

    def _send(self, answer: Answer) -> None:
        self.send_response_only(answer.status)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        if answer.body:
            self.send_header("Content-Type", answer.content_type)
        self.send_header("Content-Length", str(len(answer.body)))
        self.send_header("X-Content-Type-Options", "nosniff")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(answer.body)

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Answer a malformed request with its status alone."""
        del message, explain
        self.command = getattr(self, "command", None) or "GET"
        self._send(say(HTTPStatus(code)))

    def log_message(self, *_: object) -> None:
        """Log nothing: who asked for which entry is nobody's business here."""


def _connection_of(site: Site, timeout_s: float) -> type[_Connection]:
    return type("Connection", (_Connection,), {"site": site, "timeout": timeout_s})
