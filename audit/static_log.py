"""A published log over HTTP: its checkpoint, tiles and entry bundles, and nothing else.

Decides which paths are answered and how long they may be cached: those of C2SP tlog-tiles, spelt as
there, so that no path leads out of the directory. Trusts the directory's files; readers verify them.
"""

import gzip
import os
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path

from audit import tiles
from audit.publication import CHECKPOINT
from audit.web import TEXT, Answer, Request, Site, WebServer, say
from fedproto.durable import disk_fault
from fedproto.errors import LocalFault
from fedproto.ids import sha256_hex

METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
MAX_FILE = tiles.WIDTH * (tiles.MAX_ENTRY + 2)
# Above it compressing would cost more memory at once than it saves on the way.
_MAX_COMPRESSED = 4 << 20
_WIDTH = r"(?:[1-9]|[1-9][0-9]|1[0-9]{2}|2[0-4][0-9]|25[0-5])"
_TILE = re.compile(
    rf"/tile/(entries|[0-9]|[1-5][0-9]|6[0-3])/(?:x[0-9]{{3}}/){{0,5}}[0-9]{{3}}(?:\.p/{_WIDTH})?",
    re.ASCII,
)
# Any page may read the log: the auditor's browser verifies it by keys of its own.
_OPEN = {"Access-Control-Allow-Origin": "*"}
_FOR_EVER = "public, max-age=31536000, immutable"


def serve_log(directory: Path, host: str = "127.0.0.1", port: int = 0) -> WebServer:
    """Serve a published log's directory, or a mirror's; close what is returned to end it.

    Raises:
        LocalFault: RNM-CONF-0001 it holds no checkpoint; RNM-NET-0001 the address cannot be had.
    """
    if not (directory / CHECKPOINT).is_file():
        raise LocalFault(
            "RNM-CONF-0001",
            what=f"{directory} is not served",
            why=f"it holds no {CHECKPOINT}: it is no published log",
            mend="name the coordinator's `ledger/public`, or a member's `mirror`",
        )
    return WebServer(host, port, Site(answer=StaticLog(directory).answer, methods=METHODS))


@dataclass(frozen=True, slots=True)
class StaticLog:
    """The routes over one directory."""

    directory: Path

    def answer(self, request: Request) -> Answer:
        """Answer a reader."""
        kind = _kind(request.path)
        if not kind:
            return say(HTTPStatus.NOT_FOUND, _OPEN)
        if request.method == "OPTIONS":
            return Answer(status=HTTPStatus.NO_CONTENT, headers=_preflight())
        data = self._read(request.path.removeprefix("/"))
        if data is None:
            return say(HTTPStatus.NOT_FOUND, _OPEN)
        return _found(kind, data, request.headers)

    def _read(self, name: str) -> bytes | None:
        path = self.directory / name
        try:
            handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise disk_fault(path, error) from None
        with os.fdopen(handle, "rb") as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode) or status.st_size > MAX_FILE:
                return None
            return file.read(MAX_FILE)


def _kind(path: str) -> str:
    """Return what lies at a path: `checkpoint`, `entries` or a tile level; empty for any other."""
    if path == f"/{CHECKPOINT}":
        return CHECKPOINT
    match = _TILE.fullmatch(path)
    return match.group(1) if match else ""


def _found(kind: str, data: bytes, headers: Mapping[str, str]) -> Answer:
    zipped = kind == "entries" and len(data) <= _MAX_COMPRESSED and _takes_gzip(headers)
    tag = f'"{sha256_hex(data)[:32]}{"-gzip" if zipped else ""}"'
    extra = {
        **_OPEN,
        "ETag": tag,
        "Cache-Control": "no-cache" if kind == CHECKPOINT else _FOR_EVER,
    }
    if kind == "entries":
        extra["Vary"] = "Accept-Encoding"
    if _names(headers.get("if-none-match", ""), tag):
        return Answer(status=HTTPStatus.NOT_MODIFIED, headers=extra)
    if zipped:
        # Without a time in it: the same bundle is the same bytes.
        data, extra["Content-Encoding"] = gzip.compress(data, mtime=0), "gzip"
    content_type = TEXT if kind == CHECKPOINT else "application/octet-stream"
    return Answer(status=HTTPStatus.OK, body=data, content_type=content_type, headers=extra)


def _takes_gzip(headers: Mapping[str, str]) -> bool:
    for item in headers.get("accept-encoding", "").split(","):
        name, _, parameter = item.strip().lower().partition(";")
        if name.strip() in {"gzip", "*"}:
            quality = parameter.strip().removeprefix("q=")
            return not (quality and quality.strip("0.") == "")
    return False


def _names(header: str, tag: str) -> bool:
    tags = {item.strip().removeprefix("W/") for item in header.split(",")}
    return tag in tags or "*" in tags


def _preflight() -> dict[str, str]:
    return {
        **_OPEN,
        "Access-Control-Allow-Methods": "GET, HEAD",
        "Access-Control-Allow-Headers": "*",
        "Access-Control-Max-Age": "86400",
    }
