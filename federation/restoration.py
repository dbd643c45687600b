"""Bringing a restored ledger up to what its witnesses know, from a member's mirror.

Decides nothing: the mirror was verified whole (log signature, quorum, every act), and its entries are
admitted here once more, at the same places. A mirror of another history is refused, with the evidence
written down. A shell module.
"""

from collections.abc import Callable
from pathlib import Path

from audit import misbehaviour
from audit.ledger import Ledger
from audit.mirror import Mirror
from audit.note import Note, parse
from audit.policy import policy_of
from audit.validation import validations
from federation.guard import EVIDENCE
from fedproto.durable import make_private_directory, write_atomic
from fedproto.errors import LocalFault

_PAGE = 256


def restore(
    ledger: Ledger, mirror: Mirror, directory: Path, progress: Callable[[int], None]
) -> int:
    """Append what the mirror holds beyond this ledger; return how many entries that were.

    Args:
        ledger: the coordinator's, opened and verified.
        mirror: a member's, opened and verified with the same pins.
        directory: where evidence of a fork is written.
        progress: told how many more entries are in.

    Raises:
        LocalFault: RNM-LEDGER-0004 the mirror has another history; RNM-CONF-0001 it has nothing more.
    """
    own, there = ledger.head, mirror.head
    if mirror.note is None or there.size <= own.size:
        raise LocalFault(
            "RNM-CONF-0001",
            what="nothing was recovered",
            why=f"the mirror has {there.size} entries, this ledger {own.size}",
            mend="use the mirror of the member whose witness knew more",
        )
    if mirror.state.root_at(own.size) != own.root:
        raise _fork(ledger, mirror, directory)
    for start in range(own.size, there.size, _PAGE):
        page = mirror.entries(start, min(start + _PAGE, there.size))
        for leaf in page:
            ledger.append(leaf)
        progress(len(page))
    _keep_cosignatures(ledger, parse(mirror.note), there.size)
    return there.size - own.size


def _keep_cosignatures(ledger: Ledger, note: Note, size: int) -> None:
    """Take over the cosignatures under the mirror's checkpoint: that size is published already."""
    charter = ledger.state.charter_at(size)
    lines = [item.line for item in policy_of(charter).cosignatures(note)]
    lines += [item.line for item in validations(charter, note)]
    ledger.add_cosignatures(size, b"".join(line.encode() for line in lines))


def _fork(ledger: Ledger, mirror: Mirror, directory: Path) -> LocalFault:
    own, note = ledger.head, mirror.note
    assert note is not None  # noqa: S101  # checked by the caller
    evidence = misbehaviour.pack(
        ledger.state.charter.log_vkey,
        larger=note,
        smaller=ledger.signed_checkpoint(),
        root=mirror.state.root_at(own.size),
        proof=mirror.prove_consistency(own.size, mirror.head.size),
    )
    make_private_directory(directory / EVIDENCE)
    path = directory / EVIDENCE / f"fork-{own.size}-{own.root[:16]}.json"
    write_atomic(path, evidence, mode=0o600)
    return LocalFault(
        "RNM-LEDGER-0004",
        what="nothing was recovered: the mirror has another history",
        why=f"at size {own.size} the log key signed this ledger's root and another one",
        mend=f"show {path} to the other members and the auditors: it proves it offline "
        "(`renmei audit evidence`)",
    )
