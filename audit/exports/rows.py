"""Entries as JSON Lines and as CSV, for tools that know nothing of this ledger.

Decides the form only. A JSON line holds the entry's very bytes, so its leaf hash can be made again. A
CSV cell never starts a formula. Implements RFC 4180 with CRLF. Pure.
"""

import csv
import io
import json
from collections.abc import Iterable, Sequence

from audit.citation import Citations, Row
from audit.history import History
from audit.legible import instant, moment
from fedproto import jcs
from fedproto.schema import to_json
from fedproto.statements import event_to_json

COLUMNS = (
    "index",
    "leaf",
    "state",
    "type",
    "member",
    "claimed",
    "witnessed_from",
    "witnessed_until",
    "run",
    "round",
    "attempt",
    "outcome",
    "body",
)
# With these a spreadsheet takes a cell for a formula; the full-width ones do so in Japanese locales.
_FORMULA = tuple("=+-@\t\r\n＝＋－＠")
BYTE_ORDER_MARK = "\ufeff"


def json_lines(
    history: History, citations: Citations, entries: Sequence[bytes], indices: Iterable[int]
) -> Iterable[str]:
    """Yield one line an entry: where it stands, when, by which keys, what it says, and its bytes."""
    for index in indices:
        row = citations.row(index)
        line = {
            "index": index,
            "leaf": row.leaf,
            "state": state_of(row),
            "witnessed_from": instant(row.not_before_s),
            "witnessed_until": instant(row.not_after_s),
            "signers": list(history.events[index].signers),
            "event": event_to_json(history.event(index)),
            "entry": entries[index].decode("utf-8"),
        }
        yield json.dumps(line, ensure_ascii=False, sort_keys=False)


def comma_separated(
    history: History, citations: Citations, indices: Iterable[int], *, mark: bool = False
) -> str:
    """Return a table of entries; with `mark`, a byte order mark by which Excel reads UTF-8."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\r\n", quoting=csv.QUOTE_MINIMAL)
    writer.writerow(COLUMNS)
    for index in indices:
        writer.writerow([safe(cell) for cell in _cells(history, citations.row(index))])
    return (BYTE_ORDER_MARK if mark else "") + text.getvalue()


def safe(cell: str) -> str:
    """Return a cell that no spreadsheet takes for a formula."""
    return f"'{cell}" if cell.startswith(_FORMULA) else cell


def state_of(row: Row) -> str:
    """Return whether an entry is under a witness quorum."""
    return "verified" if row.witnessed else "pending witness"


def _cells(history: History, row: Row) -> list[str]:
    body = to_json(history.event(row.index).body)
    assert isinstance(body, dict)  # noqa: S101  # every body is a dataclass
    named = (body.get(name, "") for name in ("run", "round", "attempt"))
    outcome = next((body[n] for n in ("outcome", "choice", "standing") if n in body), "")
    return [
        str(row.index),
        row.leaf,
        state_of(row),
        row.type,
        row.member,
        moment(row.at),
        instant(row.not_before_s) or "",
        instant(row.not_after_s) or "",
        *map(str, named),
        str(outcome),
        jcs.dumps(body).decode(),
    ]
