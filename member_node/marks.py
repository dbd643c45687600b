"""The high-water mark of every run: the last attempt that this node answered, kept on disk.

Decides whether an attempt is newer than all that was answered before. Written and synced before the
first answer of an attempt goes out, so that neither `kill -9` nor a restored coordinator makes a node
mask two deltas for one attempt. A damaged or vanished record is an error, never an empty one: starting
again from zero is what a replay needs. A shell module (secure aggregation 1.2: "strictly newer than the
durable high-water mark").
"""

import os
from dataclasses import dataclass
from pathlib import Path

from fedproto import jcs
from fedproto.durable import write_atomic
from fedproto.errors import LocalFault
from fedproto.ids import RunId, sha256_hex
from fedproto.jcs import Json
from fedproto.schema import from_json, to_json

FILE = "marks.json"


@dataclass(frozen=True, slots=True, order=True)
class Mark:
    """A round, an attempt and a pass of one run; attempts of a later round are newer."""

    round: int
    attempt: int
    pass_no: int = 1

    def require_after(self, run: RunId, last: "Mark") -> None:
        """Refuse what is not newer than `last`, or a pass without the one before it.

        Raises:
            LocalFault: RNM-CONSENT-0003. A pass that failed is not asked again: its attempt is over.
        """
        if self <= last:
            raise seen_before(run, self, last)
        # Who was not in the pass before, or answered something since, has no part in this sum.
        if self.pass_no > 1 and last != Mark(self.round, self.attempt, self.pass_no - 1):
            raise seen_before(run, self, last)


NEVER = Mark(0, 0, 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Marks:
    runs: dict[str, Mark]


class MarkBook:
    """The marks of one node; one agent at a time has it open."""

    def __init__(self, path: Path, marks: dict[str, Mark]) -> None:
        self._path = path
        self._marks = marks

    @classmethod
    def create(cls, root: Path) -> "MarkBook":
        """Make an empty book, unless there is one: then open it."""
        if not (root / FILE).exists():
            _write(root / FILE, {})
        return cls.open(root)

    @classmethod
    def open(cls, root: Path) -> "MarkBook":
        """Read the book; raise RNM-STATE-0001 if it is missing or damaged."""
        path = root / FILE
        try:
            raw = path.read_bytes()
        except OSError as error:
            raise _fault(path, os.strerror(error.errno or 0)) from None
        try:
            return cls(path, dict(_read(raw)))
        except LocalFault as fault:
            raise _fault(path, fault.why) from None

    def last(self, run: RunId) -> Mark:
        """Return the newest attempt that was answered, or `NEVER`."""
        return self._marks.get(run, NEVER)

    def advance(self, run: RunId, mark: Mark) -> None:
        """Record an attempt durably; raise RNM-CONSENT-0003 unless it comes after every other."""
        mark.require_after(run, self.last(run))
        marks = {**self._marks, run: mark}
        _write(self._path, marks)
        self._marks = marks


def seen_before(run: RunId, mark: Mark, last: Mark) -> LocalFault:
    """Return the error of an attempt that does not come after the last one."""
    return LocalFault(
        "RNM-CONSENT-0003",
        what=f"round {mark.round}, attempt {mark.attempt}, pass {mark.pass_no} of run {run[:8]} "
        "was refused",
        why=f"this node answered round {last.round}, attempt {last.attempt}, pass {last.pass_no} last",
        mend="nothing at this node: the coordinator opens a new attempt",
    )


def _read(raw: bytes) -> dict[str, Mark]:
    value = jcs.loads(raw)
    if not isinstance(value, dict) or value.keys() != {"v", "marks", "sha256"} or value["v"] != 2:
        raise LocalFault("RNM-STATE-0001", what="", why="it is not a book of marks", mend="")
    if sha256_hex(jcs.dumps(value["marks"])) != value["sha256"]:
        raise LocalFault("RNM-STATE-0001", what="", why="its digest does not fit it", mend="")
    return from_json(_Marks, value["marks"], FILE).runs


def _write(path: Path, marks: dict[str, Mark]) -> None:
    body: Json = to_json(_Marks(runs=marks))
    value: Json = {"v": 2, "marks": body, "sha256": sha256_hex(jcs.dumps(body))}
    write_atomic(path, jcs.dumps(value), mode=0o600)


def _fault(path: Path, why: str) -> LocalFault:
    return LocalFault(
        "RNM-STATE-0001",
        what=f"{path}, the record of answered rounds, was not used",
        why=why,
        mend="restore it from a backup of this minute; without one, let the runs that this member is "
        "in end first, then enrol the node again in a fresh directory",
    )
