"""What is PostgreSQL's alone: secrets stay in files, the server may vanish, rights may be few."""

import logging
import traceback

import psycopg
import pytest
from postgres_kit import PASSWORD
from store_kit import PostgresPlace, begin, texts

from audit.postgres import PostgresDatabase
from audit.store import Store
from fedproto.errors import Exit, LocalFault

SECRET = "pässword-that-nobody-may-see"


@pytest.fixture
def place(postgres):
    return PostgresPlace(postgres)


@pytest.fixture
def guarded(postgres, place):
    """A database that asks its role for a password."""
    with postgres.connect() as dba:
        dba.execute("DROP ROLE IF EXISTS guarded")
        dba.execute(f"CREATE ROLE guarded LOGIN PASSWORD '{PASSWORD}'".encode())
    place.dba("GRANT ALL ON SCHEMA public TO guarded")
    yield postgres.url(place.name, "guarded")
    place.dba("DROP OWNED BY guarded")
    with postgres.connect() as dba:
        dba.execute("DROP ROLE guarded")


def refused(code):
    return pytest.raises(LocalFault, match=code)


def shown(caught, caplog):
    """Everything that a person, a log or a traceback could show of an error."""
    fault = caught.value
    told = "".join(traceback.format_exception(fault))
    return "\n".join([told, fault.what, fault.why, fault.mend, repr(fault), caplog.text])


def password_file(path, password, mode=0o600):
    path.write_text(f"127.0.0.1:*:*:guarded:{password}\n")
    path.chmod(mode)
    return path


@pytest.mark.parametrize(
    "url",
    [
        f"postgresql+psycopg://ledger:{SECRET}@127.0.0.1:1/ledger",
        f"postgresql://ledger:{SECRET}@127.0.0.1:1/ledger",
        f"postgresql+psycopg://ledger@127.0.0.1:1/ledger?password={SECRET}",
        f"postgresql+psycopg://ledger@127.0.0.1:1/ledger?sslpassword={SECRET}",
        f"postgresql+psycopg://ledger:{SECRET}@[::1/ledger",
        f"postgresql+psycopg://ledger:{SECRET}@127.0.0.1:port/ledger",
        f"postgres://ledger:{SECRET}@127.0.0.1/ledger",
    ],
)
def test_a_url_with_a_password_is_refused_and_never_shown(url, caplog):
    caplog.set_level(logging.DEBUG)
    with refused("RNM-CONF-0001") as caught:
        Store(url)
    assert SECRET not in shown(caught, caplog)
    assert caught.value.exit is Exit.USAGE


def test_a_password_comes_from_a_private_file(guarded, tmp_path):
    path = password_file(tmp_path / "pgpass", PASSWORD)
    store = Store(f"{guarded}?passfile={path}")
    begin(store).write(store, texts(0, 60))
    assert store.entries(0, 60) == texts(0, 60)
    assert PASSWORD not in repr(store._database.__dict__) + repr(store._reader)
    store.close()


def test_a_password_comes_from_the_file_that_the_environment_names(guarded, tmp_path, monkeypatch):
    monkeypatch.setenv("PGPASSFILE", str(password_file(tmp_path / "pgpass", PASSWORD)))
    Store(guarded).close()


def test_a_wrong_password_is_refused_and_not_shown(guarded, tmp_path, caplog):
    caplog.set_level(logging.DEBUG)
    path = password_file(tmp_path / "pgpass", SECRET)
    with refused("RNM-LEDGER-0002") as caught:
        Store(f"{guarded}?passfile={path}")
    assert "password authentication failed" in caught.value.why
    assert "passfile" in caught.value.mend
    assert SECRET not in shown(caught, caplog)


