"""What a crash or a full disk leaves: everything acknowledged, nothing half done, one history."""

import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from ledger_kit import FOUNDED, LOG_KEY, charter_of, full_story
from store_kit import PostgresPlace

from audit import tiles
from audit.checkpoint import open_checkpoint
from audit.ledger import Ledger
from audit.note import NoteSigner
from audit.policy import policy_of
from audit.tree_check import check_tree
from fedproto.errors import Exit, LocalFault
from fedproto.party import seed_file
from fedproto.statements import leaf_id
from renmei.consortium import found

HERE = Path(__file__).parent
WORKER = [sys.executable, str(HERE / "ledger_worker.py")]
ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}


def url_of(place):
    return place.place if isinstance(place.place, str) else None


def start(task, directory, place, **pipes):
    url = url_of(place)
    arguments = [task, str(directory), *([url] if url else [])]
    return subprocess.Popen([*WORKER, *arguments], stdout=subprocess.PIPE, env=ENVIRONMENT, **pipes)


def run_under_load(directory, place, entries, end):
    """Run a coordinator until it acknowledged `entries` more, end it, return what it acknowledged."""
    worker = start("create", directory, place, stderr=subprocess.DEVNULL)
    watchdog = threading.Timer(60, worker.kill)
    watchdog.start()
    acknowledged = {}
    for line in worker.stdout:
        if line != b"ready\n":
            index, leaf_hash = line.split()
            assert int(index) not in acknowledged, "an index was used twice"
            acknowledged[int(index)] = leaf_hash.decode()
        if len(acknowledged) == entries:
            end(worker)
    worker.wait()
    watchdog.cancel()
    return acknowledged


