"""A coordinator on a disk that fails at each of its writing calls in turn, below Python and SQLite.

`SHIM DIRECTORY ERROR LASTING STEP` is run with the shim of `faulty_disk.c` preloaded. For each k from 1 on, by
STEP, until a run needs fewer than k calls: a child founds a ledger, appends, cosigns and publishes with call
k failing, and dies without closing anything; another opens what is left on a sound disk. One line of
stdout for each k: how many entries the first was acknowledged, how many the second found.
"""

import ctypes
import json
import os
import shutil
import sys
import threading
from pathlib import Path

from ledger_kit import LOG_KEY, Story, witness_lines

from audit.ledger import Ledger
from audit.publication import Publisher
from fedproto.errors import LocalFault
from fedproto.statements import leaf_id

DATABASE = "ledger.db"


def leaves_of() -> list[bytes]:
    story = Story()
    story.genesis()
    return story.leaves[:4]


def opened(directory: Path, leaves: list[bytes]) -> tuple[Ledger, list[tuple[int, str]]]:
    if (directory / DATABASE).exists():
        return Ledger.open(directory, log_key=LOG_KEY), []
    ledger = Ledger.create(directory, log_key=LOG_KEY, genesis_leaf=leaves[0])
    return ledger, [(0, leaf_id(leaves[0]))]


def work(directory: Path, leaves: list[bytes]) -> dict[str, object]:
    """Append all that can be, twice what was refused; say what was acknowledged."""
    acknowledged: list[tuple[int, str]] = []
    codes: list[str] = []
    try:
        ledger, acknowledged = opened(directory, leaves)
    except LocalFault as fault:
        return {"acknowledged": [], "codes": [fault.code]}
    for leaf in leaves:
        for _ in range(2):
            try:
                done = ledger.append(leaf)
                acknowledged.append((done.index, done.leaf_hash))
                break
            except LocalFault as fault:
                codes.append(fault.code)
        if leaf in leaves[-2:]:
            try:
                size = ledger.head.size
                ledger.add_cosignatures(size, witness_lines(ledger.signed_checkpoint()))
            except LocalFault as fault:
                codes.append(fault.code)
            publish(ledger)
    codes += [ledger.publish_fault.code] if ledger.publish_fault else []
    return {"acknowledged": acknowledged, "codes": codes}


def publish(ledger: Ledger) -> None:
    """Wait for the publisher, whose calls may fail as well: it has to survive that."""
    pause = threading.Event()
    while ledger._publisher._wanted is not None or not idle(ledger._publisher):
        assert ledger._publisher._thread.is_alive(), "the publisher is gone"
        pause.wait(0.0005)


def idle(publisher: Publisher) -> bool:
    """Whether it waits to be asked: then its condition has a waiter."""
    with publisher._changed:
        return bool(publisher._changed._waiters)


def verify(directory: Path, leaves: list[bytes]) -> dict[str, object]:
    """Open what is there, which verifies it, and go on to the end."""
    try:
        ledger, _ = opened(directory, leaves)
    except LocalFault as fault:
        if fault.code != "RNM-CONF-0001":
            raise
        # Its founding was broken off before the first entry: it is made again.
        ledger = Ledger.create(directory, log_key=LOG_KEY, genesis_leaf=leaves[0])
    found = [leaf_id(leaf) for leaf in ledger.entries(0, ledger.head.size)]
    for leaf in leaves:
        ledger.append(leaf)
    whole = ledger.entries(0, ledger.head.size) == leaves
    ledger.close()
    Ledger.open(directory, log_key=LOG_KEY).close()
    return {"found": found, "whole": whole}


def in_child(task: object, *arguments: object) -> dict[str, object]:
    """Run a task in a process that ends without any cleaning up."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.write(writing, json.dumps(task(*arguments)).encode())  # type: ignore[operator]
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        told = pipe.read()
    os.waitpid(child, 0)
    return json.loads(told)


def main() -> None:
    shim, root, error, lasting, step = sys.argv[1:]
    library = ctypes.CDLL(shim)
    library.faulty_calls.restype = ctypes.c_long
    leaves, directory = leaves_of(), Path(root) / "ledger"

    def faulty(k: int) -> dict[str, object]:
        library.faulty_arm(root.encode(), ctypes.c_long(k), int(error), int(lasting))
        told = work(directory, leaves)
        return {**told, "fired": library.faulty_fired(), "calls": library.faulty_calls()}

    k, fired = 1 - int(step), True
    while fired:
        k += int(step)
        told = in_child(faulty, k)
        print(json.dumps({"k": k, **told, **in_child(verify, directory, leaves)}), flush=True)
        fired = bool(told["fired"])
        shutil.rmtree(directory, ignore_errors=True)


if __name__ == "__main__":
    main()
