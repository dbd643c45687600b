"""A log of plain entries that a test grows and publishes with the product's own code."""

import hashlib
from pathlib import Path

from audit import merkle, proof, publication, tiles
from audit.checkpoint import Checkpoint, TreeHead, sign
from audit.note import Note, NoteSigner, parse
from audit.policy import WitnessPolicy
from fedproto.ids import Digest

ORIGIN = "ledger.example/foreign"
TIME = 1_790_000_060


def seed(text: str) -> bytes:
    return hashlib.sha256(f"published:{text}".encode()).digest()


LOG_KEY = NoteSigner(ORIGIN, seed("log"))
WITNESSES = tuple(
    NoteSigner(f"w.example/{name}", seed(name), cosigner=True) for name in ("a", "b", "c", "d")
)
# One more, of the kind that x/mod does not know.
POST_QUANTUM = NoteSigner("w.example/pq", seed("pq"), cosigner=True, post_quantum=True)
POLICY = WitnessPolicy.from_text(
    f"log {LOG_KEY.vkey}\n"
    + "".join(f"witness {key.name} {key.vkey}\n" for key in (*WITNESSES, POST_QUANTUM))
    + f"group g 3 {' '.join(key.name for key in (*WITNESSES, POST_QUANTUM))}\nquorum g\n"
)


def entry(index: int) -> bytes:
    """Entries of many lengths, the shortest among them, and one that a name makes the longest."""
    if index == 1:
        return b""
    if index == 2:
        return b"x" * (tiles.MAX_ENTRY - 4)
    return b"entry %d " % index * (index % 7 + 1)


class PublishedLog:
    """A log in memory and its files."""

    def __init__(self, root: Path, name: str = "") -> None:
        self.root, self._name = root, name
        self.entries: list[bytes] = []
        self._edge = tiles.RightEdge()
        self._tiles: dict[tuple[int, int], bytes] = {}

    @property
    def size(self) -> int:
        return len(self.entries)

    def grow(self, size: int) -> None:
        added = [entry(index) + self._name.encode() for index in range(self.size, size)]
        grown = self._edge.grow([merkle.leaf_hash(item) for item in added])
        self._tiles |= {key: bytes(tile) for key, tile in grown.tiles.items()}
        self._edge.accept(grown)
        self.entries += added

    def publish(self, size: int) -> bytes:
        """Grow to a size, publish it, and return the checkpoint."""
        before = self.size
        self.grow(size)
        note = self.note()
        content = publication.Content(
            size=size,
            note=note,
            entries=lambda start, end: self.entries[start:end],
            tile=self.tile,
        )
        publication.publish(self.root, content, after=before)
        return note

    def tile(self, level: int, n: int) -> bytes:
        return self._tiles[level, n]

    @property
    def head(self) -> TreeHead:
        return TreeHead(self.size, Digest(self._edge.root.hex()))

    def note(self, witnesses: tuple[NoteSigner, ...] = (*WITNESSES, POST_QUANTUM)) -> bytes:
        signed = parse(sign(Checkpoint(ORIGIN, self.head), LOG_KEY))
        lines = tuple(key.cosign(signed.text, TIME) for key in witnesses)
        return Note(signed.text, (*signed.lines, *lines)).encode()

    def hashes(self, index: int) -> list[bytes]:
        return merkle.prove_inclusion(tiles.node_reader(self.tile), index, self.size)

    def proof(self, index: int, extra: bytes = b"") -> bytes:
        return proof.make(index, self.hashes(index), self.note(), extra)
