"""A persistent map: a change makes a new map and leaves the old one as it was, in logarithmic time.

Decides nothing. The ledger's state is a value, and copying dictionaries of a million entries for each
act is not. Keys are hex texts of one length in one map. Pure.
"""

from collections.abc import Iterator, Mapping
from typing import Any, TypeAlias, TypeVar, cast

V = TypeVar("V")
_MISSING = object()
_HEX = {digit: value for value, digit in enumerate("0123456789abcdef")}
_WIDTH = len(_HEX)
_EMPTY_BRANCH: tuple[object, ...] = (None,) * _WIDTH

# A node is None, a leaf (key, value) or a branch of 16 nodes. Tuples alone: the garbage collector stops
# looking at those that hold nothing but texts, numbers and such tuples, however many entries there are.
_Node: TypeAlias = tuple[Any, ...] | None


class Trie(Mapping[str, V]):
    """An immutable mapping; `with_item` returns the changed one. Iterates in key order."""

    __slots__ = ("_root", "_size")

    def __init__(self) -> None:
        self._root: _Node = None
        self._size = 0

    def with_item(self, key: str, value: V) -> "Trie[V]":
        """Return this map with `key` set."""
        changed: Trie[V] = Trie()
        changed._root, is_new = _insert(self._root, key, value)
        changed._size = self._size + is_new
        return changed

    def _find(self, key: str) -> object:
        node, depth = self._root, 0
        while node is not None and len(node) == _WIDTH:
            digit = _HEX.get(key[depth : depth + 1])
            if digit is None:
                return _MISSING
            node, depth = node[digit], depth + 1
        return node[1] if node is not None and node[0] == key else _MISSING

    def __getitem__(self, key: str) -> V:
        value = self._find(key)
        if value is _MISSING:
            raise KeyError(key)
        return cast(V, value)

    def __iter__(self) -> Iterator[str]:
        stack: list[_Node] = [self._root]
        while stack:
            node = stack.pop()
            if node is None:
                continue
            if len(node) == _WIDTH:
                stack.extend(reversed(node))
            else:
                yield cast(str, node[0])

    def __len__(self) -> int:
        return self._size


def _insert(node: _Node, key: str, value: object) -> tuple[_Node, bool]:
    """Return the node with `key` set, and whether it is new there."""
    path: list[tuple[tuple[Any, ...], int]] = []
    while node is not None and len(node) == _WIDTH:
        digit = _HEX[key[len(path)]]
        path.append((node, digit))
        node = node[digit]
    is_new = node is None or node[0] != key
    if node is not None and is_new:
        # Another key stands here: branches down to where the two part.
        depth = len(path)
        while key[depth] == node[0][depth]:
            path.append((_EMPTY_BRANCH, _HEX[key[depth]]))
            depth += 1
        path.append((_put(_EMPTY_BRANCH, _HEX[node[0][depth]], node), _HEX[key[depth]]))
    changed: tuple[Any, ...] = (key, value)
    for branch, digit in reversed(path):
        changed = _put(branch, digit, changed)
    return changed, is_new


def _put(branch: tuple[Any, ...], digit: int, node: _Node) -> tuple[Any, ...]:
    nodes = list(branch)
    nodes[digit] = node
    return tuple(nodes)
