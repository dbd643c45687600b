"""A coordinator under load in a process of its own, to be killed or starved by a test.

`create DIR [URL]`  appends base-model approvals from many threads, one line on stdout for each that was
                    acknowledged: index and leaf hash. Never stops by itself.
`fill DIR`          fills the file system of DIR, appends, frees it, appends again; prints what happened.
`hold DIR [URL]`    holds the ledger open until its stdin closes; ends with the status of its error.

The ledger lies in the database of URL, or in a file of DIR.
"""

import os
import sys
import threading
from itertools import count
from pathlib import Path

from ledger_kit import LOG_KEY, Story, base_model, digest, witness_lines

from audit.ledger import Ledger
from fedproto.errors import FederationError, LocalFault


def open_ledger(directory: Path, url: str | None = None) -> Ledger:
    if directory.exists():
        return Ledger.open(directory, log_key=LOG_KEY, database=url)
    story = Story()
    story.genesis()
    ledger = Ledger.create(directory, log_key=LOG_KEY, genesis_leaf=story.leaves[0], database=url)
    for leaf in story.leaves[1:]:
        ledger.append(leaf)
    return ledger


def approval(story: Story, salt: str) -> bytes:
    return story.leaf("pfn", base_model(salt), id=digest(salt)[:32])


def load(directory: Path, url: str | None = None) -> None:
    ledger = open_ledger(directory, url)
    story = Story(state=ledger.state)
    speaking, numbers, run = threading.Lock(), count(), os.getpid()

    def client() -> None:
        while True:
            done = ledger.append(approval(story, f"{run}:{next(numbers)}"))
            with speaking:
                os.write(1, f"{done.index} {done.leaf_hash}\n".encode())

    def witness() -> None:
        while True:
            note = ledger.signed_checkpoint()
            ledger.add_cosignatures(int(note.split(b"\n")[1]), witness_lines(note))

    os.write(1, b"ready\n")
    threads = [threading.Thread(target=client, daemon=True) for _ in range(8)]
    threads.append(threading.Thread(target=witness, daemon=True))
    for thread in threads:
        thread.start()
    threads[0].join()


def fill(directory: Path) -> None:
    ledger = open_ledger(directory)
    story = Story(state=ledger.state)
    before = ledger.append(approval(story, "before")).index
    ballast = directory / "ballast"
    with ballast.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(65_536))
        except OSError:
            pass
        try:
            while True:
                file.write(b"x")
        except OSError:
            pass
    refusals = []
    for number in range(40):
        try:
            ledger.append(approval(story, f"full {number}"))
        except LocalFault as fault:
            refusals.append(fault.code)
    size = ledger.head.size
    ballast.unlink()
    after = ledger.append(approval(story, "after")).index
    ledger.close()
    with Ledger.open(directory, log_key=LOG_KEY) as again:
        whole = again.head.size == after + 1
    print(before, sorted(set(refusals)), len(refusals), after == size, whole)


def hold(directory: Path, url: str | None = None) -> None:
    with open_ledger(directory, url):
        os.write(1, b"ready\n")
        sys.stdin.read()


def main() -> int:
    task, directory, *url = sys.argv[1:]
    try:
        {"create": load, "fill": fill, "hold": hold}[task](Path(directory), *url)
    except FederationError as error:
        # What `renmei` does with any error of this family.
        sys.stderr.write(f"{error}\n")
        return int(error.exit)
    return 0


if __name__ == "__main__":
    sys.exit(main())