def check_published(public):
    """Whatever the moment of the kill, the published checkpoint's files are all there."""
    if not (public / "checkpoint").exists():
        return 0
    note = (public / "checkpoint").read_bytes()
    policy_of(charter_of()).open(note)
    head = open_checkpoint(note, LOG_KEY.verifier, LOG_KEY.name).head

    def tile(level, n):
        width = min(256, head.size // 256**level - n * 256)
        return (public / tiles.tile_path(level, n, width)).read_bytes()

    check_tree(head, tile, lambda n, width: (public / tiles.bundle_path(n, width)).read_bytes())
    return head.size


@pytest.mark.parametrize(
    "kills", [10, pytest.param(50, marks=pytest.mark.slow)], ids=["10 kills", "50 kills"]
)
def test_kills_under_load_lose_no_acknowledged_entry_and_use_no_index_twice(tmp_path, place, kills):
    directory = tmp_path / "ledger"
    known, published = {}, 0
    for turn in range(kills):
        acknowledged = run_under_load(directory, place, 15 + turn, lambda worker: worker.kill())
        assert len(acknowledged) >= 15 + turn
        assert not known.keys() & acknowledged.keys(), "an index was used twice"
        known |= acknowledged
        size = check_published(directory / "public")
        assert size >= published, "the published log went back"
        published = size
    check_acknowledged(directory, place, known, published)
    assert published > 0


def check_acknowledged(directory, place, known, published):
    with Ledger.open(directory, log_key=LOG_KEY, database=url_of(place)) as ledger:
        leaves = ledger.entries(0, ledger.head.size)
        assert ledger.head == ledger.state.head
        signed = open_checkpoint(ledger.signed_checkpoint(), LOG_KEY.verifier, LOG_KEY.name)
        assert signed.head == ledger.head
        assert ledger.head.size >= published
    assert len(set(leaves)) == len(leaves)
    for index, leaf_hash in known.items():
        assert leaf_id(leaves[index]) == leaf_hash


@pytest.mark.parametrize("how", ["kill", "stop"])
def test_a_database_server_that_dies_under_load_keeps_what_was_acknowledged(
    tmp_path, postgres, how
):
    place, directory, known = PostgresPlace(postgres), tmp_path / "ledger", {}
    for turn in range(3):

        def end(worker):
            getattr(postgres, how)()
            worker.kill()

        acknowledged = run_under_load(directory, place, 20 + turn, end)
        postgres.start()
        assert not known.keys() & acknowledged.keys(), "an index was used twice"
        known |= acknowledged
    check_acknowledged(directory, place, known, check_published(directory / "public"))


def test_a_ledger_goes_on_when_its_database_server_is_back(tmp_path, postgres):
    place, story = PostgresPlace(postgres), full_story()
    ledger = Ledger.create(
        tmp_path / "ledger",
        log_key=LOG_KEY,
        genesis_leaf=story.leaves[0],
        database=place.place,
    )
    ledger.append(story.leaves[1])
    postgres.kill()
    for _ in range(2):
        with pytest.raises(LocalFault, match="RNM-LEDGER-0002"):
            ledger.append(story.leaves[2])
    assert ledger.head.size == 2
    postgres.start()
    assert [ledger.append(leaf).index for leaf in story.leaves[2:]] == list(
        range(2, len(story.leaves))
    )
    ledger.close()
    with Ledger.open(tmp_path / "ledger", log_key=LOG_KEY, database=place.place) as again:
        assert again.state == story.state


@pytest.mark.parametrize("same_directory", [True, False])
def test_a_second_coordinator_on_one_database_ends_with_status_8(tmp_path, place, same_directory):
    first = start("hold", tmp_path / "ledger", place, stdin=subprocess.PIPE)
    assert first.stdout.readline() == b"ready\n"
    directory = tmp_path / ("ledger" if same_directory else "other")
    if not same_directory:
        directory.mkdir(mode=0o700)
        if url_of(place) is None:
            (directory / "ledger.db").symlink_to(tmp_path / "ledger" / "ledger.db")
    second = start("hold", directory, place, stdin=subprocess.PIPE, stderr=subprocess.PIPE)
    _, told = second.communicate(timeout=60)
    assert (second.returncode, Exit.CONFLICT) == (8, 8), told
    assert b"RNM-LEDGER-0005" in told
    first.communicate(b"", timeout=60)
    assert first.returncode == 0


def test_the_command_of_a_second_host_on_one_postgresql_ends_with_status_8(tmp_path, postgres):
    """Two machines, each with the coordinator's directory, and one database."""
    url = PostgresPlace(postgres).place
    one, two = tmp_path / "one" / "coordinator", tmp_path / "two" / "coordinator"
    (one / "ledger").mkdir(parents=True, mode=0o700)
    (one / "ledger" / "database.url").write_text(url)
    (one / "ledger" / "database.url").chmod(0o600)
    founded = found(one.parent, consortium="lab", coordinator="127.0.0.1:1", gateway="127.0.0.1:2")
    assert not (one / "ledger" / "ledger.db").exists()
    shutil.copytree(one, two)
    log_key = NoteSigner(founded.charter.origin, seed_file(one / "keys" / "log.key", 32))
    with Ledger.open(one / "ledger", log_key=log_key) as ledger:
        done = subprocess.run(
            [sys.executable, "-m", "renmei.cli", "coordinator", "serve", "--dir", str(two)],
            env=ENVIRONMENT,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        assert (done.returncode, "RNM-LEDGER-0005" in done.stderr) == (8, True), done.stderr
        assert ledger.head.size > 1


def mounting_is_possible():
    return (
        shutil.which("unshare") is not None
        and subprocess.run(
            [
                "unshare",
                "--user",
                "--map-root-user",
                "--mount",
                "mount",
                "-t",
                "tmpfs",
                "t",
                "/mnt",
            ],
            capture_output=True,
            check=False,
        ).returncode
        == 0
    )


def test_a_full_disk_refuses_by_name_and_the_ledger_goes_on_when_there_is_room():
    if not mounting_is_possible():
        pytest.skip(
            "this machine lets no one mount a tmpfs; the limit test below covers the way back"
        )
    script = 'mount -t tmpfs -o size=3m t /mnt && exec "$@" /mnt/ledger'
    command = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", script, "sh"]
    run = subprocess.run(
        [*command, *WORKER, "fill"],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout == f"{FOUNDED} ['RNM-DISK-0001'] 40 True True\n"


LIMITED = """
import resource, sys
from pathlib import Path
sys.path.insert(0, {kit!r})
from ledger_kit import LOG_KEY, Story, full_story
from ledger_worker import approval, open_ledger
from audit.ledger import Ledger
from fedproto.errors import LocalFault
directory = Path(sys.argv[1])
ledger = open_ledger(directory)
story = Story(state=ledger.state)
ledger.append(approval(story, "before"))
largest = max(path.stat().st_size for path in directory.iterdir())
resource.setrlimit(resource.RLIMIT_FSIZE, (largest + 20_000, resource.RLIM_INFINITY))
codes = set()
for number in range(20):
    try:
        ledger.append(approval(story, f"limited {{number}}"))
    except LocalFault as fault:
        codes.add(fault.code)
size = ledger.head.size
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
after = ledger.append(approval(story, "after")).index
ledger.close()
with Ledger.open(directory, log_key=LOG_KEY) as again:
    print(sorted(codes), after == size, again.head.size == after + 1)
"""


def test_a_write_that_the_system_refuses_is_named_and_leaves_nothing_half_done(tmp_path):
    run = subprocess.run(
        [sys.executable, "-c", LIMITED.format(kit=str(HERE)), str(tmp_path / "ledger")],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout == "['RNM-LEDGER-0002'] True True\n"


def test_a_ledger_on_a_directory_that_may_not_be_written_is_not_founded(tmp_path):
    blocked = tmp_path / "file"
    blocked.write_bytes(b"")
    with pytest.raises(Exception, match="RNM-CONF-0001"):
        Ledger.create(blocked / "ledger", log_key=LOG_KEY, genesis_leaf=full_story().leaves[0])
