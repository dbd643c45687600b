"""Brings acts from the event loop into the ledger: verified by a process, written by the ledger's thread.

While that thread writes, the loop stands still, as long as the disk is quick: two threads that both
want the interpreter wait for each other more than they work. A disk that is not keeps nobody: the loop
goes on, and what is verified meanwhile gathers and is written next. Decides nothing: what an act must
be is said by the charter and by the caller's own check. A shell module.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeAlias

from audit.ledger import Appended, Ledger
from audit.sequencer import MAX_TOGETHER, Job
from federation.company import Company
from federation.signatures import Signatures
from fedproto.statements import SignedEvent, read_event

Check: TypeAlias = Callable[[SignedEvent], None]
# How long a verified act waits for others that are likely to come.
_PATIENCE_S = 0.008
# How long the loop stands still for a batch: many times what a good disk takes.
_STILL_S = 0.02


class _Waiting(NamedTuple):
    """A verified act and who waits for it."""

    job: Job
    answer: "asyncio.Future[Appended]"


class Inbox:
    """Takes acts in one loop, all in the same."""

    def __init__(self, ledger: Ledger, grown: Callable[[], None]) -> None:
        """Use a ledger; `grown` is called after every batch."""
        self._ledger, self._grown = ledger, grown
        self._signatures = Signatures()
        self._company = Company(MAX_TOGETHER)
        self._under_way = 0
        self._verified: list[_Waiting] = []
        self._timer: asyncio.TimerHandle | None = None
        self._late: asyncio.Task[None] | None = None
        self._is_quick = True

    async def admit(self, leaf: bytes, check: Check) -> Appended:
        """Admit an act and wait until it is durable; the same leaf again has the same index.

        `check` sees what was verified before anything comes of it, and raises to refuse it.

        Raises:
            LocalFault: RNM-SIG-*, RNM-FORM-*, RNM-GOV-* it is refused; RNM-DISK-0001, RNM-LEDGER-*.
        """
        self._under_way += 1
        try:
            job = Job(leaf=leaf)
            claimed = self._ledger.claim(job)
            await self._signatures.verify(claimed.claims)
            job.signed = read_event(claimed.open_verified())
            check(job.signed)
            return await self._written(job)
        finally:
            self._under_way -= 1

    def close(self) -> None:
        """End what runs beside; acts are taken all the same. Not for the loop's thread."""
        self._signatures.close()

    async def _written(self, job: Job) -> Appended:
        answer: asyncio.Future[Appended] = asyncio.get_running_loop().create_future()
        self._verified.append(_Waiting(job, answer))
        self._look()
        return await answer

    def _look(self) -> None:
        """Write what is verified, if no more is worth waiting for."""
        if self._late is not None:
            return
        if len(self._verified) >= self._company.expected:
            self._company.gathered(self._under_way)
            self._write()
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_PATIENCE_S, self._give_up)

    def _give_up(self) -> None:
        self._company.missed(len(self._verified))
        self._write()

    def _write(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        batch, self._verified = self._verified[:MAX_TOGETHER], self._verified[MAX_TOGETHER:]
        jobs = [waiting.job for waiting in batch]
        try:
            self._ledger.write(*jobs)
        except Exception as error:  # noqa: BLE001  # whatever it was, their callers wait to hear it
            for job in jobs:
                job.give(error)
        if self._is_quick and _are_done(jobs, _STILL_S):
            self._answer(batch)
            # More than are written together; nobody else might come to have them written.
            if self._verified:
                self._look()
        else:
            self._late = asyncio.get_running_loop().create_task(self._await(batch))

    async def _await(self, batch: Sequence[_Waiting]) -> None:
        loop = asyncio.get_running_loop()
        began = loop.time()
        await asyncio.to_thread(lambda: [waiting.job.await_done() for waiting in batch])
        # Else every batch on a slow disk would have the loop stand still for nothing.
        self._is_quick = loop.time() - began < _STILL_S
        self._late = None
        self._answer(batch)
        if self._verified:
            self._write()

    def _answer(self, batch: Sequence[_Waiting]) -> None:
        for job, answer in batch:
            # Who hung up waits no more.
            if not answer.done():
                _give(job, answer)
        self._grown()


def _are_done(jobs: Sequence[Job], timeout_s: float) -> bool:
    until = time.monotonic() + timeout_s
    return all(job.await_done(max(0.0, until - time.monotonic())) for job in jobs)


def _give(job: Job, answer: "asyncio.Future[Appended]") -> None:
    try:
        answer.set_result(job.wait())
    except Exception as error:  # noqa: BLE001  # as above
        answer.set_exception(error)
