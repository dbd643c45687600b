"""What a reader of the ledger waits for: `python benchmarks/ledger_reading.py`.

Hashes and signatures that one core verifies offline, beside hashlib and the bare primitives in the
same run, and proofs out of a log of a million entries in SQLite. Read the ratios; the machine varies.
"""

import argparse
import hashlib
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from audit import merkle, tiles
from audit.checkpoint import Checkpoint, TreeHead, sign
from audit.note import NoteSigner
from audit.replay import replay
from audit.store import Batch, Head, NewEntry, NewTile, Store
from audit.tree_check import check_tree
from fedproto.events.oversight import IncidentReported
from fedproto.identity import SigningKey
from fedproto.ids import Digest, sha256_hex
from fedproto.party import Party
from fedproto.statements import Head as ActHead
from fedproto.statements import Trace, seal_event
from renmei.consortium import found

_BATCH = 20_000
_TRACE = Trace(trace_id="0" * 32, span_id="0" * 16)


def per_second(work: Callable[[], int], repeat: int = 3) -> float:
    """Return the best rate of some repeats; `work` returns how much it did."""
    best = 0.0
    for _ in range(repeat):
        began = time.process_time()
        done = work()
        best = max(best, done / (time.process_time() - began))
    return best


def hashing(count: int) -> dict[str, float]:
    """Re-derive every tile and the root of a log from its entries, beside bare leaf hashes."""
    entries = [number.to_bytes(8, "big") * 75 for number in range(count)]
    edge = tiles.RightEdge()
    grown = edge.grow([merkle.leaf_hash(entry) for entry in entries])
    kept = {place: bytes(data) for place, data in grown.tiles.items()}
    head = TreeHead(count, Digest(grown.root.hex()))

    def verify() -> int:
        def bundle(n: int, width: int) -> bytes:
            return tiles.encode_bundle(entries[n * tiles.WIDTH : n * tiles.WIDTH + width])

        check_tree(head, lambda level, n: kept.get((level, n), b""), bundle)
        # One hash of each entry, one of each inner node, twice (tiles and root).
        return 3 * count

    def bare() -> int:
        for entry in entries:
            hashlib.sha256(b"\0" + entry).digest()
        return count

    return {"verified_hashes_per_s": per_second(verify), "hashlib_per_s": per_second(bare)}


def signatures(count: int) -> dict[str, float]:
    """Verify signatures alone, then replay whole acts under their charter, beside bare Ed25519."""
    with tempfile.TemporaryDirectory() as directory:
        root = Path(directory) / "consortium"
        made = found(root, consortium="bench", coordinator="127.0.0.1:1", gateway="127.0.0.1:2")
        leaves = _founding(root) + _acts(root, made.charter.digest, count)
    key = Ed25519PrivateKey.generate()
    message = os.urandom(800)
    signature, public = key.sign(message), key.public_key()
    acting = SigningKey(os.urandom(64))
    hybrid, verify_key = acting.sign(message), acting.verify_key

    def check() -> int:
        for _ in range(count):
            verify_key.verify(hybrid, message)
        return 2 * count

    def verify() -> int:
        found_ = replay(leaves)
        assert not found_.violations
        # Each act carries two signatures, Ed25519 and ML-DSA-65.
        return 2 * count

    def bare() -> int:
        for _ in range(count):
            public.verify(signature, message)
        return count

    return {
        "verified_signatures_per_s": per_second(check),
        "replayed_signatures_per_s": per_second(verify, 2),
        "ed25519_per_s": per_second(bare),
    }


def _founding(root: Path) -> list[bytes]:
    store = Store(root / "coordinator" / "ledger" / "ledger.db")
    try:
        head = store.head()
        return store.entries(0, head.size if head else 0)
    finally:
        store.close()


def _acts(root: Path, charter: Digest, count: int) -> list[bytes]:
    party = Party.load(root / "honda")
    empty = ActHead(size=0, root=Digest(merkle.EMPTY_ROOT.hex()))
    acts = []
    for number in range(count):
        body = IncidentReported(
            category="drill", severity=1, report=sha256_hex(number.to_bytes(8, "big"))
        )
        event = party.event(body, charter=charter, head=empty, trace=_TRACE)
        acts.append(seal_event(event, (party.signing_key,)))
    return acts


