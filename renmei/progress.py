"""A long step on stderr: how far, how fast, how long still.

On a terminal one line is rewritten; elsewhere a plain line is written every few seconds, so that a
log stays readable. The clock is passed in. Nothing but the caller's label and note is shown.
"""

import unicodedata
from collections.abc import Callable
from typing import TextIO

_REDRAW_S = 0.1
_LINE_S = 5.0


def width(text: str) -> int:
    """Return the columns that `text` takes: two for a wide (CJK) character, none for a mark."""
    return sum(
        0 if unicodedata.combining(char) else 2 if unicodedata.east_asian_width(char) in "WF" else 1
        for char in text
    )


def fit(text: str, columns: int) -> str:
    """Cut `text` to at most `columns`, so that a rewritten line never wraps."""
    if width(text) <= columns:
        return text
    kept = ""
    for char in text:
        if width(kept + char) >= columns:
            break
        kept += char
    return kept + "…"


def duration(seconds: float) -> str:
    """Spell a time span: `8s`, `1m05s`, `2h07m`."""
    whole = int(seconds + 0.5)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02d}s"
    return f"{whole // 3600}h{whole % 3600 // 60:02d}m"


class ProgressLine:
    """One long step; the rate is the mean since it began, by a monotonic clock."""

    def __init__(
        self,
        label: str,
        total: float,
        *,
        stream: TextIO,
        clock: Callable[[], float],
        terminal: bool,
        columns: int = 80,
        unit: str = "",
    ) -> None:
        self._label = label
        self._total = total
        self._stream = stream
        self._clock = clock
        self._terminal = terminal
        self._columns = columns
        self._unit = unit
        self._done = 0.0
        self._note = ""
        self._start = clock()
        self._shown = self._start
        self._closed = False
        if not terminal:
            self._write(f"{label} …\n")

    def advance(self, steps: float = 1, note: str = "") -> None:
        """Count `steps` more; show it if the last line is old enough."""
        self._done += steps
        self._note = note
        now = self._clock()
        if now - self._shown >= (_REDRAW_S if self._terminal else _LINE_S):
            self._shown = now
            self._draw(self.render(now))

    def render(self, now: float) -> str:
        """Return the line as it stands at `now`."""
        elapsed = max(now - self._start, 1e-9)
        rate = self._done / elapsed
        parts = [self._label]
        if self._total > 0:
            parts.append(f"{min(self._done / self._total, 1):4.0%}")
            parts.append(f"{self._done:.0f}/{self._total:.0f} {self._unit}".rstrip())
        else:
            parts.append(f"{self._done:.0f} {self._unit}".rstrip())
        if self._done > 0:
            parts.append(f"{rate:.3g} {self._unit}/s".replace(" /s", "/s"))
            if self._total > self._done:
                parts.append(f"ETA {duration((self._total - self._done) / rate)}")
        if self._note:
            parts.append(self._note)
        return "  ".join(parts)

    def close(self) -> None:
        """Write the last line; a second call does nothing."""
        if self._closed:
            return
        self._closed = True
        elapsed = self._clock() - self._start
        note = f"  {self._note}" if self._note else ""
        line = f"{self._label}  {self._done:.0f} {self._unit}".rstrip()
        clear = "\r\x1b[2K" if self._terminal else ""
        self._write(f"{clear}{line}  {duration(elapsed)}{note}\n")

    def _draw(self, line: str) -> None:
        if self._terminal:
            self._write(f"\r\x1b[2K{fit(line, self._columns - 1)}")
        else:
            self._write(f"{line}\n")

    def _write(self, text: str) -> None:
        self._stream.write(text)
        self._stream.flush()
