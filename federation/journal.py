"""What happens in a run, for those who watch: kept in memory from its beginning, then live.

Never a member's loss or norm: what secure aggregation hides is not shown here. A shell module.
"""

import threading
from collections.abc import Callable, Iterator

from fedproto.v1.rounds_pb2 import RoundEvent

_WAKE_S = 0.5


class RunJournal:
    """The events of one run. Thread-safe."""

    def __init__(self) -> None:
        self._events: list[RoundEvent] = []
        self._grown = threading.Condition()

    def note(
        self,
        phase: str,
        state: str,
        *,
        round_no: int = 0,
        attempt: int = 0,
        member: str = "",
        code: str = "",
        index: int = -1,
        size: int = 0,
        terminal: bool = False,
    ) -> None:
        """Add an event."""
        with self._grown:
            self._events.append(
                RoundEvent(
                    sequence=len(self._events),
                    round=round_no,
                    attempt=attempt,
                    phase=phase,
                    state=state,
                    member=member,
                    code=code,
                    ledger_index=index,
                    bytes=size,
                    terminal=terminal,
                )
            )
            self._grown.notify_all()

    def follow(self, is_active: Callable[[], bool]) -> Iterator[RoundEvent]:
        """Yield every event from the first to the terminal one, while `is_active()`."""
        position = 0
        while True:
            with self._grown:
                while position == len(self._events):
                    if not is_active():
                        return
                    self._grown.wait(_WAKE_S)
                event = self._events[position]
            yield event
            if event.terminal:
                return
            position += 1