def proofs(count: int, samples: int) -> dict[str, float]:
    """Prove entries of a large log straight from its database; times in ms."""
    log_key = NoteSigner("bench.example/log", os.urandom(32))
    with tempfile.TemporaryDirectory() as directory:
        store = Store(Path(directory) / "ledger.db")
        _fill(store, log_key, count)

        def nodes() -> merkle.Nodes:
            # Anew for each proof, as the ledger does.
            return tiles.node_reader(store.tile)

        inclusion = _times(
            samples, lambda i: merkle.prove_inclusion(nodes(), i * 7919 % count, count)
        )
        consistency = _times(
            samples, lambda i: merkle.prove_consistency(nodes(), 1 + i * 7919 % (count - 1), count)
        )
        store.close()
    return {
        "entries": count,
        "inclusion_p50_ms": statistics.median(inclusion),
        "inclusion_p99_ms": statistics.quantiles(inclusion, n=100)[98],
        "consistency_p99_ms": statistics.quantiles(consistency, n=100)[98],
    }


def _times(samples: int, work: Callable[[int], object]) -> list[float]:
    times = []
    for number in range(samples):
        began = time.perf_counter()
        work(number)
        times.append((time.perf_counter() - began) * 1000)
    return times


def _fill(store: Store, log_key: NoteSigner, count: int) -> None:
    head = Head(origin=log_key.name, log_vkey=log_key.vkey, size=0, root=merkle.EMPTY_ROOT, epoch=0)
    store.start(head)
    edge = tiles.RightEdge()
    for start in range(0, count, _BATCH):
        leaves = [n.to_bytes(8, "big") * 8 for n in range(start, min(start + _BATCH, count))]
        hashes = [merkle.leaf_hash(leaf) for leaf in leaves]
        grown = edge.grow(hashes)
        after = Head(
            origin=head.origin,
            log_vkey=head.log_vkey,
            size=grown.size,
            root=grown.root,
            epoch=head.epoch,
        )
        tree_head = TreeHead(grown.size, Digest(grown.root.hex()))
        store.commit(
            Batch(
                before=head,
                after=after,
                entries=[
                    NewEntry(
                        idx=start + i,
                        leaf_hash=hashes[i],
                        event_id=hashes[i].hex()[:32],
                        type="x",
                        actor="x",
                        run="",
                        round=0,
                        received_at=0,
                        data=leaf,
                    )
                    for i, leaf in enumerate(leaves)
                ],
                tiles=[
                    NewTile(level=level, n=n, data=bytes(data), created=(level, n) in grown.created)
                    for (level, n), data in grown.tiles.items()
                ],
                note=sign(Checkpoint(log_key.name, tree_head), log_key),
                created_at=0,
            )
        )
        edge.accept(grown)
        head = after


def main() -> None:
    """Print the figures, each next to its limit, as a table or as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--entries", type=int, default=1_000_000, help="of the log to prove from")
    parser.add_argument("--acts", type=int, default=1500, help="signed acts to replay")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    figures = hashing(70_000) | signatures(args.acts) | proofs(args.entries, 1000)
    if args.json:
        print(json.dumps(figures))
        return
    rows = (
        ("hashes verified /s", "verified_hashes_per_s", ">= 300,000", "hashlib_per_s"),
        ("signatures verified /s", "verified_signatures_per_s", ">= 8,000", "ed25519_per_s"),
        ("of acts replayed whole /s", "replayed_signatures_per_s", "", "ed25519_per_s"),
        (f"inclusion p99 ms at {args.entries:,}", "inclusion_p99_ms", "<= 5", "inclusion_p50_ms"),
        ("consistency p99 ms", "consistency_p99_ms", "<= 5", "inclusion_p50_ms"),
    )
    for name, key, limit, beside in rows:
        print(f"{name:<32} {figures[key]:>12,.2f}   {limit:<10}  {beside} {figures[beside]:,.2f}")


if __name__ == "__main__":
    main()
