"""The ledger's tables and the values that are written to them, the same in every database.

Decides the columns. Trusts nothing: those beside an entry's bytes are derived, to search by. Has no
connection; `audit.store` writes and reads, `audit.sqlite` and `audit.postgres` know what differs.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from sqlalchemy import BigInteger, Integer
from sqlalchemy.orm import registry
from sqlmodel import Field, SQLModel

# 64 bits everywhere; in SQLite only the type's very name makes a primary key the row's own number.
_WIDE = BigInteger().with_variant(Integer(), "sqlite")


class Base(SQLModel, registry=registry()):
    """The ledger's own tables, apart from those of other stores."""


class LogRow(Base, table=True):
    """The head: changed by compare-and-swap of size and epoch, so that two writers cannot both win."""

    __tablename__ = "log"
    id: int = Field(primary_key=True)
    origin: str
    log_vkey: str
    size: int = Field(sa_type=_WIDE)
    root: bytes
    epoch: int = Field(sa_type=_WIDE)


class EntryRow(Base, table=True):
    """A leaf's exact bytes, and columns to search by; those are derived, never trusted."""

    __tablename__ = "entry"
    idx: int = Field(primary_key=True, sa_type=_WIDE, sa_column_kwargs={"autoincrement": False})
    leaf_hash: bytes = Field(unique=True)
    event_id: str = Field(unique=True)
    type: str = Field(index=True)
    actor: str = Field(index=True)
    run: str = Field(index=True)
    round: int = Field(sa_type=_WIDE)
    received_at: int = Field(sa_type=_WIDE)
    data: bytes


class TileRow(Base, table=True):
    """A hash tile, `width` hashes wide."""

    __tablename__ = "tile"
    level: int = Field(primary_key=True)
    n: int = Field(primary_key=True, sa_type=_WIDE)
    width: int
    data: bytes


class CheckpointRow(Base, table=True):
    """A checkpoint that the log signed, one for each batch."""

    __tablename__ = "checkpoint"
    size: int = Field(primary_key=True, sa_type=_WIDE, sa_column_kwargs={"autoincrement": False})
    root: bytes
    note: bytes
    created_at: int = Field(sa_type=_WIDE)


class CosignatureRow(Base, table=True):
    """A verified line of a witness under a checkpoint."""

    __tablename__ = "cosignature"
    size: int = Field(primary_key=True, foreign_key="checkpoint.size", sa_type=_WIDE)
    key_id: bytes = Field(primary_key=True)
    name: str
    timestamp: int = Field(sa_type=_WIDE)
    line: bytes


LOG, ENTRY, TILE, CHECKPOINT, COSIGNATURE = (
    Base.metadata.tables[name] for name in ("log", "entry", "tile", "checkpoint", "cosignature")
)
APPEND_ONLY = ("entry", "checkpoint")
APPEND_ONLY_WORDS = "the ledger is append-only"


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """The log's row."""

    origin: str
    log_vkey: str
    size: int
    root: bytes
    epoch: int


class NewEntry(NamedTuple):
    """An entry to be written: the very row, in the order of the table's columns."""

    idx: int
    leaf_hash: bytes
    event_id: str
    type: str
    actor: str
    run: str
    round: int
    received_at: int
    data: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class NewTile:
    """A hash tile to be written; `created` if no narrower one is there."""

    level: int
    n: int
    data: bytes
    created: bool

    @property
    def width(self) -> int:
        """How many hashes it holds."""
        return len(self.data) // 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """What becomes durable together."""

    before: Head
    after: Head
    entries: Sequence[NewEntry]
    tiles: Sequence[NewTile]
    note: bytes
    created_at: int
