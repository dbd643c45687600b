"""Phases 0 and 1 at the coordinator: who advertised which keys, and who dealt what to whom.

Decides U1 with h1 and U2 with h2, and which parts an entry must have. It checks all that it relays,
so that members may blame the coordinator for what they find wrong. Sees public keys, commitments and
sealed shares. Implements SA-1 (Advertise, ShareKeys). Pure.
"""

from collections.abc import Iterator, Mapping

from fedproto.ids import MemberId
from fedproto.secagg.dealing import Edge
from fedproto.secagg.faults import not_genuine
from fedproto.secagg.graph import neighbours
from fedproto.secagg.keying_messages import (
    Advertise,
    DealtShare,
    EncryptedShares,
    KeyList,
    SealedShare,
    ShareList,
    key_list_digest,
    share_list_digest,
)
from fedproto.secagg.messages import encode
from fedproto.secagg.params import Params


class Keying:
    """The keys and the dealt shares of one attempt."""

    def __init__(self, ctx: bytes, params: Params) -> None:
        self.ctx = ctx
        self._params = params
        self.h1 = self.h2 = b""
        self.keys: dict[MemberId, Advertise] = {}
        self.shares: dict[MemberId, EncryptedShares] = {}
        self._taken: set[bytes] = set()
        self._places: dict[MemberId, int] = {}
        self._near: dict[MemberId, tuple[MemberId, ...]] = {}

    def add_keys(self, member: MemberId, message: Advertise) -> None:
        """Take a member's signed keys; refuse one that was advertised before or cannot be used."""
        raw = set(message.raw_keys)
        if len(raw) != len(message.raw_keys) or raw & self._taken:
            raise not_genuine(member, "it advertised a key that was advertised before")
        try:
            message.mask.require_usable()
            message.channel.require_usable()
        except ValueError:
            raise not_genuine(member, "its keys cannot be used") from None
        self._taken |= raw
        self.keys[member] = message

    def fix_keys(self, present: Mapping[MemberId, Advertise]) -> bytes:
        """Fix U1 and return the key list."""
        self._take(present)
        keys = tuple(self.keys.values())
        self.h1 = key_list_digest(self.ctx, keys)
        return encode(KeyList(keys=keys))

    def narrow(self, names: tuple[MemberId, ...], params: Params) -> None:
        """After phase 0: go on with one group; h1 stays that of the whole list."""
        self._params, self.shares, self._near = params, {}, {}
        self._take({name: self.keys[name] for name in names})

    def add_shares(self, member: MemberId, message: EncryptedShares) -> None:
        """Take what a member signed that it deals; refuse other parts than the graph calls for."""
        if len(message.entries) != len(self.keys):
            raise not_genuine(member, "it has not one entry for each member of the key list")
        near = self.neighbours(member)
        for holder, entry in zip(self.keys, message.entries, strict=True):
            edge = holder in near and member < holder
            if not entry.has_parts(sealed=holder != member, edge=edge):
                raise not_genuine(member, f"its entry for {holder} has not the parts of this edge")
        self.shares[member] = message

    def fix_shares(self, present: Mapping[MemberId, EncryptedShares]) -> "ShareLists":
        """Fix U2 and return, for each of its members, what was dealt to it."""
        self.shares = dict(present)
        headers = [message.header for message in self.shares.values()]
        self.h2 = share_list_digest(self.ctx, self.h1, headers)
        return ShareLists(self)

    def neighbours(self, member: MemberId) -> tuple[MemberId, ...]:
        """Return with whom a member of U1 shares a mask."""
        near = self._near.get(member)
        if near is None:
            near = self._near[member] = neighbours(
                tuple(self.keys),
                member,
                tolerated=self._params.tolerated,
                threshold=self._params.threshold,
            )
        return near

    def entry(self, dealer: MemberId, holder: MemberId) -> SealedShare:
        """Return what a dealer of U2 signed for one member of U1."""
        return self.shares[dealer].entries[self._places[holder]]

    def edge(self, dealer: MemberId, holder: MemberId) -> Edge:
        """Return the place of a dealt pair."""
        return Edge(ctx=self.ctx, h1=self.h1, dealer=dealer, holder=holder)

    def _take(self, keys: Mapping[MemberId, Advertise]) -> None:
        self.keys = dict(keys)
        self._places = {member: place for place, member in enumerate(self.keys)}

    def dealt_to(self, holder: MemberId) -> ShareList:
        """Return what U2 dealt to one of its members."""
        return ShareList(
            dealt=tuple(
                DealtShare(header=message.header, entry=self.entry(dealer, holder))
                for dealer, message in self.shares.items()
            )
        )


class ShareLists(Mapping[MemberId, bytes]):
    """For each member of U2 what was dealt to it, put together when it is asked for, in any thread.

    With 64 members all the lists have 29 MiB, and what they are made of has 7.
    """

    def __init__(self, keying: Keying) -> None:
        self._keying = keying
        self._holders = tuple(keying.shares)

    def __getitem__(self, holder: MemberId) -> bytes:
        if holder not in self._holders:
            raise KeyError(holder)
        return encode(self._keying.dealt_to(holder))

    def __iter__(self) -> Iterator[MemberId]:
        return iter(self._holders)

    def __len__(self) -> int:
        return len(self._holders)
