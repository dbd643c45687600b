"""A report as plain text, for a terminal or a mail. Decides the form only. Pure."""

from collections.abc import Iterator

from audit.legible import visible
from audit.reports.document import Report, Section


def plain(report: Report) -> str:
    """Return the text; `#12` names an entry, whose leaf hash stands at the end."""
    return visible("\n".join(_lines(report))) + "\n"


def _lines(report: Report) -> Iterator[str]:
    yield f"{report.code}  {report.title}"
    yield f"{report.consortium}  {report.origin}  {report.size}  {report.root}"
    for section in report.sections:
        yield ""
        yield f"== {section.title}"
        yield from _section(section)
    yield ""
    for item in report.entries:
        yield f"#{item.row.index:<6} {item.row.leaf} {item.row.type} {item.row.member}"


def _section(section: Section) -> Iterator[str]:
    for item in section.statements:
        yield f"{'!' if item.alarm else '-'} {item.text}{_cites(item.cites)}"
    if section.header:
        yield "  " + " | ".join(section.header)
        for line in section.lines:
            yield "  " + " | ".join(line.cells) + _cites(line.cites)


def _cites(cites: tuple[int, ...]) -> str:
    return "".join(f" #{index}" for index in cites)
