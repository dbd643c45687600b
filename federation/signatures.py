"""Verifies signatures beside the event loop: in a process of its own, or else in a thread.

A signature takes a quarter of a millisecond in which a thread has no need of the interpreter, but it
waits for it before and after, and whoever it takes it from waits as well. A process verifies while the
loop goes on. It is worth its memory where acts come together, so it is started then. Whatever becomes
of it, nothing is refused or lost for that: claims are verified here wherever it does not say that they
hold. A shell module.
"""

import asyncio
import logging
import socket
import subprocess
import sys
from collections import deque
from collections.abc import Sequence
from contextlib import closing
from typing import cast

from federation.signature_worker import HOLDS, encode
from fedproto.envelope import Claim
from fedproto.identity import SIGNATURE_BYTES

# So many under way at once are worth a process.
_COMPANY = 4
# Between two starts, should it not live.
_PAUSE_S = 10.0
# Who is silent for so long, whatever was asked, is stopped.
_SILENCE_S = 5.0
_LOG = logging.getLogger(__name__)


class _Line(asyncio.Protocol):
    """What was asked of the process, and its answers, in order."""

    def __init__(self) -> None:
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._asked: deque[asyncio.Future[bool]] = deque()
        self._transport: asyncio.Transport | None = None
        self._oldest: asyncio.Future[bool] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # A socket's is one; uvloop's does not inherit from it.
        self._transport = cast(asyncio.Transport, transport)

    def ask(self, claim: Claim) -> "asyncio.Future[bool]":
        """Return whether a claim holds, once that is known; no if the process ends before."""
        answer: asyncio.Future[bool] = self.ended.get_loop().create_future()
        if self._transport is None or len(claim.signature) != SIGNATURE_BYTES:
            answer.set_result(False)
        else:
            self._asked.append(answer)
            self._transport.write(encode(claim))
        return answer

    def data_received(self, data: bytes) -> None:
        for said in data:
            if not self._asked:
                # It answers what nobody asked: none of its answers is worth anything.
                self.close()
                return
            _give(self._asked.popleft(), holds=said == HOLDS)

    def connection_lost(self, _: Exception | None) -> None:
        self._transport = None
        while self._asked:
            _give(self._asked.popleft(), holds=False)
        self.ended.set_result(None)

    def look(self) -> None:
        """Give up on a process that has not answered anything since the last look."""
        oldest = self._asked[0] if self._asked else None
        if oldest is not None and oldest is self._oldest:
            self.close()
        self._oldest = oldest

    def close(self) -> None:
        """Let the process end."""
        if self._transport is not None:
            self._transport.abort()


def _give(answer: "asyncio.Future[bool]", *, holds: bool) -> None:
    # Who hung up waits no more.
    if not answer.done():
        answer.set_result(holds)


class Signatures:
    """Verifies what coroutines of one loop ask it to."""

    def __init__(self) -> None:
        self._under_way = 0
        self._line: _Line | None = None
        self._keeping: asyncio.Task[None] | None = None
        self._due = 0.0
        self._closed = False

    async def verify(self, claims: Sequence[Claim]) -> None:
        """Return if every claim holds; raise RNM-SIG-0001."""
        self._under_way += 1
        try:
            if not await self._hold(claims):
                # Not asked, not answered or refused: the last word is spoken here, by name.
                await asyncio.to_thread(_verify, claims)
        finally:
            self._under_way -= 1

    async def _hold(self, claims: Sequence[Claim]) -> bool:
        if self._line is None:
            self._start()
            return False
        # All at once, then their answers.
        answers = [self._line.ask(claim) for claim in claims]
        return all([await answer for answer in answers])

    def _start(self) -> None:
        loop = asyncio.get_running_loop()
        idle = self._keeping is None and loop.time() >= self._due
        if self._under_way >= _COMPANY and idle and not self._closed:
            self._due = loop.time() + _PAUSE_S
            self._keeping = loop.create_task(self._keep())

    async def _keep(self) -> None:
        """Have a process, until it ends."""
        try:
            process, ours = await asyncio.to_thread(_spawn)
        except OSError as error:
            _LOG.warning("no process to verify signatures: %s; threads do it", error)
            self._keeping = None
            return
        try:
            loop = asyncio.get_running_loop()
            _, self._line = await loop.create_connection(_Line, sock=ours)
            if self._closed:
                self._line.close()
            while not self._line.ended.done():
                await asyncio.wait([self._line.ended], timeout=_SILENCE_S)
                self._line.look()
        finally:
            self._line = self._keeping = None
            await asyncio.to_thread(_end, process)
        if not self._closed:
            _LOG.warning("the process that verifies signatures ended; threads do it for a while")

    def close(self) -> None:
        """End the process, and start none; what is asked still is verified. Not for the loop's thread."""
        self._closed = True
        keeping = self._keeping
        if keeping is not None:
            asyncio.run_coroutine_threadsafe(self._finish(keeping), keeping.get_loop()).result()

    async def _finish(self, keeping: "asyncio.Task[None]") -> None:
        if self._line is not None:
            self._line.close()
        await keeping


def _verify(claims: Sequence[Claim]) -> None:
    for claim in claims:
        claim.verify()


def _spawn() -> tuple["subprocess.Popen[bytes]", socket.socket]:
    """Start the process; return it and our end of its line."""
    ours, theirs = socket.socketpair()
    command = [sys.executable, "-P", "-m", "federation.signature_worker"]
    with closing(theirs):
        try:
            # In a session of its own: what ends a coordinator at a terminal ends it by its line.
            process = subprocess.Popen(  # noqa: S603  # our own interpreter and module
                command, stdin=theirs.fileno(), stdout=subprocess.DEVNULL, start_new_session=True
            )
        except OSError:
            ours.close()
            raise
    return process, ours


def _end(process: "subprocess.Popen[bytes]") -> None:
    # It keeps nothing that could be lost.
    process.kill()
    process.wait()
