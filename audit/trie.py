"""A persistent map: a change makes a new map and leaves the old one as it was, in logarithmic time.

Decides nothing. The ledger's state is a value, and copying dictionaries of a million entries for each
act is not. Keys are hex texts of one length in one map. Pure.
"""

from collections.abc import Iterator, Mapping
from typing import TypeVar, cast

V = TypeVar("V")
_MISSING = object()
_HEX = {digit: value for value, digit in enumerate("0123456789abcdef")}
_EMPTY_BRANCH: tuple[object, ...] = (None,) * 16

# A node is None, a list [key, value] (never changed), or a tuple of 16 nodes.


class Trie(Mapping[str, V]):
    """An immutable mapping; `with_item` returns the changed one. Iterates in key order."""

    __slots__ = ("_root", "_size")

    def __init__(self) -> None:
        self._root: object = None
        self._size = 0

    def with_item(self, key: str, value: V) -> "Trie[V]":
        """Return this map with `key` set."""
        changed: Trie[V] = Trie()
        changed._size = self._size + (self._find(key) is _MISSING)
        changed._root = _insert(self._root, key, value, 0)
        return changed

    def _find(self, key: str) -> object:
        node, depth = self._root, 0
        while type(node) is tuple:
            digit = _HEX.get(key[depth : depth + 1])
            if digit is None:
                return _MISSING
            node, depth = node[digit], depth + 1
        if node is None:
            return _MISSING
        leaf = cast(list[object], node)
        return leaf[1] if leaf[0] == key else _MISSING

    def __getitem__(self, key: str) -> V:
        value = self._find(key)
        if value is _MISSING:
            raise KeyError(key)
        return cast(V, value)

    def __iter__(self) -> Iterator[str]:
        stack = [self._root]
        while stack:
            node = stack.pop()
            if type(node) is tuple:
                stack.extend(reversed(node))
            elif node is not None:
                yield cast(str, cast(list[object], node)[0])

    def __len__(self) -> int:
        return self._size


def _insert(node: object, key: str, value: object, depth: int) -> object:
    if node is None:
        return [key, value]
    if type(node) is tuple:
        digit = _HEX[key[depth]]
        child = _insert(node[digit], key, value, depth + 1)
        return (*node[:digit], child, *node[digit + 1 :])
    leaf = cast(list[object], node)
    if leaf[0] == key:
        return [key, value]
    other = cast(str, leaf[0])
    digit = _HEX[other[depth]]
    branch = (*_EMPTY_BRANCH[:digit], leaf, *_EMPTY_BRANCH[digit + 1 :])
    return _insert(branch, key, value, depth)
