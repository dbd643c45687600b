"""What a crash or a full disk leaves: everything acknowledged, nothing half done, one history."""

import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from ledger_kit import FOUNDED, LOG_KEY, charter_of, full_story

from audit import tiles
from audit.checkpoint import open_checkpoint
from audit.ledger import Ledger
from audit.policy import policy_of
from audit.tree_check import check_tree
from fedproto.statements import leaf_id

HERE = Path(__file__).parent
WORKER = [sys.executable, str(HERE / "ledger_worker.py")]
ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
KILLS = 20


def kill_under_load(directory, entries):
    """Run a coordinator until it acknowledged `entries` more, kill it, return what it acknowledged."""
    worker = subprocess.Popen(
        [*WORKER, "create", str(directory)], stdout=subprocess.PIPE, env=ENVIRONMENT
    )
    watchdog = threading.Timer(60, worker.kill)
    watchdog.start()
    acknowledged = {}
    for line in worker.stdout:
        if line != b"ready\n":
            index, leaf_hash = line.split()
            acknowledged[int(index)] = leaf_hash.decode()
        if len(acknowledged) == entries:
            worker.kill()
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


def test_twenty_kills_under_load_lose_no_acknowledged_entry_and_use_no_index_twice(tmp_path):
    directory = tmp_path / "ledger"
    known, published = {}, 0
    for turn in range(KILLS):
        acknowledged = kill_under_load(directory, 15 + turn)
        assert not known.keys() & acknowledged.keys(), "an index was used twice"
        known |= acknowledged
        size = check_published(directory / "public")
        assert size >= published, "the published log went back"
        published = size
    with Ledger.open(directory, log_key=LOG_KEY) as ledger:
        leaves = ledger.entries(0, ledger.head.size)
        assert ledger.head == ledger.state.head
        signed = open_checkpoint(ledger.signed_checkpoint(), LOG_KEY.verifier, LOG_KEY.name)
        assert signed.head == ledger.head
        assert ledger.head.size >= published
    assert len(known) >= sum(range(15, 15 + KILLS))
    for index, leaf_hash in known.items():
        assert leaf_id(leaves[index]) == leaf_hash
    assert published > 0


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
