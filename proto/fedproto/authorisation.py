"""The round authorisation (RA): what one attempt at one round is, bound into every key and signature.

Signed by the coordinator; each member's phase-0 signature is over its digest `ctx`, so a round exists
only if a threshold of members signed the same authorisation. Pure.
"""

from dataclasses import dataclass

from fedproto import envelope
from fedproto.errors import LocalFault
from fedproto.identity import SigningKey, VerifyKey
from fedproto.ids import Digest, MemberId, RunId, is_digest, is_run_id, tagged_hash
from fedproto.schema import from_json, to_json

_SUITE = "SA-1/x25519+mlkem768/ed25519+mldsa65/aes256-ks/blake3"
SUITES = {32: f"{_SUITE}/u32", 16: f"{_SUITE}/u16"}
WORD_BITS = 32
SUITE = SUITES[WORD_BITS]


def recovery_threshold(members: int, tolerated: int) -> int:
    """Return T with 2T > n + t_c: two sets of T members share more than t_c of them."""
    return (members + tolerated) // 2 + 1


# A coordinate-wise median or trimmed mean of group sums needs three of them at least.
LEAST_GROUPS = 3
# Cohorts for which groups may be asked.
GROUPED_FROM, GROUPED_TO = 17, 64
# What every sum hides, whoever of t_c members colludes.
LEAST_HONEST = 2


def can_group(members: int, groups: int, tolerated: int) -> bool:
    """Say whether every group of a cohort keeps two honest members in its sum.

    All colluders may come into one group, so each group tolerates as many as the whole cohort.
    """
    if not GROUPED_FROM <= members <= GROUPED_TO or groups < LEAST_GROUPS:
        return False
    return members // groups >= tolerated + LEAST_HONEST


def can_sum(members: int, groups: int, tolerated: int) -> bool:
    """Say whether a cohort can be summed so that every sum hides two honest members."""
    if groups != 1:
        return can_group(members, groups, tolerated)
    return members >= tolerated + LEAST_HONEST


def word_bits(members: int, bits: int) -> int:
    """Return the smallest ring in which a sum over the cohort cannot wrap: 16 or 32 bits.

    A value has at most qmax = 2^(bits-1) - 1, so that 14, 12 and 10 bits fit the small ring with 4,
    16 and 64 members. It follows from what the members voted for: nobody chooses it.
    """
    return 16 if members * ((1 << (bits - 1)) - 1) < 1 << 15 else 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Authorisation:
    """Canonical content of an RA.

    `mandate` is the leaf hash of the run.approved entry, `prev` that of the last round.closed entry of
    the run (the mandate's for round 1), `model_in` the digest of the global adapter that training
    starts from, `parameters` the length d of a delta; `clip_milli` and `bits` fix the quantisation.
    With `groups` above 1 the cohort is summed in so many groups, which follow from the key list.
    A method of several passes has one RA for each, so that each pass has another ctx and keys of its
    own: what is revealed of a dropout in one pass opens nothing of another.
    """

    v: int
    suite: str
    consortium: str
    charter: Digest
    mandate: Digest
    prev: Digest
    run: RunId
    round: int
    attempt: int
    pass_no: int = 1
    passes: int = 1
    groups: int = 1
    members: tuple[MemberId, ...]
    recovery_threshold: int
    tolerated: int
    parameters: int
    layout_sha256: Digest
    plan_sha256: Digest
    model_in: Digest
    word_bits: int
    bits: int
    clip_milli: int
    not_after: int
    nonce: str

    def __post_init__(self) -> None:
        if self.v != 1 or self.suite != SUITES.get(self.word_bits):
            raise ValueError(f"suite {self.suite!r} is not known, or not of {self.word_bits} bits")
        if not 1 <= self.pass_no <= self.passes:
            raise ValueError("a pass is counted from 1 to the number of passes")
        digests = (self.charter, self.mandate, self.prev, self.layout_sha256, self.plan_sha256)
        if not all(is_digest(d) for d in (*digests, self.model_in, self.nonce)):
            raise ValueError("a digest or the nonce is not 64 hex digits")
        if not is_run_id(self.run) or self.round < 1 or self.attempt < 1:
            raise ValueError("a round has a run, a number and an attempt, counted from 1")
        if list(self.members) != sorted(set(self.members)):
            raise ValueError("members must be sorted and stand once")
        n = len(self.members)
        # A lowered threshold would let the coordinator open an individual delta.
        if self.tolerated < 1 or self.recovery_threshold != recovery_threshold(n, self.tolerated):
            raise ValueError("the recovery threshold is not floor((n + t_c) / 2) + 1")
        if not can_sum(n, self.groups, self.tolerated):
            raise ValueError("more colluders are tolerated than the cohort or its groups can bear")
        if self.parameters < 1 or not 8 <= self.bits <= 24 or self.clip_milli < 1:
            raise ValueError("parameters, bits and clip are out of range")


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedAuthorisation:
    """A verified RA; `ctx` is the digest that phase 0 signs, `raw` the envelope itself.

    `key` is the coordinator's, which signed it: the same one signs the transcript of the sum.
    """

    content: Authorisation
    ctx: bytes
    raw: bytes
    key: VerifyKey

    @property
    def digest(self) -> Digest:
        """The hex of `ctx`, by which ledger entries name this authorisation."""
        return Digest(self.ctx.hex())


def seal_authorisation(content: Authorisation, key: SigningKey) -> bytes:
    """Sign an RA."""
    return envelope.seal(envelope.AUTHORISATION_TYPE, to_json(content), (key,))


def open_authorisation(raw: bytes, resolve: envelope.Resolver) -> SignedAuthorisation:
    """Verify an RA whose signer `resolve` knows; raise RNM-SIG-* or RNM-FORM-*."""
    opened = envelope.open_envelope(raw, envelope.AUTHORISATION_TYPE, resolve)
    (key, *others) = map(resolve, opened.signers)
    if key is None or others:
        raise LocalFault(
            "RNM-SIG-0002",
            what="a round authorisation was refused",
            why=f"it has {len(opened.signers)} signers, not one",
            mend="the coordinator signs an authorisation with its one acting key",
        )
    return SignedAuthorisation(
        content=from_json(Authorisation, opened.payload, "authorisation"),
        ctx=tagged_hash("renmei/v1/sa/ctx", opened.payload_bytes),
        raw=raw,
        key=key,
    )
