"""A witness over plain HTTP, as C2SP tlog-witness has it: `add-checkpoint`, and what it cosigned last.

Decides routes and content types; `audit.witness` decides what is cosigned, and has persisted it before
an answer leaves. For members that strangers can reach; others attend over a stream of their own.
"""

import re
from http import HTTPStatus

from audit.merkle import HASH_BYTES
from audit.note import MAX_NOTE
from audit.web import TEXT, Answer, Request, Site, WebServer, say
from audit.witness import MAX_PROOF, SIZE_TYPE, Witness

ADD = "/add-checkpoint"
METHODS = frozenset({"GET", "HEAD", "POST"})
# The old size, the proof's lines in base64, an empty line, the checkpoint.
MAX_BODY = 64 + MAX_PROOF * (HASH_BYTES * 2) + MAX_NOTE
_LATEST = re.compile(r"/([0-9a-f]{64})/checkpoint", re.ASCII)


def serve_witness(witness: Witness, host: str = "127.0.0.1", port: int = 0) -> WebServer:
    """Serve a witness; close what is returned to end it. Raise RNM-NET-0001."""
    return WebServer(host, port, site_of(witness))


def site_of(witness: Witness) -> Site:
    """Return the routes of a witness."""

    def answer(request: Request) -> Answer:
        if request.path == ADD:
            return _add(witness, request)
        found = _LATEST.fullmatch(request.path)
        if found is None:
            return say(HTTPStatus.NOT_FOUND)
        if request.method == "POST":
            return say(HTTPStatus.METHOD_NOT_ALLOWED, {"Allow": "GET, HEAD"})
        return _latest(witness, found.group(1))

    return Site(answer=answer, methods=METHODS, max_body=MAX_BODY)


def _add(witness: Witness, request: Request) -> Answer:
    if request.method != "POST":
        return say(HTTPStatus.METHOD_NOT_ALLOWED, {"Allow": "POST"})
    status, body = witness.add_checkpoint(request.body)
    content_type = SIZE_TYPE if status == HTTPStatus.CONFLICT else TEXT
    return Answer(
        status=status,
        body=body,
        content_type=content_type,
        headers={"Cache-Control": "no-store"},
    )


def _latest(witness: Witness, origin_sha256: str) -> Answer:
    note = witness.latest_of(origin_sha256)
    if note is None:
        return say(HTTPStatus.NOT_FOUND)
    return Answer(status=HTTPStatus.OK, body=note, headers={"Cache-Control": "no-cache"})
