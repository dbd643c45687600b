"""The bundle: a log up to one cosigned checkpoint in one file, and its offline verifier.

Decides whether every byte of the file follows from what the log and its witnesses signed. Trusts the
pinned keys and nothing else; without a pin it says so in its findings. Needs `cryptography` alone.
The files inside lie as C2SP tlog-tiles asks, so an unpacked bundle is a static log.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from audit import archive, merkle, tiles
from audit.checkpoint import SignedCheckpoint, open_checkpoint
from audit.faults import unverified, unwritable
from audit.note import NoteVerifier
from audit.policy import Cosignature, WitnessPolicy, policy_of
from audit.records import State
from audit.replay import Replay, replay
from audit.summary import RunSummary, summarise
from audit.tree_check import check_tree
from audit.validation import validations
from audit.verifier.page import is_known, page
from fedproto.durable import write_atomic
from fedproto.errors import LocalFault
from fedproto.ids import Digest, sha256_hex
from fedproto.statements import SignedEvent

SUMS, CHECKPOINT, LOG_KEY, POLICY = "SHA256SUMS", "checkpoint", "log.vkey", "policy"
PAGE = "verify.html"
# Explanations for people; listed in SHA256SUMS, not part of what is proven.
ATTACHMENTS = "attachments/"


@dataclass(frozen=True, slots=True, kw_only=True)
class Pinned:
    """What the verifier knows from elsewhere: the log's key and the first charter's digest."""

    log_vkey: str | None = None
    genesis_sha256: Digest | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Findings:
    """What was verified. `unpinned` names what was taken from the bundle itself."""

    checkpoint: SignedCheckpoint
    cosignatures: tuple[Cosignature, ...]
    validations: tuple[Cosignature, ...]
    policy: WitnessPolicy
    state: State
    entries: tuple[bytes, ...]
    events: tuple[SignedEvent, ...]
    runs: tuple[RunSummary, ...]
    unpinned: tuple[str, ...]


def write(
    path: Path,
    *,
    note: bytes,
    entries: Sequence[bytes],
    policy: WitnessPolicy,
    attachments: dict[str, bytes] | None = None,
) -> None:
    """Write a bundle; the same log gives the same bytes. Raise RNM-DISK-0001, RNM-LEDGER-0002."""
    edge = tiles.RightEdge()
    grown = edge.grow([merkle.leaf_hash(entry) for entry in entries])
    members = {
        CHECKPOINT: note,
        LOG_KEY: f"{policy.log.vkey}\n".encode(),
        POLICY: policy.text.encode(),
        PAGE: page(),
    }
    for tile in tiles.hash_tiles(len(entries)):
        members[tile.path] = bytes(grown.tiles[tile.level, tile.n])
    for n, width in tiles.widths(len(entries)):
        first = n * tiles.WIDTH
        members[tiles.bundle_path(n, width)] = tiles.encode_bundle(entries[first : first + width])
    for name in sorted(attachments or {}):
        members[ATTACHMENTS + name] = (attachments or {})[name]
    try:
        packed = archive.pack({SUMS: _sums(members), **members})
    except ValueError as error:
        raise unwritable(
            str(error), "publish the log as files instead; a mirror holds them"
        ) from None
    write_atomic(path, packed)


def verify(path: Path, *, pinned: Pinned) -> Findings:
    """Verify a bundle whole, offline.

    Raises:
        LocalFault: RNM-LEDGER-0003 naming a changed entry by its index; RNM-LEDGER-0001 naming what
            else differs; RNM-LEDGER-0006 too few witnesses; RNM-CONF-0001 the file cannot be read.
    """
    data = _read(path)
    members = archive.unpack(data)
    log = _log_key(members, pinned)
    signed = open_checkpoint(_member(members, CHECKPOINT), log, log.name)
    entries = check_tree(
        signed.head,
        lambda level, n: _tile(members, signed.head.size, level, n),
        lambda n, width: _member(members, tiles.bundle_path(n, width)),
    )
    found = replay(entries, genesis_sha256=pinned.genesis_sha256)
    events = _require_valid(found)
    policy = policy_of(found.state.charter)
    if policy.log.vkey != log.vkey:
        raise unverified("the bundle was refused", "its charter names another log key")
    cosigned = policy.check_quorum(signed)
    validated = validations(found.state.charter, signed.note)
    known = {item.line for item in validated}
    if any(line not in known for line in policy.strangers(signed.note)):
        raise unverified(
            "the checkpoint was refused", "a line under it is neither the log's nor a witness's"
        )
    _check_members(members, signed.head.size, policy)
    archive.check_layout(data, members)
    unpinned = (("log_vkey", pinned.log_vkey), ("genesis_sha256", pinned.genesis_sha256))
    return Findings(
        checkpoint=signed,
        cosignatures=cosigned.cosignatures,
        validations=validated,
        policy=policy,
        state=found.state,
        entries=tuple(entries),
        events=events,
        runs=summarise(found.state),
        unpinned=tuple(name for name, value in unpinned if value is None),
    )


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise LocalFault(
            "RNM-CONF-0001",
            what=f"{path} was not verified",
            why=os.strerror(error.errno or 0),
            mend="name a bundle file that this user may read",
        ) from None


def _log_key(members: dict[str, bytes], pinned: Pinned) -> NoteVerifier:
    text = _member(members, LOG_KEY).decode("utf-8", "replace")
    if pinned.log_vkey is not None and text != f"{pinned.log_vkey}\n":
        raise unverified("the bundle was refused", "it names another log key than the one pinned")
    try:
        return NoteVerifier.from_vkey(text.removesuffix("\n"))
    except ValueError as error:
        raise unverified("the bundle's log.vkey was refused", str(error)) from None


def _member(members: dict[str, bytes], name: str) -> bytes:
    if name not in members:
        raise unverified("the bundle was refused", f"{name} is missing")
    return members[name]


def _tile(members: dict[str, bytes], size: int, level: int, n: int) -> bytes:
    width = min(tiles.WIDTH, size // tiles.WIDTH**level - n * tiles.WIDTH)
    return _member(members, tiles.tile_path(level, n, width))


def _require_valid(found: Replay) -> tuple[SignedEvent, ...]:
    if found.violations:
        first = found.violations[0]
        raise unverified(
            "the ledger was refused",
            f"entry {first.index} does not follow: {first.code} {first.why}"
            + (f" (and {len(found.violations) - 1} more)" if len(found.violations) > 1 else ""),
        )
    return tuple(event for event in found.events if event is not None)


def _check_members(members: dict[str, bytes], size: int, policy: WitnessPolicy) -> None:
    """Refuse a file too many, too few, in another order, or with another content than listed."""
    if _member(members, POLICY) != policy.text.encode():
        raise unverified(
            "the bundle's policy was refused", "it is not that of the charter in force"
        )
    if not is_known(_member(members, PAGE)):
        raise unverified(
            "the bundle was refused",
            f"its {PAGE} is not a verifier page that this version knows",
            "do not open that page: it could say anything. Ask for the bundle again",
        )
    expected = [SUMS, CHECKPOINT, LOG_KEY, POLICY, PAGE]
    expected += [tile.path for tile in tiles.hash_tiles(size)]
    expected += [tiles.bundle_path(n, width) for n, width in tiles.widths(size)]
    expected += sorted(name for name in members if name.startswith(ATTACHMENTS))
    if list(members) != expected:
        stray = sorted(set(members) - set(expected))
        raise unverified("the bundle was refused", f"its files are not those of a bundle: {stray}")
    rest = {name: data for name, data in members.items() if name != SUMS}
    if members[SUMS] != _sums(rest):
        raise unverified("the bundle's SHA256SUMS was refused", "a file differs from what it lists")


def _sums(members: dict[str, bytes]) -> bytes:
    return b"".join(f"{sha256_hex(data)}  {name}\n".encode() for name, data in members.items())
