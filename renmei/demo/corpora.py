"""The demo's corpora: four members that overlap in part, as in real life, and what is held out.

Half of a member's corpus is of its own domain, an eighth of each other member's, an eighth of common
documents; no document stands in two members' corpora. Reads only the cache; nothing is fetched here.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from base_model.corpus import BASE, COMMON, Split, build_domain, to_jsonl
from base_model.lockfile import Lock
from base_model.sources import Document
from fedproto.durable import make_private_directory, write_atomic
from renmei.demo.settings import MEMBERS, Settings

# Eighths of a member's corpus: own domain, each other domain, common documents.
_OWN, _OTHER, _COMMON = 4, 1, 1
_PARTS = _OWN + _OTHER * (len(MEMBERS) - 1) + _COMMON


@dataclass(frozen=True, slots=True, kw_only=True)
class TestSets:
    """Held-out texts, and the positions that make up each set that a column shows."""

    texts: tuple[str, ...]
    sets: dict[str, tuple[int, ...]]


def build(
    cache: Path, lock: Lock, on_done: Callable[[str], None] = lambda name: None
) -> dict[str, Split]:
    """Return the corpora of the four domains, the common one and the base's."""
    splits = {}
    for name in (*MEMBERS, COMMON, BASE):
        splits[name] = build_domain(name, cache, lock)
        on_done(name)
    return splits


def _shuffled(documents: Sequence[Document], seed: int) -> list[Document]:
    """Return documents in an order that follows from the seed and each document alone."""

    def rank(document: Document) -> bytes:
        return hashlib.sha256(f"{seed}\0{document.text}".encode()).digest()

    return sorted(documents, key=rank)


def _take(documents: list[Document], size: int) -> list[Document]:
    """Remove documents of about `size` bytes from the front and return them."""
    taken: list[Document] = []
    while documents and size > 0:
        taken.append(documents.pop(0))
        size -= len(taken[-1].text.encode())
    return taken


def deal(splits: dict[str, Split], settings: Settings, seed: int) -> dict[str, list[Document]]:
    """Return each member's training documents; they are disjoint."""
    decks = {name: _shuffled(split.train, seed) for name, split in splits.items()}
    part = settings.train_bytes // _PARTS
    dealt: dict[str, list[Document]] = {}
    for member in MEMBERS:
        hand = _take(decks[member], _OWN * part)
        for other in MEMBERS:
            if other != member:
                hand += _take(decks[other], _OTHER * part)
        hand += _take(decks[COMMON], _COMMON * part)
        dealt[member] = _shuffled(hand, seed)
    return dealt


def give(root: Path, dealt: dict[str, list[Document]]) -> None:
    """Put each member's corpus into its own directory."""
    for member, documents in dealt.items():
        make_private_directory(root / member / "data")
        write_atomic(root / member / "data" / "train.jsonl", to_jsonl(documents), mode=0o600)


def hold_out(splits: dict[str, Split], settings: Settings, seed: int) -> TestSets:
    """Return held-out documents of each domain, and each member's mixture of them."""
    texts: list[str] = []
    places: dict[str, list[int]] = {}
    sizes: list[int] = []
    for name, split in splits.items():
        chosen = _take(_shuffled(split.test, seed), settings.test_bytes)
        places[name] = list(range(len(texts), len(texts) + len(chosen)))
        texts += [document.text for document in chosen]
        sizes += [len(document.text.encode()) for document in chosen]
    sets = {member: tuple(places[member]) for member in MEMBERS}
    unit = settings.test_bytes // _PARTS
    for member in MEMBERS:
        shares = dict.fromkeys(MEMBERS, _OTHER) | {member: _OWN, COMMON: _COMMON}
        mixed: list[int] = []
        for name, share in shares.items():
            left = share * unit
            for place in places[name]:
                if left <= 0:
                    break
                mixed.append(place)
                left -= sizes[place]
        sets[f"mixture {member}"] = tuple(mixed)
    return TestSets(texts=tuple(texts), sets=sets)
