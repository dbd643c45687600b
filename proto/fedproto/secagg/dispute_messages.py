"""Messages of a dispute over a dealt share: a holder's complaint, and the dealer's answer to it.

Decides what each signature covers and which reasons there are. An Opening shows one pair of shares in
clear, to the coordinator and to its holder. That gives nothing away: an honest holder never complains
of an honest dealer, because what the dealer sealed for it opens and fits, and what the coordinator
altered on the way no longer fits the dealer's signed header. So whoever gets an honest dealer's pair
opened is one of at most t_c colluding members, and hands the coordinator a share that it could have
handed over without any dispute. Only that pair is burned. Implements SA-1 (identifiable abort). Pure.
"""

from dataclasses import dataclass

from fedproto.ids import MemberId, tagged_hash
from fedproto.secagg.agreement import SALT_BYTES
from fedproto.secagg.messages import DIGEST_BYTES, Signed, require_length, require_member
from fedproto.secagg.shamir import SHARE_BYTES, share_value
from fedproto.secagg.stages import SharePair

# The sealed pair does not open with the holder's channel key.
UNOPENED = "unopened"
# It opens, and does not fit the commitments of its entry.
UNFIT = "unfit"
# The KEM ciphertext gives another secret than the entry commits to. An opening cannot settle this:
# to show what the ciphertext gives, the holder would have to show its mask key.
KEM = "kem"
REASONS = frozenset((UNOPENED, UNFIT, KEM))


@dataclass(frozen=True, slots=True, kw_only=True)
class Complaint(Signed):
    """A holder's word that what `dealer` dealt to it cannot be used."""

    h1: bytes
    h2: bytes
    dealer: MemberId
    reason: str

    def __post_init__(self) -> None:
        Signed.__post_init__(self)
        for digest in (self.h1, self.h2):
            require_length("a digest", digest, DIGEST_BYTES)
        require_member(self.dealer)
        if self.dealer == self.member:
            raise ValueError("a member does not complain of itself")
        if self.reason not in REASONS:
            raise ValueError("the reason is not one of those there are")

    def statement(self) -> bytes:
        """Return the tagged hash that is signed."""
        names = (self.member.encode(), self.dealer.encode())
        return tagged_hash(
            "renmei/v1/sa/complaint", self.ctx, self.h1, self.h2, *names, self.reason.encode()
        )


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Opening(Signed):
    """A dealer's answer: the pair that it dealt to `holder`, with the salts of its commitments."""

    h1: bytes
    h2: bytes
    holder: MemberId
    mask_share: bytes
    self_share: bytes
    mask_salt: bytes
    self_salt: bytes

    def __post_init__(self) -> None:
        Signed.__post_init__(self)
        for digest in (self.h1, self.h2):
            require_length("a digest", digest, DIGEST_BYTES)
        require_member(self.holder)
        for share in (self.mask_share, self.self_share):
            require_length("a share", share, SHARE_BYTES)
            share_value(share)
        for salt in (self.mask_salt, self.self_salt):
            require_length("a salt", salt, SALT_BYTES)

    @property
    def pair(self) -> SharePair:
        """The opened pair."""
        return SharePair(
            mask_share=self.mask_share,
            self_share=self.self_share,
            mask_salt=self.mask_salt,
            self_salt=self.self_salt,
        )

    def statement(self) -> bytes:
        """Return the tagged hash that is signed."""
        return tagged_hash(
            "renmei/v1/sa/opening",
            self.ctx,
            self.h1,
            self.h2,
            self.member.encode(),
            self.holder.encode(),
            self.mask_share,
            self.self_share,
            self.mask_salt,
            self.self_salt,
        )
