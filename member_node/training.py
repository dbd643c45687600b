"""Local training in the background: at most one at a time, and never twice for the same round.

Decides nothing about training. When an attempt is aborted for another member's sake, the next attempt at
the round gets the delta that is being made already; it is dropped as soon as the round is over. A shell
module.
"""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
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
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="train")

    def start(self, lesson: Lesson, adapter: FlatVector) -> "Future[TrainedDelta]":
        """Return the delta to come; of an earlier attempt at the same round, if it goes well."""
        running = self._future
        if running is not None and lesson == self._lesson and not _failed(running):
            return running
        future: Future[TrainedDelta] = Future()
        self._lesson, self._future = lesson, future
        work = self._pool.submit(self._work, lesson.round, adapter, telemetry.traceparent())
        work.add_done_callback(lambda done: self._hand_over(done, future))
        return future

    def drop(self) -> None:
        """Forget the delta: its round is over."""
        self._lesson = self._future = None

    def close(self) -> None:
        """Take no more lessons."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _work(self, round_no: int, adapter: FlatVector, parent: str) -> TrainedDelta:
        context = telemetry.parent(parent)
        with telemetry.tracer().start_as_current_span(
            "member.train", context, record_exception=False
        ) as span:
            span.set_attribute("round", round_no)
            return self._trainer.train(round_no, adapter)

    def _hand_over(self, done: "Future[TrainedDelta]", future: "Future[TrainedDelta]") -> None:
        """Pass on the delta or a named error; what Python says of a failure may quote the data."""
        error = None if done.cancelled() else done.exception()
        if done.cancelled() or error is not None:
            self._on_failure()
            future.set_exception(_named(error))
        else:
            future.set_result(done.result())


def _failed(future: "Future[TrainedDelta]") -> bool:
    return future.done() and future.exception() is not None


def _named(error: BaseException | None) -> FederationError:
    if isinstance(error, FederationError):
        return error
    return LocalFault(
        "RNM-BUG-0001",
        what="training ended",
        why=type(error).__name__,
        mend="report it with this node's log of this minute",
    )
