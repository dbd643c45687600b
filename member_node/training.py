"""Local training in the background: at most one at a time, and never twice for the same round.

Decides nothing about training. When an attempt is aborted for another member's sake, the next attempt at
the round gets the delta that is being made already; it is dropped as soon as the round is over. A shell
module.
"""

import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass

from fedproto import telemetry
from fedproto.errors import FederationError, LocalFault
from fedproto.ids import Digest, RunId
from fedproto.layout import FlatVector
from member_node.ports import Trainer
from member_node.session import TrainedDelta


@dataclass(frozen=True, slots=True, kw_only=True)
class Lesson:
    """What a delta is for: a round of a run, from one global adapter."""

    run: RunId
    round: int
    model_in: Digest


class BackgroundTraining:
    """Runs the trainer in a thread; used by one task at a time."""

    def __init__(self, trainer: Trainer, on_failure: Callable[[], None]) -> None:
        self._trainer = trainer
        self._on_failure = on_failure
        self._lesson: Lesson | None = None
        self._future: Future[TrainedDelta] | None = None

    def start(self, lesson: Lesson, adapter: FlatVector) -> "Future[TrainedDelta]":
        """Return the delta to come; of an earlier attempt at the same round, if it goes well."""
        running = self._future
        if running is not None and lesson == self._lesson and not _failed(running):
            return running
        self._lesson, self._future = lesson, Future()
        threading.Thread(
            target=self._work,
            args=(lesson.round, adapter, self._future, telemetry.traceparent()),
            name="train",
            daemon=True,
        ).start()
        return self._future

    def drop(self) -> None:
        """Forget the delta: its round is over."""
        self._lesson = self._future = None

    def _work(
        self, round_no: int, adapter: FlatVector, future: "Future[TrainedDelta]", parent: str
    ) -> None:
        context = telemetry.parent(parent)
        with telemetry.tracer().start_as_current_span("member.train", context) as span:
            span.set_attribute("round", round_no)
            try:
                future.set_result(self._trainer.train(round_no, adapter))
            except BaseException as error:
                # Whatever it is, the session is told, so that nobody waits for it.
                self._on_failure()
                future.set_exception(_named(error))
                if not isinstance(error, FederationError):
                    raise


def _failed(future: "Future[TrainedDelta]") -> bool:
    return future.done() and future.exception() is not None


def _named(error: BaseException) -> FederationError:
    if isinstance(error, FederationError):
        return error
    return LocalFault(
        "RNM-BUG-0001",
        what="training ended",
        why=type(error).__name__,
        mend="report it with this node's log of this minute",
    )
