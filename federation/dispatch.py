"""Orders for the Flower ServerApp, over a unix socket of the coordinator's own.

Decides nothing: it hands over sealed authorisations one by one, and tells an attempt at once when a
member's node refused or could not be reached, so that nobody waits for it. A shell module.
"""

import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc

from federation.exchange import Gone, Hub
from fedproto.authorisation import SignedAuthorisation
from fedproto.errors import FederationError
from fedproto.ids import MemberId
from fedproto.v1 import dispatch_pb2_grpc
from fedproto.v1.dispatch_pb2 import NextRequest, NextResponse, ReportRequest, ReportResponse

_WAKE_S = 0.5
# A ServerApp holds one while it waits for its next order.
_THREADS = 64


class Orders:
    """The order that waits for each run's ServerApp, and which runs are over. Thread-safe."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._waiting: dict[str, NextResponse] = {}
        self._finished: set[str] = set()
        self._changed = threading.Condition()

    def give(
        self,
        run: str,
        authorisation: SignedAuthorisation,
        nodes: Mapping[MemberId, bytes],
        *,
        traceparent: str,
        timeout_s: float,
    ) -> None:
        """Give the next order of a run; one that was not fetched yet is replaced."""
        with self._changed:
            self._waiting[run] = NextResponse(
                authorisation=authorisation.raw,
                traceparent=traceparent,
                nodes={str(member): key for member, key in nodes.items()},
                timeout_s=max(1, int(timeout_s)),
                ctx=authorisation.ctx,
            )
            self._changed.notify_all()

    def begin(self, run: str) -> None:
        """Let a run's ServerApp wait for orders, although an earlier start of it has ended."""
        with self._changed:
            self._finished.discard(run)

    def finish(self, run: str) -> None:
        """Let the run's ServerApp end."""
        with self._changed:
            self._waiting.pop(run, None)
            self._finished.add(run)
            self._changed.notify_all()

    def take(self, run: str, context: Any) -> NextResponse:
        """Wait for the next order of a run."""
        with self._changed:
            while context.is_active():
                if run in self._waiting:
                    return self._waiting.pop(run)
                if run in self._finished:
                    break
                self._changed.wait(_WAKE_S)
        return NextResponse(finished=True)

    def report(self, request: ReportRequest) -> None:
        """Tell the attempt who refused; members with a receipt speak for themselves."""
        for reply in request.replies:
            if reply.receipt:
                continue
            member = MemberId(reply.member)
            try:
                lobby = self._hub.find(request.ctx, member)
            except FederationError:
                # The attempt is over: nobody waits for this member any more.
                continue
            # One that has joined speaks for itself too: its stream says when it is gone, whatever
            # becomes of its Flower node.
            if not lobby.has_joined(member):
                lobby.tell(Gone(member, reply.code or "RNM-PROC-0002"))


class DispatchService(dispatch_pb2_grpc.DispatchServicer):
    """Dispatch, for the ServerApp alone."""

    def __init__(self, orders: Orders) -> None:
        self._orders = orders

    def Next(self, request: NextRequest, context: Any) -> NextResponse:  # noqa: N802
        """Wait for an order."""
        return self._orders.take(request.run, context)

    def Report(self, request: ReportRequest, _: Any) -> ReportResponse:  # noqa: N802
        """Take the members' replies."""
        self._orders.report(request)
        return ReportResponse()


def serve(orders: Orders, socket: Path) -> grpc.Server:
    """Listen on a unix socket that only this user can open."""
    socket.unlink(missing_ok=True)
    server = grpc.server(ThreadPoolExecutor(_THREADS, thread_name_prefix="dispatch"))
    dispatch_pb2_grpc.add_DispatchServicer_to_server(DispatchService(orders), server)
    # Within this host, in a 0700 directory: the network never sees it, hence no TLS.
    server.add_insecure_port(f"unix:{socket}")
    server.start()
    socket.chmod(0o600)
    return server
