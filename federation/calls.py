"""A call on its way to its handler: admitted, counted, and in a thread where its handler may block.

What a handler is given is a `Call`, never gRPC's context: that is for the loop alone, and for no longer
than its call lasts. Errors with a name cross the wire with it; anything else is logged here, and the
caller is told that there was a fault and no more. A shell module.
"""

import asyncio
import inspect
import logging
import threading
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, suppress
from typing import Any, TypeAlias

from google.protobuf.message import DecodeError

from federation.allowance import Allowance
from fedproto.errors import FederationError, LocalFault
from fedproto.ids import MemberId
from fedproto.transport import to_status  # sets gRPC's cipher suites before gRPC loads

import grpc  # isort: skip

# Who calls a method, from its name and gRPC's context; raises to keep a call out.
Admit: TypeAlias = Callable[[str, Any], MemberId]
Guarded: TypeAlias = Callable[[Any, Any], Awaitable[bytes | None]]
Parse: TypeAlias = Callable[[bytes], Any]
Serialize: TypeAlias = Callable[[Any], bytes]
_LOG = logging.getLogger(__name__)


class Ended(Exception):
    """Nobody waits for this call any more."""


class Call:
    """Whose a call is, and whether it goes on. Thread-safe."""

    def __init__(self, caller: MemberId) -> None:
        self.caller = caller
        self._lock = threading.Lock()
        self._ended = False
        self._callbacks: list[Callable[[], None]] = []

    def is_active(self) -> bool:
        """Whether somebody still waits for it."""
        return not self._ended

    def add_callback(self, callback: Callable[[], None]) -> None:
        """Have something done when it ends, at once if it has."""
        with self._lock:
            if not self._ended:
                self._callbacks.append(callback)
                return
        callback()

    def end(self) -> None:
        """Note that it has ended, once."""
        with self._lock:
            self._ended, callbacks, self._callbacks = True, self._callbacks, []
        for callback in callbacks:
            callback()


class _Line:
    """The messages of a call, for threads; in the loop alone gRPC's context is touched."""

    def __init__(self, call: Call, context: Any) -> None:
        self._call, self._context = call, context
        self._loop = asyncio.get_running_loop()

    def send(self, message: bytes) -> None:
        """Return when gRPC is ready for the next one; raise Ended."""
        asyncio.run_coroutine_threadsafe(self._send(message), self._loop).result()

    def receive(self) -> bytes | None:
        """Return the next message, or nothing at the end, however it came."""
        return asyncio.run_coroutine_threadsafe(self._receive(), self._loop).result()

    async def _send(self, message: bytes) -> None:
        # gRPC promises nothing of a context whose call has ended.
        if not self._call.is_active():
            raise Ended
        try:
            await self._context.write(message)
        except grpc.aio.BaseError:
            raise Ended from None

    async def _receive(self) -> bytes | None:
        if not self._call.is_active():
            return None
        try:
            message = await self._context.read()
        except grpc.aio.BaseError:
            # It ended while this waited.
            return None
        # At the end there is a token instead.
        return message if isinstance(message, bytes) else None


class _Requests(Iterator[Any]):
    """What a caller streams. Keeps no message: they may be large, and the next may be long in coming."""

    def __init__(self, line: _Line, parse: Parse) -> None:
        self._line, self._parse = line, parse

    def __next__(self) -> Any:
        message = self._line.receive()
        if message is None:
            raise StopIteration
        return _parsed(self._parse, message)


class Gate(grpc.aio.ServerInterceptor):  # type: ignore[type-arg]  # no such at run time
    """Puts itself before every handler."""

    def __init__(self, admit: Admit, threads: ThreadPoolExecutor) -> None:
        self._admit, self._threads = admit, threads
        self._allowance = Allowance()
        # By method: one call after the other needs the same.
        self._guarding: dict[str, Any] = {}

    async def intercept_service(self, continuation: Any, details: Any) -> Any:
        """Return the guarded handler of a method, for bytes."""
        method = details.method
        if method not in self._guarding:
            handler = await continuation(details)
            if handler is None:
                return None
            self._guarding[method] = self._guard(method, handler)
        return self._guarding[method]

    def _guard(self, method: str, handler: Any) -> Any:
        name, behaviour = _behaviour_of(handler)
        if inspect.iscoroutinefunction(behaviour):
            run = self._in_loop(handler, behaviour)
        else:
            run = self._in_thread(handler, behaviour)
        return handler._replace(
            request_deserializer=None,
            response_serializer=None,
            **{name: self._guarded(method, run)},
        )

    def _guarded(self, method: str, run: Callable[[Any, Any, Call], Awaitable[Any]]) -> Guarded:
        async def guarded(request: Any, context: Any) -> Any:
            try:
                call = Call(self._admit(method, context))
                try:
                    return await run(request, context, call)
                finally:
                    call.end()
            except FederationError as error:
                await _abort(context, error)
            except Exception:  # noqa: BLE001  # logged, and told without its text
                _LOG.exception("a call of %s failed", method)
                await _abort(context, _fault())

        return guarded

    def _in_loop(self, handler: Any, behaviour: Any) -> Any:
        async def run(request: bytes, _: Any, call: Call) -> Any:
            with self._allowance.call(call.caller):
                answer = await behaviour(_parsed(handler.request_deserializer, request), call)
            return handler.response_serializer(answer)

        return run

    def _in_thread(self, handler: Any, behaviour: Any) -> Any:
        parse: Parse = handler.request_deserializer
        serialize: Serialize = handler.response_serializer

        async def run(request: Any, context: Any, call: Call) -> Any:
            line = _Line(call, context)

            def work() -> bytes | None:
                given = (
                    _Requests(line, parse) if handler.request_streaming else _parsed(parse, request)
                )
                if not handler.response_streaming:
                    return serialize(behaviour(given, call))
                with suppress(Ended), closing(behaviour(given, call)) as answers:
                    for answer in answers:
                        line.send(serialize(answer))
                        # Else it would lie here until there is another one.
                        del answer
                return None

            def done(future: Future[bytes | None]) -> None:
                # Not when the caller hangs up: its handler has the thread until it notices.
                self._allowance.put_back(call.caller)
                if not call.is_active() and not future.cancelled():
                    _note_unheard(future.exception())

            self._allowance.take(call.caller)
            future = self._threads.submit(work)
            future.add_done_callback(done)
            return await asyncio.wrap_future(future)

        return run


def _behaviour_of(handler: Any) -> tuple[str, Any]:
    sides = [
        "stream" if streams else "unary"
        for streams in (handler.request_streaming, handler.response_streaming)
    ]
    name = "_".join(sides)
    return name, getattr(handler, name)


def _parsed(parse: Parse, message: bytes) -> Any:
    try:
        return parse(message)
    except DecodeError:
        raise LocalFault(
            "RNM-FORM-0002",
            what="a call was refused",
            why="its message is not of the format of this method",
            mend="both sides need versions of Renmei that speak the same format",
        ) from None


async def _abort(context: Any, error: FederationError) -> None:
    status, text, metadata = to_status(error)
    await context.abort(status, text, metadata)


def _note_unheard(error: BaseException | None) -> None:
    """Write down a fault that nobody is there to be told of."""
    if error is not None and not isinstance(error, FederationError):
        _LOG.error("a call that had ended failed", exc_info=error)


def _fault() -> LocalFault:
    return LocalFault(
        "RNM-BUG-0001",
        what="a call was not answered",
        why="the coordinator met a fault of its own",
        mend="report it with the coordinator's log of this minute",
    )
