"""What a member holds the coordinator to: the lists it was shown in one attempt, and their digests.

Decides whether a list may be believed: each message in it is signed by its member over this attempt
and over the digests of the lists before; nobody is in it who was not in the list before; it is not
below the threshold; and this member's own message stands in it byte for byte. The coordinator had to
check all that it relays, so it is to blame for what does not hold. Trusts the roster of the charter in
force. Implements SA-1 (checks by the receiver). Pure.
"""

from collections.abc import Mapping, Sequence

from fedproto.identity import VerifyKey
from fedproto.ids import MemberId
from fedproto.secagg.dealing import Edge
from fedproto.secagg.faults import COORDINATOR, Equivocation, forbidden, not_genuine
from fedproto.secagg.graph import neighbours
from fedproto.secagg.groups import assign
from fedproto.secagg.keying_messages import (
    Advertise,
    ShareHeader,
    key_list_digest,
    share_list_digest,
)
from fedproto.secagg.masking_messages import Confirm, UploadHeader, survivor_list_digest
from fedproto.secagg.messages import Signed, encode
from fedproto.secagg.params import Params
from fedproto.secagg.sum_audit import Witnessed


class Transcript:
    """The lists of one attempt as one member saw them."""

    def __init__(
        self,
        *,
        ctx: bytes,
        params: Params,
        member: MemberId,
        members: tuple[MemberId, ...],
        roster: Mapping[MemberId, VerifyKey],
        groups: int = 1,
    ) -> None:
        self.ctx = ctx
        self.member = member
        self.members = members
        # Of the whole cohort until the key list is there, then of this member's group.
        self.params = params
        self._groups = groups
        self._roster = roster
        self.listed: dict[MemberId, Advertise] = {}
        self.neighbours: tuple[MemberId, ...] = ()
        self.dealt: tuple[MemberId, ...] = ()
        self.survivors: tuple[MemberId, ...] = ()
        self._headers: dict[MemberId, ShareHeader] = {}
        self._uploads: dict[MemberId, UploadHeader] = {}
        # What this member signed last: it must come back in the next list.
        self.sent: Signed | None = None
        self.h1 = self.h2 = self.h3 = b""

    def take_keys(self, keys: Sequence[Advertise]) -> None:
        """Phase 0: believe U1."""
        self.require_signed(keys)
        self._require_set(keys, self.members, "key list")
        raw = [key for item in keys for key in item.raw_keys]
        if len(set(raw)) != len(raw):
            raise not_genuine(COORDINATOR, "its key list holds one key twice")
        self.h1 = key_list_digest(self.ctx, keys)
        near = self._enter_group(tuple(item.member for item in keys))
        self.listed = {item.member: item for item in keys if item.member in near}
        self.neighbours = neighbours(
            tuple(self.listed),
            self.member,
            tolerated=self.params.tolerated,
            threshold=self.params.threshold,
        )

    def _enter_group(self, names: tuple[MemberId, ...]) -> tuple[MemberId, ...]:
        """Return who is summed with this member; from here on nobody else concerns it."""
        if self._groups == 1:
            return names
        found = assign(self.h1, names, self._groups)
        try:
            self.params = self.params.of_group(min(map(len, found)))
        except ValueError as error:
            raise forbidden(str(error)) from None
        mine = next(group for group in found if self.member in group)
        self.params = self.params.of_group(len(mine))
        return mine

    def take_share_headers(self, headers: Sequence[ShareHeader]) -> None:
        """Phase 1: believe U2."""
        self.require_signed(headers, h1=self.h1)
        self._require_set(headers, tuple(self.listed), "share list")
        self._headers = {header.member: header for header in headers}
        self.dealt = tuple(self._headers)
        self.h2 = share_list_digest(self.ctx, self.h1, headers)

    def take_survivors(self, headers: Sequence[UploadHeader]) -> None:
        """Phase 3: believe U3."""
        self.require_signed(headers, h1=self.h1, h2=self.h2)
        self._require_set(headers, self.dealt, "survivor list")
        self._uploads = {header.member: header for header in headers}
        self.survivors = tuple(self._uploads)
        self.h3 = survivor_list_digest(self.ctx, self.h2, headers)

    def take_confirms(self, confirms: Sequence[Confirm]) -> None:
        """Phase 4: believe that enough members confirmed the same U3."""
        self.require_signed(confirms, h1=self.h1, h2=self.h2, h3=self.h3)
        self._require_members(confirms, self.survivors, "list of confirmations")

    def witnessed(self) -> Witnessed:
        """Return what this member saw of the attempt, to hold a published sum to."""
        return Witnessed(
            ctx=self.ctx,
            h1=self.h1,
            h2=self.h2,
            h3=self.h3,
            params=self.params,
            keys=self.listed,
            shares=self._headers,
            uploads=self._uploads,
        )

    def edge(self, dealer: MemberId, holder: MemberId) -> Edge:
        """Return the place of a dealt pair."""
        return Edge(ctx=self.ctx, h1=self.h1, dealer=dealer, holder=holder)

    def _require_members(
        self, items: Sequence[Signed], within: Sequence[MemberId], name: str
    ) -> None:
        members = {item.member for item in items}
        if not members <= set(within):
            raise not_genuine(COORDINATOR, f"its {name} names members outside the phase before")
        if len(members) < self.params.threshold:
            raise forbidden(
                f"its {name} has {len(members)} members, fewer than {self.params.threshold}"
            )

    def _require_set(self, items: Sequence[Signed], within: Sequence[MemberId], name: str) -> None:
        self._require_members(items, within, name)
        # Its own message in the list, byte for byte: nobody speaks for this member.
        if self.sent not in items:
            raise not_genuine(COORDINATOR, f"its {name} does not hold this member's own message")

    def require_signed(self, items: Sequence[Signed], **expected: bytes) -> None:
        """Refuse, as the coordinator's fault, what is not signed over this attempt and `expected`."""
        for item in items:
            if item == self.sent:
                continue
            if item.member not in self.members:
                raise not_genuine(COORDINATOR, "it relayed a message of nobody in the attempt")
            item.verify(self._roster[item.member], COORDINATOR)
            if item.ctx != self.ctx:
                raise not_genuine(COORDINATOR, f"a message of {item.member} is of another attempt")
            name = item.differs(**expected)
            if name is not None:
                raise Equivocation(
                    f"{item.member} signed another {name} than this member was shown", encode(item)
                )
