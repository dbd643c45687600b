"""Where a command's words go: data to stdout, everything else to stderr, in one of two languages.

Decides the form only. The JSON envelope `{schema, status, data, warnings, next}` and the error block
are the contract that scripts and people rely on; both are shown in README.
"""

import json
import shutil
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, TextIO

from fedproto.errors import CODES, Exit, FederationError
from renmei.progress import ProgressLine

if TYPE_CHECKING:
    from fedproto.command import Lang, Progress, Reply

_LABELS = {
    "en": ("error", "what", "why ", "mend", "more"),
    "ja": ("エラー", "何が", "なぜ", "対処", "詳細"),
}


def wants_colour(stream: TextIO, environ: Mapping[str, str]) -> bool:
    """Say whether escape sequences may be written to `stream` (no-color.org)."""
    if environ.get("NO_COLOR") or environ.get("TERM") == "dumb":
        return False
    return stream.isatty()


class Terminal:
    """The console of one invocation."""

    def __init__(
        self,
        *,
        out: TextIO,
        err: TextIO,
        environ: Mapping[str, str],
        clock: Callable[[], float],
        lang: "Lang",
        as_json: bool,
    ) -> None:
        self._out = out
        self._err = err
        self._clock = clock
        self._lang = lang
        self._json = as_json
        self._colour = wants_colour(err, environ)
        self._animate = err.isatty() and environ.get("TERM") != "dumb"
        self._streamed = False

    @property
    def lang(self) -> "Lang":
        """The language of the person who reads."""
        return self._lang

    def say(self, *, en: str, ja: str) -> str:
        """Return the text of that language."""
        return ja if self._lang == "ja" else en

    def note(self, text: str) -> None:
        """Show one line on stderr."""
        self._err.write(f"{text}\n")
        self._err.flush()

    def event(self, data: object, text: str) -> None:
        """Write one datum of a stream to stdout at once."""
        self._streamed = True
        line = json.dumps({"data": data, "terminal": False}, ensure_ascii=False)
        self._out.write(f"{line if self._json else text}\n")
        self._out.flush()

    def progress(self, label: str, total: float, unit: str = "") -> "Progress":
        """Start to show a long step on stderr."""
        return ProgressLine(
            label,
            total,
            stream=self._err,
            clock=self._clock,
            terminal=self._animate,
            columns=shutil.get_terminal_size().columns,
            unit=unit,
        )

    def deliver(self, command: str, reply: "Reply") -> None:
        """Write a reply: the envelope with `--json`, else its text, warnings and next commands."""
        if self._json:
            status = "ok" if reply.exit is Exit.OK else "error"
            self._envelope(command, status, reply.data, reply.warnings, reply.next)
            return
        if reply.text:
            self._out.write(f"{reply.text}\n")
            self._out.flush()
        for warning in reply.warnings:
            self.note(f"{self.say(en='warning', ja='警告')}  {warning}")
        if reply.next:
            self.note("\n".join([self.say(en="next:", ja="次のコマンド:"), *_indent(reply.next)]))

    def fail(self, command: str, error: FederationError, support: str = "") -> None:
        """Write the error block, and with `--json` the envelope of a failure as well."""
        if self._json:
            data = {"code": error.code, "what": error.what, "why": error.why, "mend": error.mend}
            more = (f"renmei explain {error.code}",)
            self._envelope(command, "error", {**data, "support": support}, (), more)
        self.note(self.block(error, support))

    def block(self, error: FederationError, support: str = "") -> str:
        """Return the error block: code and both titles, what, why, mend, more."""
        code = CODES[error.code]
        title, what, why, mend, more = _LABELS[self._lang]
        titles = (code.ja, code.en) if self._lang == "ja" else (code.en, code.ja)
        head = f"{title} {error.code}  {titles[0]} / {titles[1]}"
        if self._colour:
            head = f"\x1b[1;31m{head}\x1b[0m"
        tail = f"renmei explain {error.code}" + (f"    support id {support}" if support else "")
        rows = ((what, error.what), (why, error.why), (mend, error.mend), (more, tail))
        return "\n".join([head, *(f"  {label}   {text}" for label, text in rows)])

    def _envelope(
        self,
        command: str,
        status: str,
        data: object,
        warnings: tuple[str, ...],
        following: tuple[str, ...],
    ) -> None:
        envelope: dict[str, object] = {
            "schema": f"renmei.{command.replace(' ', '.') or 'main'}/v1",
            "status": status,
            "data": data,
            "warnings": list(warnings),
            "next": list(following),
        }
        if self._streamed:
            envelope["terminal"] = True
        self._out.write(json.dumps(envelope, ensure_ascii=False) + "\n")
        self._out.flush()


def _indent(lines: tuple[str, ...]) -> list[str]:
    return [f"  {line}" for line in lines]
