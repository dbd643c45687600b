"""Verifies acts on their way to the sequencer, in two threads, whoever sent them.

A server has a thread for each call. Were each to verify its own act, all of them would ask for the
interpreter before and after each signature, and wait for each other more than they work. Two are enough:
while one reads, the other's signatures are verified without the interpreter. Decides nothing: what an
act must be is said by `open_next` and by the caller's own check. A shell module.
"""

import queue
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeAlias

from audit.faults import unwritable
from audit.sequencer import MEND_REOPEN, Job, Sequencer
from fedproto.statements import SignedEvent

Check: TypeAlias = Callable[[SignedEvent], None]
_THREADS = 2


class Verifiers:
    """Verify acts and pass them on, or give their callers the refusal. Thread-safe."""

    def __init__(self, read: Callable[[bytes], SignedEvent], sequencer: Sequencer[Any]) -> None:
        self._read, self._sequencer = read, sequencer
        self._waiting: queue.SimpleQueue[tuple[Job, Check] | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._closed = False
        self._threads = [
            threading.Thread(target=self._run, name="verifier", daemon=True)
            for _ in range(_THREADS)
        ]
        for thread in self._threads:
            thread.start()

    def submit(self, job: Job, check: Check) -> None:
        """Have an act verified, then checked, then queued; `job.wait` says what became of it.

        Raises:
            LocalFault: RNM-LEDGER-0002 after `close`.
        """
        with self._lock:
            if self._closed:
                raise unwritable("it is closed", MEND_REOPEN)
            self._waiting.put((job, check))

    def close(self) -> None:
        """Pass on what waits, then stop."""
        with self._lock:
            self._closed = True
        for _ in self._threads:
            self._waiting.put(None)
        for thread in self._threads:
            thread.join()

    def _run(self) -> None:
        item = self._waiting.get()
        while item is not None:
            # Until nothing waits here, the sequencer may expect more for the batch that it gathers.
            with self._sequencer.preparing(), suppress(queue.Empty):
                while item is not None:
                    self._verify(*item)
                    item = self._waiting.get_nowait()
            if item is not None:
                item = self._waiting.get()

    def _verify(self, job: Job, check: Check) -> None:
        try:
            job.signed = self._read(job.leaf)
            check(job.signed)
            self._sequencer.submit(job)
        except Exception as error:  # noqa: BLE001  # whatever it was, its caller waits to hear it
            job.give(error)
