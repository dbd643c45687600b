"""The coordinator's gRPC server: one event loop waits for all calls, threads do what blocks.

A loop answers a call in two thirds of the time that a server with a thread for each takes. A handler
that is a coroutine function runs in the loop and must not block; any other one runs in a thread, and
its stream holds that thread for as long as it lasts. Decides nothing: `Admit` says whose a call is, and
a handler sees no call that was not admitted. A shell module.
"""

import asyncio
import threading
from collections.abc import Coroutine, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any, TypeVar

import uvloop

from federation.calls import Admit, Gate
from fedproto.transport import SERVER_OPTIONS  # sets gRPC's cipher suites before gRPC loads

import grpc  # isort: skip

# Streams hold a thread each: sessions, witnesses and watchers of 64 members, and calls beside them.
_THREADS = 256
T = TypeVar("T")


class _Runtime:
    """The loop of this process, and the threads beside it.

    One loop for all servers: gRPC has one poller in a process, and wakes every loop by it.
    """

    def __init__(self) -> None:
        self.threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="rpc")
        # 6 % more acts than with asyncio's own (`python benchmarks/ledger_service.py`).
        self.loop: asyncio.AbstractEventLoop = uvloop.new_event_loop()
        self.loop.set_default_executor(self.threads)
        threading.Thread(target=self.loop.run_forever, name="rpc-loop", daemon=True).start()
        # One more user of gRPC's poller than there are servers, for good. With its last user it would be
        # taken from the loop, in whatever thread let go of that one, and the loop is for one thread only.
        self.run(_hold_poller())

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Have the loop do something, and wait for it."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result()


async def _hold_poller() -> None:
    grpc.aio.init_grpc_aio()  # type: ignore[attr-defined]  # the stubs do not know it


_starting = threading.Lock()


def _runtime() -> _Runtime:
    # A cache alone would let two threads that are first make two.
    with _starting:
        return _started()


_started = cache(_Runtime)


class Server:
    """A gRPC server whose every method is behind a gate; what it offers can be called by any thread."""

    def __init__(
        self, admit: Admit, options: Sequence[tuple[str, Any]] = tuple(SERVER_OPTIONS)
    ) -> None:
        self._runtime = _runtime()
        gate = Gate(admit, self._runtime.threads)

        async def made() -> grpc.aio.Server:
            # In the loop that it is going to run in.
            return grpc.aio.server(interceptors=[gate], options=list(options))

        self._server = self._runtime.run(made())

    def add_generic_rpc_handlers(self, handlers: Sequence[Any]) -> None:
        """Serve what handlers find; for the functions that protoc makes."""
        self._server.add_generic_rpc_handlers(tuple(handlers))

    def add_registered_method_handlers(self, service: str, handlers: Mapping[str, Any]) -> None:
        """Do nothing, for the functions that protoc makes: the generic handlers serve these, too.

        gRPC would wait for each registered method on its own, with each call for all of them again.
        """

    def add_secure_port(self, address: str, credentials: grpc.ServerCredentials) -> int:
        """Listen; return the port, or 0."""
        return int(self._server.add_secure_port(address, credentials))

    def start(self) -> None:
        """Take calls."""
        self._runtime.run(self._server.start())

    def stop(self, grace_s: float | None = None) -> None:
        """Take no more calls, end those under way after `grace_s`, and return when all have ended."""
        self._runtime.run(self._server.stop(grace_s))
