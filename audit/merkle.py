"""The Merkle tree: hashes, inclusion and consistency proofs, and their verification.

Decides whether a leaf is in a tree and whether one tree extends another. Trusts SHA-256 alone; never
sees a file. Implements RFC 6962 section 2.1; verification follows RFC 9162 sections 2.1.3.2 and 2.1.4.2,
with 32-byte hashes enforced and the cases of size 0 and equal sizes decided here. Pure.
"""

import hashlib
from collections.abc import Callable, Iterable, Sequence

from audit.faults import unverified

HASH_BYTES = 32
EMPTY_ROOT = hashlib.sha256(b"").digest()

# (height, index) to the hash of the complete subtree of 2^height leaves from index * 2^height.
Nodes = Callable[[int, int], bytes]

# The roots of the complete subtrees that make up a tree, largest first (a compact range from 0).
Frontier = tuple[bytes, ...]


def leaf_hash(entry: bytes) -> bytes:
    """Return the hash of a leaf."""
    return hashlib.sha256(b"\x00" + entry).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """Return the hash of an inner node."""
    return hashlib.sha256(b"\x01" + left + right).digest()


def extend(frontier: Frontier, size: int, leaf: bytes) -> Frontier:
    """Return the frontier of a tree of `size` leaves after one more leaf hash."""
    stack, carry = list(frontier), leaf
    while size & 1:
        carry = node_hash(stack.pop(), carry)
        size >>= 1
    return (*stack, carry)


def frontier_root(frontier: Frontier) -> bytes:
    """Return the root of the tree that a frontier describes."""
    if not frontier:
        return EMPTY_ROOT
    root = frontier[-1]
    for peak in reversed(frontier[:-1]):
        root = node_hash(peak, root)
    return root


def root_of(leaves: Iterable[bytes]) -> bytes:
    """Return the root over leaf hashes."""
    frontier: Frontier = ()
    for size, leaf in enumerate(leaves):
        frontier = extend(frontier, size, leaf)
    return frontier_root(frontier)


def subtree_root(nodes: Nodes, start: int, end: int) -> bytes:
    """Return MTH(D[start:end]); `start` must be aligned as the RFC's own splits are."""
    size = end - start
    if size == 0:
        return EMPTY_ROOT
    if size & (size - 1) == 0:
        height = size.bit_length() - 1
        return nodes(height, start >> height)
    middle = start + _split(size)
    return node_hash(subtree_root(nodes, start, middle), subtree_root(nodes, middle, end))


def prove_inclusion(nodes: Nodes, index: int, size: int) -> list[bytes]:
    """Return PATH(index, D[size]).

    Raises:
        ValueError: there is no such leaf.
    """
    if not 0 <= index < size:
        raise ValueError(f"a tree of {size} leaves has no leaf {index}")
    start, end, path = 0, size, []
    while end - start > 1:
        middle = start + _split(end - start)
        if index < middle:
            path.append(subtree_root(nodes, middle, end))
            end = middle
        else:
            path.append(subtree_root(nodes, start, middle))
            start = middle
    return path[::-1]


def prove_consistency(nodes: Nodes, old: int, size: int) -> list[bytes]:
    """Return PROOF(old, D[size]); empty when `old` is 0 or `size`.

    Raises:
        ValueError: the old tree is larger than the new one.
    """
    if not 0 <= old <= size:
        raise ValueError(f"a tree of {size} leaves does not extend one of {old}")
    if old in {0, size}:
        return []
    start, end, path = 0, size, []
    while end != old:
        middle = start + _split(end - start)
        if old <= middle:
            path.append(subtree_root(nodes, middle, end))
            end = middle
        else:
            path.append(subtree_root(nodes, start, middle))
            start = middle
    # The last subtree is the old tree itself exactly when nothing was cut off to its left.
    if start:
        path.append(subtree_root(nodes, start, end))
    return path[::-1]


def verify_inclusion(
    leaf: bytes, index: int, size: int, proof: Sequence[bytes], root: bytes
) -> None:
    """Raise RNM-LEDGER-0001 unless `leaf` is leaf `index` of the tree of `size` leaves."""
    what = _inclusion_proof(index)
    _check_hashes(what, root)
    if root_from_inclusion(leaf, index, size, proof) != root:
        raise unverified(what, "it leads to another root")


def root_from_inclusion(leaf: bytes, index: int, size: int, proof: Sequence[bytes]) -> bytes:
    """Return the root to which a proof leads; raise RNM-LEDGER-0001 if it fits no such leaf."""
    what = _inclusion_proof(index)
    _check_hashes(what, leaf, *proof)
    if not 0 <= index < size:
        raise unverified(what, f"a tree of {size} leaves has no leaf {index}")
    position, last, computed = index, size - 1, leaf
    for sibling in proof:
        if last == 0:
            raise unverified(what, "it has more hashes than the tree has levels")
        if position & 1 or position == last:
            computed = node_hash(sibling, computed)
            position, last = _skip_left_edge(position, last)
        else:
            computed = node_hash(computed, sibling)
        position, last = position >> 1, last >> 1
    if last != 0:
        raise unverified(what, "it has fewer hashes than the tree has levels")
    return computed


def verify_consistency(
    old: int, size: int, old_root: bytes, root: bytes, proof: Sequence[bytes]
) -> None:
    """Raise RNM-LEDGER-0001 unless the tree (size, root) extends the tree (old, old_root)."""
    what = f"the consistency proof from {old} to {size} was refused"
    _check_hashes(what, old_root, root, *proof)
    if not 0 <= old <= size:
        raise unverified(what, "the tree would have shrunk")
    if old in {0, size}:
        if proof:
            raise unverified(what, "between these sizes a proof has no hashes")
        if (old == 0 and old_root != EMPTY_ROOT) or (old == size and old_root != root):
            raise unverified(what, "two roots for one size")
        return
    if not proof:
        raise unverified(what, "it has no hashes")
    # A complete old tree is itself the first node of the path.
    path = [old_root, *proof] if old & (old - 1) == 0 else list(proof)
    old_computed, computed = _fold_consistency(what, old, size, path)
    if old_computed != old_root:
        raise unverified(what, "it does not lead to the old root")
    if computed != root:
        raise unverified(what, "it does not lead to the new root")


def _fold_consistency(what: str, old: int, size: int, path: list[bytes]) -> tuple[bytes, bytes]:
    position, last = old - 1, size - 1
    while position & 1:
        position, last = position >> 1, last >> 1
    old_computed = computed = path[0]
    for sibling in path[1:]:
        if last == 0:
            raise unverified(what, "it has too many hashes")
        if position & 1 or position == last:
            old_computed = node_hash(sibling, old_computed)
            computed = node_hash(sibling, computed)
            position, last = _skip_left_edge(position, last)
        else:
            computed = node_hash(computed, sibling)
        position, last = position >> 1, last >> 1
    if last != 0:
        raise unverified(what, "it has too few hashes")
    return old_computed, computed


def _skip_left_edge(position: int, last: int) -> tuple[int, int]:
    """Climb over levels at which the rightmost node has no sibling."""
    while position and not position & 1:
        position, last = position >> 1, last >> 1
    return position, last


def _split(size: int) -> int:
    """Return the largest power of two below `size`."""
    return 1 << ((size - 1).bit_length() - 1)


def _inclusion_proof(index: int) -> str:
    return f"the inclusion proof of entry {index} was refused"


def _check_hashes(what: str, *hashes: bytes) -> None:
    if any(len(value) != HASH_BYTES for value in hashes):
        raise unverified(what, f"a hash is not {HASH_BYTES} bytes long")
