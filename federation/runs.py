"""The runs that this coordinator drives: started by an administrator, resumed after a restart.

Decides that a run starts once, and only under a mandate in its term. "Started" is a durable file, so a
crash between the answer and the first entry loses nothing. A shell module.
"""

import threading
from collections.abc import Callable
from pathlib import Path

from audit.records import Logged
from federation.journal import RunJournal
from federation.register import Register
from federation.rounds.run import RunDriver
from fedproto.durable import make_private_directory, write_atomic
from fedproto.errors import LocalFault
from fedproto.events.rounds import RunApproved
from fedproto.ids import RunId, is_run_id

Drive = Callable[[RunId, RunJournal], RunDriver]


class Runs:
    """Starts, stops and resumes runs. Thread-safe."""

    def __init__(self, directory: Path, register: Register, make: Drive) -> None:
        make_private_directory(directory)
        self._directory = directory
        self._register = register
        self._make = make
        self._lock = threading.Lock()
        self._drivers: dict[RunId, RunDriver] = {}
        self._journals: dict[RunId, RunJournal] = {}
        self._threads: dict[RunId, threading.Thread] = {}

    def start(self, run: str, now_ms: int) -> None:
        """Start a run; raise RNM-CONSENT-0001, -0002, RNM-GOV-0004 or RNM-ROUND-0003."""
        mandate = self._mandate(run)
        stop = self._register.ledger.state.stopped(RunId(run))
        if stop is not None:
            raise LocalFault(
                "RNM-GOV-0004",
                what=f"run {run[:8]} was not started",
                why=f"work is stopped by entry {stop.index}, of {stop.member}",
                mend="have the members vote to resume: `renmei govern propose emergency.resume`",
            )
        if not mandate.body.not_before <= now_ms < mandate.body.not_after:
            raise LocalFault(
                "RNM-CONSENT-0002",
                what=f"run {run[:8]} was not started",
                why="its mandate is outside its term",
                mend="propose the plan again",
            )
        with self._lock:
            if (self._directory / f"{run}.started").exists():
                self._take_up(run)
            write_atomic(self._directory / f"{run}.started", b"")
            self._launch(RunId(run))

    def _take_up(self, run: str) -> None:
        """Let a run that a fault ended begin again; refuse one under way, finished or stopped."""
        ended = self._directory / f"{run}.ended"
        halted = (self._directory / f"{run}.halted").exists()
        if halted or not ended.exists() or not ended.read_bytes():
            raise LocalFault(
                "RNM-ROUND-0003",
                what=f"run {run[:8]} was not started",
                why="it was started before, and no fault ended it",
                mend=f"follow it with `renmei run watch {run[:8]}`",
            )
        if RunId(run) in self._threads:
            # Its file is there already; its last words follow at once.
            self._threads[RunId(run)].join()
        self._journals[RunId(run)] = RunJournal()
        ended.unlink()

    def resume(self) -> None:
        """Go on with every run that was started and has not ended."""
        with self._lock:
            for path in sorted(self._directory.glob("*.started")):
                if not path.with_suffix(".ended").exists():
                    self._launch(RunId(path.stem))

    def stop(self, run: str) -> None:
        """Let a run end after the round in progress."""
        self._mandate(run)
        driver = self._drivers.get(RunId(run))
        if driver is None:
            raise LocalFault(
                "RNM-CONSENT-0001",
                what=f"run {run[:8]} was not stopped",
                why="it is not under way",
                mend="see what is with `renmei run list`",
            )
        driver.halt()

    def forget_flower(self) -> None:
        """Have every driver start a new Flower run: Flower was started again."""
        with self._lock:
            for driver in self._drivers.values():
                driver.forget_flower()

    def journal(self, run: str) -> RunJournal:
        """Return what happened in a run since this coordinator started, or how it had ended."""
        self._mandate(run)
        with self._lock:
            if RunId(run) not in self._journals:
                self._journals[RunId(run)] = self._remembered(run)
            return self._journals[RunId(run)]

    def _remembered(self, run: str) -> RunJournal:
        """Return a journal that says how a run ended before this process; else an empty one."""
        journal = RunJournal()
        ended = self._directory / f"{run}.ended"
        if ended.exists():
            code = ended.read_text()
            halted = (self._directory / f"{run}.halted").exists()
            state = "aborted" if code else "stopped" if halted else "finished"
            journal.note("run", state, code=code, terminal=True)
        return journal

    def join(self) -> None:
        """Wait until every driver has ended; the caller has told them to."""
        for thread in list(self._threads.values()):
            thread.join()

    def _launch(self, run: RunId) -> None:
        driver = self._make(run, self._journals.setdefault(run, RunJournal()))
        self._drivers[run] = driver
        thread = threading.Thread(target=driver.drive, name=f"run-{run[:8]}")
        self._threads[run] = thread
        thread.start()

    def _mandate(self, run: str) -> Logged[RunApproved]:
        mandate = self._register.ledger.state.mandate(RunId(run)) if is_run_id(run) else None
        if mandate is None:
            raise LocalFault(
                "RNM-CONSENT-0001",
                what=f"run {run[:8]} was refused",
                why="the ledger holds no mandate for it",
                mend="propose it with `renmei run propose`, and have the members vote",
            )
        return mandate
