"""Which entry was changed, found from the log's own signed checkpoints and its entries' signatures.

Decides where a difference lies once the entries no longer lead to the signed root, even if the hashes
beside them were made to agree. Trusts the checkpoints that it is given: their caller verified the log's
signature. No published file is asked. Pure.
"""

from collections.abc import Mapping, Sequence

from audit import merkle
from audit.faults import MEND_EVIDENCE, changed_entry
from audit.records import EMPTY
from audit.replay import advance
from fedproto.errors import LocalFault


def roots_at(hashes: Sequence[bytes], sizes: Sequence[int]) -> dict[int, bytes]:
    """Return the roots of the tree at some of its sizes."""
    wanted = set(sizes)
    frontier: merkle.Frontier = ()
    found: dict[int, bytes] = {}
    for index, leaf in enumerate(hashes):
        frontier = merkle.extend(frontier, index, leaf)
        if index + 1 in wanted:
            found[index + 1] = merkle.frontier_root(frontier)
    return found


def name_change(entries: Sequence[bytes], signed: Mapping[int, bytes]) -> LocalFault:
    """Return RNM-LEDGER-0003 naming the entry, or the few among which it is.

    `signed` are the roots that the log signed, by size. Up to the last one that the entries lead to,
    nothing was changed; something was before the next.
    """
    roots = roots_at([merkle.leaf_hash(entry) for entry in entries], list(signed))
    first, end = 0, len(entries)
    for size in sorted(signed):
        if roots.get(size) != signed[size]:
            end = size
            break
        first = size
    broken = _first_that_does_not_follow(entries[:end])
    if broken is not None and broken[0] >= first:
        return changed_entry(broken[0], f"it is not what was signed: {broken[1]}")
    if end - first == 1:
        return changed_entry(first, f"the log signed another one at size {end}")
    return LocalFault(
        "RNM-LEDGER-0003",
        what=f"one of the entries {first} to {end - 1} was changed",
        why=f"they do not lead to the root that the log signed at size {end}",
        mend=MEND_EVIDENCE,
    )


def _first_that_does_not_follow(entries: Sequence[bytes]) -> tuple[int, str] | None:
    state = EMPTY
    for index, entry in enumerate(entries):
        try:
            state, _ = advance(state, entry)
        except LocalFault as fault:
            return index, f"{fault.code} {fault.why}"
    return None
