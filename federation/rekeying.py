"""Replacing and ending a party's own keys so that a `kill -9` between any two steps costs nothing.

Decides which of two key files is in force by the verified ledger alone, never by what a file is called.
The new key is durable beside the old one before anyone hears of it; the old file gives way only after
witnesses have cosigned the entry. A rerun reads the ledger and finishes. A shell module.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from audit.directory_lock import DirectoryLock
from audit.records import State
from federation.client import CoordinatorClient
from fedproto.durable import sync_directory
from fedproto.errors import FederationError, LocalFault
from fedproto.events.governance import KeyChanged, KeyOperation, KeyUse, PublicKey
from fedproto.governance.rules import refuse
from fedproto.identity import SigningKey
from fedproto.ids import KeyId
from fedproto.party import seed_file, write_seed

ACTING_KEY = "acting.key"
# What the coordinator answers when an earlier attempt is in the ledger, but not cosigned yet.
_OVERTAKEN = ("RNM-SIG-0002", "RNM-GOV-0001", "RNM-GOV-0003")
_WAIT_S = 20.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Rekeyed:
    """What became of a key: the entry, the key that ended, the one whose file is in place now."""

    index: int
    ended: KeyId
    now: SigningKey
    finished_earlier: bool


def beside(path: Path) -> Path:
    """Return where the next key waits until it is in force."""
    return path.with_name(f"{path.name}.next")


def rotate(client: CoordinatorClient, path: Path, use: KeyUse) -> Rekeyed:
    """Replace the key in `path` by a fresh one; finish an interrupted rotation first.

    Raises:
        LocalFault: RNM-KEY-0003 neither file holds the key in force; RNM-GOV-* the ledger refuses;
            RNM-LEDGER-0006 the entry is not cosigned yet: run it again.
    """
    with _alone(path):
        old = SigningKey(seed_file(path, 64))
        new = _make_next(path)
        state = client.sync()
        if _in_force(client, state, use) == new.verify_key.key_id:
            return _replaced(state, path, old, new, earlier=True)
        _require_held(client, state, use, old)
        new = _make_unknown(path, state)
        body = KeyChanged(
            op=KeyOperation.ROTATE,
            use=use,
            key=old.verify_key.key_id,
            new=PublicKey.of(new.verify_key),
            reason="",
            proposal="",
            votes=(),
        )
        state, earlier = _send(client, state, body, (new,), old)
        if _in_force(client, state, use) != new.verify_key.key_id:
            raise refuse(
                "the rotation is in the ledger, and its key was ended since", "RNM-GOV-0003"
            )
        return _replaced(state, path, old, new, earlier=earlier)


def revoke(client: CoordinatorClient, path: Path, recovery: SigningKey, reason: str) -> Rekeyed:
    """End this party's acting key by its recovery key; leave a fresh one in `path` for a new seat.

    Raises:
        LocalFault: RNM-GOV-0003 no acting key is in force; RNM-GOV-* the ledger refuses.
    """
    with _alone(path):
        held = SigningKey(seed_file(path, 64))
        state = client.sync()
        key, earlier = _in_force(client, state, KeyUse.ACT), True
        if key is not None:
            body = KeyChanged(
                op=KeyOperation.REVOKE,
                use=KeyUse.ACT,
                key=key,
                new=None,
                reason=reason,
                proposal="",
                votes=(),
            )
            state, earlier = _send(client, state, body, (), recovery)
        elif held.verify_key.key_id not in state.keys:
            raise refuse(
                f"{client.party.profile.id} has no acting key in force; a new charter names the next "
                "one",
                "RNM-GOV-0003",
            )
        ended = key or held.verify_key.key_id
        if held.verify_key.key_id not in state.keys:
            # The lost key's file is gone, and this one was made since: no charter names it yet.
            return Rekeyed(
                index=_until(state, ended), ended=ended, now=held, finished_earlier=earlier
            )
        new = _make_unknown(path, state)
        _install(path)
        return Rekeyed(index=_until(state, ended), ended=ended, now=new, finished_earlier=earlier)


def _send(
    client: CoordinatorClient,
    before: State,
    body: KeyChanged,
    extra: tuple[SigningKey, ...],
    key: SigningKey,
) -> tuple[State, bool]:
    """Submit a change; return the verified state that holds it, and whether it was there before."""
    try:
        index = _submit(client, body, extra, key)
    except FederationError as error:
        if error.code not in _OVERTAKEN:
            raise
        state = _later(client, before)
        if state is None or state.key(body.key) is not None:
            raise
        return state, True
    return client.sync(min_size=index + 1), False


def _submit(
    client: CoordinatorClient, body: KeyChanged, extra: tuple[SigningKey, ...], key: SigningKey
) -> int:
    return client.submit(body, extra, key=key)


def _later(client: CoordinatorClient, before: State) -> State | None:
    """Return a later verified state, if witnesses cosign one in time."""
    try:
        return client.sync(min_size=before.size + 1, timeout_s=_WAIT_S)
    except FederationError:
        return None


def _in_force(client: CoordinatorClient, state: State, use: KeyUse) -> KeyId | None:
    """Return this party's key in force for a use; raise RNM-GOV-0001 where it has no seat."""
    seat = state.seats.get(client.party.profile.id)
    if seat is None:
        raise refuse(f"{client.party.profile.id} has no seat, and no key in the ledger")
    return seat.acting if use is KeyUse.ACT else seat.recovery


def _require_held(client: CoordinatorClient, state: State, use: KeyUse, old: SigningKey) -> None:
    found = _in_force(client, state, use)
    if found != old.verify_key.key_id:
        raise LocalFault(
            "RNM-KEY-0003",
            what="no key was rotated",
            why=f"in force for {use.value} is {found or 'no key'}; the file holds "
            f"{old.verify_key.key_id}",
            mend="restore the key in force from your own backup, or end it with `renmei govern "
            "revoke-key`",
        )


def _make_next(path: Path) -> SigningKey:
    """Make the next key durable beside `path`, unless it waits there already."""
    write_seed(beside(path), 64)
    return SigningKey(seed_file(beside(path), 64))


def _make_unknown(path: Path, state: State) -> SigningKey:
    """As `_make_next`, but never a key that the ledger knows: what an ended rotation left is no use."""
    new = _make_next(path)
    if new.verify_key.key_id in state.keys:
        beside(path).unlink()
        new = _make_next(path)
    return new


def _install(path: Path) -> None:
    """Put the next key in the place of the old one, durably."""
    os.replace(beside(path), path)
    sync_directory(path.parent)


def _replaced(
    state: State, path: Path, old: SigningKey, new: SigningKey, *, earlier: bool
) -> Rekeyed:
    _install(path)
    return Rekeyed(
        index=state.keys[new.verify_key.key_id].since,
        ended=old.verify_key.key_id,
        now=new,
        finished_earlier=earlier,
    )


def _until(state: State, key: KeyId) -> int:
    ended = state.keys[key].until
    if ended is None:
        raise refuse(f"key {key} is in force again", "RNM-GOV-0003")
    return ended


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Keep a second rotation in the same directory away (RNM-PROC-0003)."""
    with DirectoryLock(path.parent, code="RNM-PROC-0003"):
        yield
