"""The node's own log: one JSON object a line on stderr, with fixed fields and no others.

Decides what a line may say: names, codes and numbers, and the why of a named error, which by its
contract is fit for people and holds no secret. No payload, key, loss, norm or text of the corpus has a
field here. A shell module.
"""

import datetime
import json
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import IO

from fedproto import telemetry
from fedproto.errors import FederationError
from fedproto.ids import MemberId
from fedproto.party import utc_now

_NO_TRACE = "0" * 32
_MAX_WHY = 300


@dataclass(frozen=True, slots=True, kw_only=True)
class Log:
    """Writes lines; `run` and `round_no` label what is about a round."""

    member: MemberId
    stream: IO[str] = field(default_factory=lambda: sys.stderr, repr=False)
    clock: Callable[[], datetime.datetime] = utc_now
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def info(self, event: str, *, run: str = "", round_no: int = 0, count: int = 0) -> None:
        """Say that something happened."""
        self._line("info", event, None, run, round_no, count)

    def refused(
        self, event: str, error: FederationError, *, run: str = "", round_no: int = 0
    ) -> None:
        """Say that something was refused, by its code and why."""
        self._line("warning", event, error, run, round_no, 0)

    def failed(
        self, event: str, error: FederationError, *, run: str = "", round_no: int = 0
    ) -> None:
        """Say that something of this node's own went wrong."""
        self._line("error", event, error, run, round_no, 0)

    def _line(
        self,
        level: str,
        event: str,
        error: FederationError | None,
        run: str,
        round_no: int,
        count: int,
    ) -> None:
        trace_id = telemetry.current().trace_id
        fields = {
            "ts": self.clock().isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "level": level,
            "event": event,
            "code": error.code if error else "",
            "why": error.why[:_MAX_WHY] if error else "",
            "member": self.member,
            "run": run,
            "round": round_no,
            "count": count,
            "trace_id": "" if trace_id == _NO_TRACE else trace_id,
        }
        with self._lock:
            self.stream.write(json.dumps(fields) + "\n")
            self.stream.flush()