def test_a_missing_password_says_where_it_belongs(guarded, monkeypatch):
    monkeypatch.delenv("PGPASSFILE", raising=False)
    with refused("RNM-LEDGER-0002") as caught:
        Store(guarded)
    assert "no password" in caught.value.why
    assert "PGPASSFILE" in caught.value.mend


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o666])
def test_a_password_file_that_others_may_read_is_refused(guarded, tmp_path, mode):
    path = password_file(tmp_path / "pgpass", PASSWORD, mode)
    with refused("RNM-KEY-0002") as caught:
        Store(f"{guarded}?passfile={path}")
    assert f"{mode:04o}" in caught.value.why
    assert PASSWORD not in str(caught.value)


def test_a_password_file_that_is_not_there_is_named(guarded, tmp_path):
    with refused("RNM-CONF-0001"):
        Store(f"{guarded}?passfile={tmp_path}/none")


def test_a_role_that_may_only_add_writes_a_ledger_that_its_owner_made(guarded, place, tmp_path):
    place.open().close()
    place.dba("GRANT SELECT, INSERT ON log, entry, tile, checkpoint, cosignature TO guarded")
    place.dba("GRANT UPDATE ON log, tile TO guarded")
    place.dba("REVOKE CREATE ON SCHEMA public FROM guarded")
    path = password_file(tmp_path / "pgpass", PASSWORD)
    store = Store(f"{guarded}?passfile={path}")
    growth = begin(store)
    growth.write(store, texts(0, 3))
    growth.write(store, texts(3, 400))
    store.add_cosignatures(
        [{"size": 3, "key_id": b"1234", "name": "a", "timestamp": 1, "line": b"line"}]
    )
    store.close()
    session = psycopg.connect(
        f"{place.server.conninfo(place.name, 'guarded')} passfile={path}", autocommit=True
    )
    with session, pytest.raises(psycopg.errors.InsufficientPrivilege):
        session.execute("UPDATE entry SET round = 1")


def test_a_commit_waits_for_the_disk_whatever_the_server_is_set_to(place):
    with place.server.connect(place.name) as dba:
        assert dba.execute("SHOW synchronous_commit").fetchone() == ("off",)
    store = place.open()
    assert store._connection.execute("SHOW synchronous_commit").fetchone() == ("on",)
    store.close()


def test_a_server_without_fsync_is_refused(place):
    def set_fsync(value):
        with place.server.connect() as dba:
            dba.execute(f"ALTER SYSTEM SET fsync = {value}".encode())
            dba.execute("SELECT pg_reload_conf()")
        wanted = (value,)
        for _ in range(1000):
            with place.server.connect() as dba:
                if dba.execute("SHOW fsync").fetchone() == wanted:
                    return
        raise AssertionError("the server did not take its settings")

    set_fsync("off")
    try:
        with refused("RNM-LEDGER-0002") as caught:
            place.open()
    finally:
        set_fsync("on")
    assert "fsync=off" in caught.value.why
    place.open().close()


def test_the_lock_is_of_a_schema(place):
    """Two logs may share a database; one log has one writer."""
    place.dba("CREATE SCHEMA second")
    one = place.open()
    url = f"{place.place}?options=-csearch_path%3Dsecond"
    two = Store(url)
    begin(one).write(one, texts(0, 3))
    assert two.head() is None
    with refused("RNM-LEDGER-0005"):
        Store(url)
    two.close()
    one.close()


def test_a_lock_that_was_lost_with_its_session_is_taken_again(place):
    store = place.open()
    growth = begin(store)
    growth.write(store, texts(0, 3))
    cut(place, store)
    batch = growth.batch(texts(3, 4))
    with refused("RNM-LEDGER-0002"):
        store.commit(batch)
    store.commit(batch)
    assert store.head() == batch.after
    with refused("RNM-LEDGER-0005"):
        place.open()
    store.close()


