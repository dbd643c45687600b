"""What one side of a session has to say, over as many streams as it takes.

A session outlives its streams: when a connection breaks, the member opens another one, each side says
how many frames it has taken, and the other goes on with the next. So a frame arrives once and in order,
and what is sent again is the same frame. Frames are kept until the other side has taken them. Shared by
the coordinator and the members; thread-safe. A shell module.
"""

import secrets
import threading
from collections import deque
from collections.abc import Iterator
from typing import Generic, TypeVar

SESSION_BYTES = 16
# How long a side waits for the next stream when one broke. A partition of 90 s is survived even where
# it is noticed late, by an unanswered keepalive.
RESUME_S = 120.0

T = TypeVar("T")


def new_session() -> bytes:
    """Return the name of a session: nobody else can go on with it."""
    return secrets.token_bytes(SESSION_BYTES)


class Outbox(Generic[T]):
    """Numbered frames; one stream at a time takes them."""

    def __init__(self) -> None:
        self._kept: deque[T] = deque()
        # The number of the first one kept, and of the next one to be taken by the stream.
        self._first = 0
        self._next = 0
        self._stream = 0
        self._ended = False
        self._changed = threading.Condition()

    def put(self, *items: T) -> None:
        """Say something more; after the end nothing is added."""
        with self._changed:
            if not self._ended:
                self._kept.extend(items)
                self._changed.notify_all()

    def end(self) -> None:
        """End the session once everything was taken."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    @property
    def ended(self) -> bool:
        """Whether nothing more is going to be said."""
        return self._ended

    @property
    def untaken(self) -> int:
        """How many items no stream has taken yet."""
        with self._changed:
            return self._end - self._next

    def settle(self, taken: int) -> None:
        """Forget what the other side has: its first `taken` items; ValueError if it has not got them."""
        with self._changed:
            if taken > self._next:
                raise ValueError(f"{taken} frames were taken of {self._next} that were sent")
            while self._first < taken:
                self._kept.popleft()
                self._first += 1

    def attach(self, taken: int) -> int:
        """Begin another stream after the first `taken` items and return it; the one before is over.

        Raises:
            ValueError: there is no such place, or what follows it is forgotten.
        """
        with self._changed:
            if not self._first <= taken <= self._end:
                raise ValueError(f"no stream goes on at {taken} of {self._first} to {self._end}")
            self._next = taken
            self._stream += 1
            self._changed.notify_all()
            return self._stream

    def detach(self, stream: int) -> None:
        """End a stream, if it is still the newest one; what it has not taken waits for the next."""
        with self._changed:
            if self._stream == stream:
                self._stream += 1
                self._changed.notify_all()

    def items(self, stream: int) -> Iterator[T]:
        """Yield what is to be said, until the end or until another stream takes over."""
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._is_over(stream) or self._next < self._end)
                if self._stream != stream or self._next == self._end:
                    return
                item = self._kept[self._next - self._first]
                self._next += 1
            yield item

    def _is_over(self, stream: int) -> bool:
        return self._stream != stream or self._ended

    @property
    def _end(self) -> int:
        return self._first + len(self._kept)
