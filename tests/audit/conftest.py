"""Lets the tests of the ledger share `ledger_kit`, which their helper processes import as well."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(scope="session")
def postgres():
    """A real PostgreSQL server, started once for all the tests of this process."""
    from postgres_kit import running

    with running() as server:
        yield server


@pytest.fixture(params=["sqlite", "postgresql"])
def place(request, tmp_path):
    """An empty database, once in SQLite and once in PostgreSQL."""
    from store_kit import PostgresPlace, SqlitePlace

    if request.param == "sqlite":
        return SqlitePlace(tmp_path / "ledger.db")
    return PostgresPlace(request.getfixturevalue("postgres"))