def test_a_writer_that_lost_its_lock_to_another_is_refused(place):
    store = place.open()
    growth = begin(store)
    growth.write(store, texts(0, 3))
    cut(place, store)
    other = place.open()
    taken = other.take_over(growth.head)
    batch = growth.batch(texts(3, 4))
    for code in ("RNM-LEDGER-0002", "RNM-LEDGER-0005", "RNM-LEDGER-0005"):
        with refused(code):
            store.commit(batch)
    other.close()
    with refused("RNM-LEDGER-0005"):
        store.commit(batch)
    assert store.head() == taken
    store.close()


def cut(place, store):
    """End the writer's session on the server, as a DBA or a failing network does."""
    process = store._connection.info.backend_pid
    place.dba("SELECT pg_terminate_backend(%s, 10000)", process)


@pytest.mark.parametrize(
    ("state", "code"),
    [
        ("53100", "RNM-DISK-0001"),
        ("XX001", "RNM-LEDGER-0001"),
        ("XX002", "RNM-LEDGER-0001"),
        ("42501", "RNM-LEDGER-0002"),
        ("53200", "RNM-LEDGER-0002"),
        ("25006", "RNM-LEDGER-0002"),
    ],
)
@pytest.mark.parametrize("count", [1, 60])
def test_what_the_server_says_is_named_and_nothing_is_half_written(place, state, code, count):
    """The server itself raises it, after the entries were written."""
    store = place.open()
    growth = begin(store)
    growth.write(store, texts(0, 3))
    place.dba(
        "CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS "
        f"$$ BEGIN RAISE EXCEPTION 'as asked' USING ERRCODE = '{state}'; END $$"
    )
    place.dba(
        "CREATE TRIGGER fail AFTER INSERT ON entry FOR EACH STATEMENT EXECUTE FUNCTION fail()"
    )
    batch = growth.batch(texts(3, 3 + count))
    with refused(code):
        store.commit(batch)
    assert store.head() == growth.head
    assert store.entries(0, 99) == texts(0, 3)
    place.dba("DROP TRIGGER fail ON entry")
    store.commit(batch)
    assert store.head() == batch.after
    store.close()


def test_a_store_outlives_a_restart_of_its_server(place):
    store = place.open()
    growth = begin(store)
    growth.write(store, texts(0, 3))
    place.server.stop()
    batch = growth.batch(texts(3, 100))
    for _ in range(2):
        with refused("RNM-LEDGER-0002"):
            store.commit(batch)
        with refused("RNM-LEDGER-0002"):
            store.head()
    place.server.start()
    assert store.head() == growth.head
    store.commit(batch)
    assert store.entries(0, 100) == texts(0, 100)
    store.close()


def test_what_a_killed_server_acknowledged_is_there_again(place):
    store = place.open()
    growth = begin(store)
    for number in range(30):
        growth.write(store, texts(number, number + 1))
    place.server.kill()
    place.server.start()
    assert store.head() == growth.head
    assert store.entries(0, 30) == texts(0, 30)
    store.close()


def test_a_server_that_is_not_there_is_named(place):
    with refused("RNM-LEDGER-0002") as caught:
        Store("postgresql+psycopg://ledger@127.0.0.1:1/ledger")
    assert "does not answer" in caught.value.why
    with refused("RNM-LEDGER-0002") as caught:
        Store(place.server.url("none"))
    assert "does not exist" in caught.value.why


def test_the_url_of_a_service_file_is_enough(place, tmp_path, monkeypatch):
    service = tmp_path / "service.conf"
    service.write_text(
        f"[ledger]\nhost=127.0.0.1\nport={place.server.port}\ndbname={place.name}\nuser=ledger\n"
    )
    monkeypatch.setenv("PGSERVICEFILE", str(service))
    store = Store("postgresql+psycopg:///?service=ledger")
    begin(store)
    store.close()
    again = place.open()
    assert again.head() is not None
    again.close()


def test_a_name_in_an_error_is_without_secrets():
    database = PostgresDatabase("postgresql+psycopg://ledger@db.example/ledger?sslmode=verify-full")
    assert database.name == "the database ledger on db.example"
