"""The gateway: the only door from outside to the SuperLink, and it opens to the Fleet API alone.

Flower's Control and Runtime APIs stand on the same port without authentication: over them anybody
could list runs and take tasks. Here only `POST /v1/fleet/*` passes; all else is 404. A shell module,
run as a process of its own: `python -m federation.gateway`.
"""

import argparse
import asyncio
import ssl
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

# A Flower message of ours is some tens of kilobytes. Strangers can fill this much of each connection.
MAX_BODY = 1 << 20
_TIMEOUT_S = 60.0
_BODY_S = 30.0
# Hop-by-hop headers (RFC 9110 7.6.1) and those that the next hop sets itself.
_DROPPED = frozenset(
    "connection host keep-alive te trailer transfer-encoding upgrade content-length "
    "proxy-authenticate proxy-authorization".split()
)


def create_app(upstream: str, root: Path) -> Starlette:
    """Return the application that forwards to `https://<upstream>`."""

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        context = ssl.create_default_context(cafile=str(root))
        async with httpx.AsyncClient(
            verify=context, trust_env=False, follow_redirects=False, timeout=_TIMEOUT_S
        ) as client:
            app.state.client = client
            yield

    async def forward(request: Request) -> Response:
        # Whatever fails behind us is a 503: after it a SuperNode tries again. After a 500 it would
        # give up its work for good, while its process stays and looks alive.
        path = request.url.path
        # Dots and encoded characters could mean another path to the SuperLink than to us.
        if not path.replace("/", "").replace("-", "").isalnum() or request.url.query:
            return Response(status_code=404)
        try:
            async with asyncio.timeout(_BODY_S):
                body = await _body(request)
        except TimeoutError:
            return Response(status_code=408)
        if body is None:
            return Response(status_code=413)
        try:
            answer = await request.app.state.client.post(
                f"https://{upstream}{path}", content=body, headers=_kept(request.headers.items())
            )
        except httpx.TransportError:
            return Response(status_code=503)
        if answer.status_code >= httpx.codes.INTERNAL_SERVER_ERROR:
            return Response(status_code=503)
        return Response(
            answer.content, answer.status_code, dict(_kept(answer.headers.multi_items()))
        )

    return Starlette(
        routes=[Route("/v1/fleet/{call:path}", forward, methods=["POST"])], lifespan=lifespan
    )


def _kept(headers: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    return [
        (name, value)
        for name, value in headers
        if name.lower() not in _DROPPED and name.lower() != "content-encoding"
    ]


async def _body(request: Request) -> bytes | None:
    received = bytearray()
    async for block in request.stream():
        received += block
        if len(received) > MAX_BODY:
            return None
    return bytes(received)


def main() -> None:
    """Serve until terminated; write a line when listening."""
    parser = argparse.ArgumentParser(prog="python -m federation.gateway")
    parser.add_argument("--listen", required=True)
    parser.add_argument("--upstream", required=True)
    parser.add_argument("--keys", type=Path, required=True)
    options = parser.parse_args()
    host, _, port = options.listen.rpartition(":")
    app = create_app(options.upstream, options.keys / "root.crt")
    config = uvicorn.Config(
        app,
        host=host,
        port=int(port),
        ssl_keyfile=str(options.keys / "tls.key"),
        ssl_certfile=str(options.keys / "tls.crt"),
        ssl_version=ssl.PROTOCOL_TLS_SERVER,
        access_log=False,
        log_level="warning",
        limit_concurrency=256,
        timeout_keep_alive=75,
        server_header=False,
    )
    config.load()
    assert config.ssl is not None  # noqa: S101  # a key file is always given
    config.ssl.minimum_version = ssl.TLSVersion.TLSv1_3
    server = uvicorn.Server(config)
    server.run()


if __name__ == "__main__":
    main()
