"""Verifies acts on their way to the sequencer, in a thread of its own, whoever sent them.

Were each caller's thread to verify its own act, all of them would ask for the interpreter before and
after each signature, and wait for each other more than they work. One is enough: it verifies faster
than anything else here takes acts. What waits is verified and passed on together, so that the writer
writes it together. Decides nothing: what an act must be is said by `open_next` and by the caller's own
check. A shell module.
"""

import queue
import threading
from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

from audit.faults import unwritable
from audit.sequencer import MAX_TOGETHER, MEND_REOPEN, Job, Sequencer
from fedproto.statements import SignedEvent

Check: TypeAlias = Callable[[SignedEvent], None]


class Intake:
    """Verifies acts and passes them on, or gives their callers the refusal. Thread-safe."""

    def __init__(self, read: Callable[[bytes], SignedEvent], sequencer: Sequencer[Any]) -> None:
        self._read, self._sequencer = read, sequencer
        self._waiting: queue.SimpleQueue[tuple[Job, Check] | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="verifier", daemon=True)
        self._thread.start()

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
        self._waiting.put(None)
        self._thread.join()

    def _run(self) -> None:
        while (item := self._waiting.get()) is not None:
            sweep = list(self._sweep(item))
            if sweep:
                self._pass_on(sweep)

    def _sweep(self, item: tuple[Job, Check]) -> Iterator[Job]:
        """Verify one act and those that wait behind it; yield the ones that hold."""
        # What is verified waits for what is not, so there are so many. All count: else who sends nothing
        # but forgeries would hold up everybody's act.
        for left in reversed(range(MAX_TOGETHER)):
            if self._verify(*item):
                yield item[0]
            if not left or self._waiting.empty():
                return
            following = self._waiting.get()
            if following is None:
                # The end, behind which nothing is put: `_run` is to see it.
                self._waiting.put(None)
                return
            item = following

    def _verify(self, job: Job, check: Check) -> bool:
        try:
            job.signed = self._read(job.leaf)
            check(job.signed)
        except Exception as error:  # noqa: BLE001  # whatever it was, its caller waits to hear it
            job.give(error)
            return False
        return True

    def _pass_on(self, sweep: list[Job]) -> None:
        try:
            self._sequencer.submit(*sweep)
        except Exception as error:  # noqa: BLE001  # as above
            for job in sweep:
                job.give(error)
