"""What a sub-command of `renmei` is to its frame: how it is declared, what it gets, what it answers.

Each package declares its verbs in `<package>/cli.py` with strings alone; the handler named there is
imported when its verb is called, so that an auditor's `renmei` loads neither torch, flwr nor grpc.
Decides nothing; touches nothing. Standard library only.
"""

import argparse
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, Protocol, TypeAlias

from fedproto.errors import Exit

Lang = Literal["ja", "en"]
SubParsers: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"  # noqa: SLF001


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What a handler answers: `data` for `--json`, `text` for people; both go to stdout.

    `next` lists commands worth running now. `exit` differs from OK where the answer is an alarm.
    """

    data: object
    text: str
    warnings: tuple[str, ...] = ()
    next: tuple[str, ...] = ()
    exit: Exit = Exit.OK


class Progress(Protocol):
    """A long step, shown with its rate and the time that is left."""

    def advance(self, steps: float = 1, note: str = "") -> None:
        """Say that `steps` more of the total are done."""

    def close(self) -> None:
        """Say that the step is over."""


class Console(Protocol):
    """What a handler may show while it works; everything but its reply goes to stderr."""

    @property
    def lang(self) -> Lang:
        """The language of the person who reads."""

    def say(self, *, en: str, ja: str) -> str:
        """Return the text of that language."""

    def note(self, text: str) -> None:
        """Show one line."""

    def event(self, data: object, text: str) -> None:
        """Give one datum of a stream now: a line of stdout, NDJSON with `--json`."""

    def progress(self, label: str, total: float, unit: str = "") -> Progress:
        """Start to show a long step."""


Handler: TypeAlias = Callable[[argparse.Namespace, Console], Reply]


@dataclass(frozen=True, slots=True)
class Noun:
    """A noun such as `audit`, to which verbs are added."""

    name: str
    lang: Lang
    epilog: str
    _verbs: SubParsers = field(repr=False)

    def verb(self, name: str, *, handler: str, en: str, ja: str) -> argparse.ArgumentParser:
        """Add a verb; `handler` is `module:function`, imported when the verb is called."""
        text = ja if self.lang == "ja" else en
        parser = self._verbs.add_parser(
            name, help=text, description=text, epilog=self.epilog, allow_abbrev=False
        )
        parser.set_defaults(handler=handler, command=f"{self.name} {name}")
        return parser


class Commands:
    """The registry that `register(commands)` of each package fills."""

    def __init__(self, subparsers: SubParsers, lang: Lang, epilog: str = "") -> None:
        self._subparsers = subparsers
        self._epilog = epilog
        self._nouns: dict[str, Noun] = {}
        self.lang = lang

    def say(self, *, en: str, ja: str) -> str:
        """Return the text of the reader's language, for the help of an argument."""
        return ja if self.lang == "ja" else en

    def noun(self, name: str, *, en: str, ja: str) -> Noun:
        """Return a noun, made on first use: two packages may add verbs to the same one."""
        if name not in self._nouns:
            text = self.say(en=en, ja=ja)
            parser = self._subparsers.add_parser(
                name, help=text, description=text, epilog=self._epilog, allow_abbrev=False
            )
            verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True)
            self._nouns[name] = Noun(name, self.lang, self._epilog, verbs)
        return self._nouns[name]

    def plain(self, name: str, *, handler: str, en: str, ja: str) -> argparse.ArgumentParser:
        """Add a command without a verb, such as `version`."""
        text = self.say(en=en, ja=ja)
        parser = self._subparsers.add_parser(
            name, help=text, description=text, epilog=self._epilog, allow_abbrev=False
        )
        parser.set_defaults(handler=handler, command=name)
        return parser
