"""A report as a value: sections of statements and tables, each with the entries that it rests on.

Decides nothing. Templates (`audit.reports.templates`) say what stands in one; the forms are made by
`audit.reports.page` and `audit.reports.plain`. Pure.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, Protocol

from audit.citation import Citation, Citations

Language = Literal["ja", "en"]


class Say(Protocol):
    """Chooses the text of the reader's language."""

    def __call__(self, *, en: str, ja: str) -> str:
        """Return one of the two."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Statement:
    """One sentence. `alarm` marks what a reader must not pass over."""

    text: str
    cites: tuple[int, ...] = ()
    alarm: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One row of a table."""

    cells: tuple[str, ...]
    cites: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """A heading, its statements, and a table where `header` is not empty."""

    title: str
    statements: tuple[Statement, ...] = ()
    header: tuple[str, ...] = ()
    lines: tuple[Line, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """A report on a log up to one checkpoint; `entries` are all that it cites, with their proofs."""

    code: str
    template: str
    language: Language
    title: str
    consortium: str
    origin: str
    size: int
    root: str
    note: str
    sections: tuple[Section, ...]
    entries: tuple[Citation, ...]


def cited(sections: Iterable[Section], citations: Citations) -> tuple[Citation, ...]:
    """Return every entry that the sections cite, in order, with its proof."""
    indices: set[int] = set()
    for section in sections:
        indices.update(index for item in section.statements for index in item.cites)
        indices.update(index for item in section.lines for index in item.cites)
    return tuple(citations.cite(index) for index in sorted(indices))
