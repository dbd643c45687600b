"""What a log and a mirror ask over HTTP: a witness to cosign, a static log for its files.

Decides nothing: answers are verified by who asked. Follows no redirect, honours no proxy, reads bounded
answers in bounded time. Without TLS only this machine is spoken to. A shell module.
"""

import http.client
import ipaddress
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from http import HTTPStatus
from urllib.parse import urlsplit

from audit import tiles
from audit.checkpoint import read_text
from audit.mirror import Mirror
from audit.note import MAX_NOTE, parse
from audit.publication import CHECKPOINT
from audit.records import State
from fedproto.errors import LocalFault
from fedproto.ids import sha256_hex

MAX_ANSWER = 16_384
TIMEOUT_S = 10.0
_MAX_BUNDLE = tiles.WIDTH * (2 + tiles.MAX_ENTRY)


@dataclass(frozen=True, slots=True)
class Remote:
    """A prefix URL: https, or http on this machine."""

    url: str

    def __post_init__(self) -> None:
        parts = urlsplit(self.url)
        plain = parts.scheme == "http" and _is_loopback(parts.hostname or "")
        if not (plain or parts.scheme == "https") or not parts.hostname or parts.query:
            raise LocalFault(
                "RNM-CONF-0001",
                what=f"{self.url[:120]!r} was not used",
                why="it is no https URL, nor one of this machine",
                mend="give the prefix of its URL, without query",
            )

    def ask(self, method: str, path: str, body: bytes | None, most: int) -> tuple[int, bytes]:
        """Return status and body; raise RNM-TLS-0001 if no usable answer comes."""
        parts = urlsplit(self.url)
        connection = _connection(parts.scheme, parts.hostname or "", parts.port)
        try:
            connection.request(method, parts.path.rstrip("/") + path, body)
            response = connection.getresponse()
            data = response.read(most + 1)
            short = response.length or 0
        except (OSError, http.client.HTTPException) as error:
            raise self.fault(type(error).__name__) from None
        finally:
            connection.close()
        if len(data) > most:
            raise self.fault(f"its answer has more than {most} bytes")
        if short:
            raise self.fault(f"its answer ends {short} bytes early")
        if HTTPStatus.MULTIPLE_CHOICES <= response.status < HTTPStatus.BAD_REQUEST:
            raise self.fault("it answers with a redirect, which is not followed")
        return response.status, data

    def fault(self, why: str) -> LocalFault:
        """Return the error of a remote that gave no usable answer."""
        return LocalFault(
            "RNM-TLS-0001",
            what=f"{self.url} gave no usable answer",
            why=why,
            mend="see that it runs and that the URL is right, then try again; nothing was taken over",
        )


@dataclass(frozen=True, slots=True)
class HttpWitness:
    """A witness (C2SP tlog-witness) by the URL of its door."""

    remote: Remote

    def add_checkpoint(self, body: bytes) -> tuple[int, bytes]:
        """Return status and body of `add-checkpoint`."""
        return self.remote.ask("POST", "/add-checkpoint", body, MAX_ANSWER)

    def latest(self, origin: str) -> bytes | None:
        """Return the last checkpoint that it cosigned for a log, or nothing."""
        path = f"/{sha256_hex(origin.encode())}/checkpoint"
        status, note = self.remote.ask("GET", path, None, MAX_NOTE)
        return note if status == HTTPStatus.OK else None


@dataclass(frozen=True, slots=True)
class RemoteLog:
    """A published log (C2SP tlog-tiles) by its prefix URL."""

    remote: Remote

    def checkpoint(self) -> bytes:
        """Return the newest published checkpoint, unverified; raise RNM-LEDGER-0006 without one."""
        note = self._get(CHECKPOINT, MAX_NOTE)
        if note is None:
            raise LocalFault(
                "RNM-LEDGER-0006",
                what=f"{self.remote.url} was not read",
                why="it publishes no checkpoint",
                mend="wait until its witnesses have cosigned one, or ask for the right URL",
            )
        return note

    def entries(self, start: int, end: int) -> Iterator[bytes]:
        """Yield the entries [start, end) of a log of at least `end`, bundle by bundle."""
        for n in range(start // tiles.WIDTH, -(-end // tiles.WIDTH)):
            first = n * tiles.WIDTH
            found = self._bundle(n, min(tiles.WIDTH, end - first))
            yield from (entry for index, entry in enumerate(found, start=first) if index >= start)

    def _bundle(self, n: int, width: int) -> Iterator[bytes]:
        first = n * tiles.WIDTH
        data = self._get(tiles.bundle_path(n, width), _MAX_BUNDLE)
        if data is not None:
            yield from tiles.decode_bundle(data, first=first, width=width)
            return
        # The log has grown since: the full bundle took the place of the partial one.
        full = self._get(tiles.bundle_path(n), _MAX_BUNDLE)
        if full is None:
            raise self.remote.fault(f"{tiles.bundle_path(n, width)} is missing")
        entries = tiles.decode_bundle(full, first=first, width=tiles.WIDTH)
        yield from (entry for _, entry in zip(range(width), entries, strict=False))

    def file(self, name: str) -> bytes | None:
        """Return one of the log's files, unverified, or nothing where it has none of that name."""
        return self._get(name, _MAX_BUNDLE)

    def _get(self, name: str, most: int) -> bytes | None:
        status, data = self.remote.ask("GET", f"/{name}", None, most)
        if status == HTTPStatus.NOT_FOUND:
            return None
        if status != HTTPStatus.OK:
            raise self.remote.fault(f"{name}: status {status}")
        return data


def follow(mirror: Mirror, log: RemoteLog) -> State:
    """Bring a mirror up to what a static log publishes; raise as `Mirror.update`."""
    note = log.checkpoint()
    size = read_text(parse(note).text).head.size
    return mirror.update(note, log.entries(mirror.head.size, max(size, mirror.head.size)))


def _connection(scheme: str, host: str, port: int | None) -> http.client.HTTPConnection:
    if scheme == "https":
        context = ssl.create_default_context()
        return http.client.HTTPSConnection(host, port, timeout=TIMEOUT_S, context=context)
    return http.client.HTTPConnection(host, port, timeout=TIMEOUT_S)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
