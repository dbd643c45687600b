"""The high-water mark of every run: the last attempt that this node answered, kept on disk.

Decides whether an attempt is newer than all that was answered before, and over whom a round's sum may be
opened: an attempt made again over one member less, from the same deltas, would show that member's. Written and synced before the
first answer of an attempt goes out, so that neither `kill -9` nor a restored coordinator makes a node
mask two deltas for one attempt. A damaged or vanished record is an error, never an empty one: starting
again from zero is what a replay needs. A shell module (secure aggregation 1.2: "strictly newer than the
durable high-water mark").
"""

import os
from dataclasses import dataclass, field, replace
from pathlib import Path

from fedproto import jcs
from fedproto.durable import write_atomic
from fedproto.errors import LocalFault
from fedproto.ids import MemberId, RunId, sha256_hex
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
class Opened:
    """Over whom this node helped to open a sum, last of all rounds of a run."""

    round: int
    survivors: tuple[MemberId, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Marks:
    runs: dict[str, Mark]
    opened: dict[str, Opened] = field(default_factory=dict)


class MarkBook:
    """The marks of one node; one agent at a time has it open."""

    def __init__(self, path: Path, book: _Marks) -> None:
        self._path = path
        self._book = book

    @classmethod
    def create(cls, root: Path) -> "MarkBook":
        """Make an empty book, unless there is one: then open it."""
        if not (root / FILE).exists():
            _write(root / FILE, _Marks(runs={}))
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
            return cls(path, _read(raw))
        except LocalFault as fault:
            raise _fault(path, fault.why) from None

    def last(self, run: RunId) -> Mark:
        """Return the newest attempt that was answered, or `NEVER`."""
        return self._book.runs.get(run, NEVER)

    def advance(self, run: RunId, mark: Mark) -> None:
        """Record an attempt durably; raise RNM-CONSENT-0003 unless it comes after every other."""
        mark.require_after(run, self.last(run))
        self._keep(replace(self._book, runs={**self._book.runs, run: mark}))

    def opened(self, run: RunId, round_no: int) -> tuple[MemberId, ...] | None:
        """Return over whom this node helped to open a sum of a round, in any attempt at it."""
        found = self._book.opened.get(run)
        return found.survivors if found and found.round == round_no else None

    def open_sum(self, run: RunId, round_no: int, survivors: tuple[MemberId, ...]) -> None:
        """Record durably, before the shares leave, that a sum over `survivors` may be opened.

        Raises:
            LocalFault: RNM-CONSENT-0003 a sum of this round over others may be open already.
        """
        before = self.opened(run, round_no)
        if before not in {None, survivors}:
            raise LocalFault(
                "RNM-CONSENT-0003",
                what=f"a second sum of round {round_no} of run {run[:8]} was not opened",
                why=f"one over {', '.join(before or ())} may be open: two would show a difference",
                mend="the coordinator opens the round over the same members, or ends the run",
            )
        opened = Opened(round=round_no, survivors=survivors)
        self._keep(replace(self._book, opened={**self._book.opened, run: opened}))

    def _keep(self, book: _Marks) -> None:
        _write(self._path, book)
        self._book = book


def seen_before(run: RunId, mark: Mark, last: Mark) -> LocalFault:
    """Return the error of an attempt that does not come after the last one."""
    return LocalFault(
        "RNM-CONSENT-0003",
        what=f"round {mark.round}, attempt {mark.attempt}, pass {mark.pass_no} of run {run[:8]} "
        "was refused",
        why=f"this node answered round {last.round}, attempt {last.attempt}, pass {last.pass_no} last",
        mend="nothing at this node: the coordinator opens a new attempt",
    )


def _read(raw: bytes) -> _Marks:
    value = jcs.loads(raw)
    if not isinstance(value, dict) or value.keys() != {"v", "marks", "sha256"} or value["v"] != 2:
        raise LocalFault("RNM-STATE-0001", what="", why="it is not a book of marks", mend="")
    if sha256_hex(jcs.dumps(value["marks"])) != value["sha256"]:
        raise LocalFault("RNM-STATE-0001", what="", why="its digest does not fit it", mend="")
    return from_json(_Marks, value["marks"], FILE)


def _write(path: Path, book: _Marks) -> None:
    body: Json = to_json(book)
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
