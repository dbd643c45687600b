"""Ballots: which proposals wait for this member's vote, and what its policy answers.

Decides yes or no by the member's own policy and the layout that its own trainer found; without
`auto_vote` it decides nothing, and a person votes at the node. Trusts the verified ledger alone. Pure.
"""

from dataclasses import dataclass, field

from audit.decision import entitled
from audit.records import Proposal, State
from fedproto.events.governance import Choice, ProposalOpened, VoteCast
from fedproto.governance.plan import RunPlan
from fedproto.ids import Digest, MemberId
from fedproto.layout import FlatVector, vector_digest
from member_node.policy import Policy, refusals


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenProposal:
    """A proposal that this member has not answered."""

    leaf: Digest
    proposal: ProposalOpened


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What the node's own trainer found for a plan; `initial` is the adapter a run starts from."""

    layout_sha256: Digest
    parameters: int
    initial: FlatVector = field(repr=False)
    dataset: Digest

    @property
    def initial_adapter(self) -> Digest:
        """The digest by which a plan names `initial`."""
        return vector_digest(self.initial)


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """An answer and the reasons against it; a yes has none."""

    choice: Choice
    reasons: tuple[str, ...]


def waiting(state: State, me: MemberId, now_ms: int) -> tuple[OpenProposal, ...]:
    """Return the proposals that this member may vote on and has not."""
    return tuple(
        OpenProposal(leaf=proposal.opened.leaf, proposal=proposal.opened.body)
        for proposal in state.open_proposals()
        if _is_waiting(state, proposal, me, now_ms)
    )


def differences(plan: RunPlan, found: Found) -> tuple[str, ...]:
    """Return where a plan and the node's own trainer disagree."""
    pairs = (
        ("adapter layout", plan.layout_sha256, found.layout_sha256),
        ("number of parameters", plan.parameters, found.parameters),
        ("initial adapter", plan.initial_adapter, found.initial_adapter),
    )
    return tuple(
        f"the {name} is {_short(said)} in the plan and {_short(own)} here"
        for name, said, own in pairs
        if said != own
    )


def decide(policy: Policy, plan: RunPlan, found: Found) -> Decision:
    """Return the ballot that the policy makes of a plan."""
    reasons = refusals(policy, plan) + differences(plan, found)
    return Decision(choice=Choice.NO if reasons else Choice.YES, reasons=reasons)


def vote(waiting: OpenProposal, choice: Choice) -> VoteCast:
    """Return the act of voting, bound to one proposal and its plan."""
    return VoteCast(
        proposal=waiting.leaf, terms_sha256=waiting.proposal.terms_sha256, choice=choice, reason=""
    )


def _is_waiting(state: State, proposal: Proposal, me: MemberId, now_ms: int) -> bool:
    opened = proposal.opened
    return (
        now_ms < opened.body.closes_at
        and me in entitled(state, opened.body)
        and all(vote.member != me for vote in proposal.votes)
    )


def _short(value: Digest | int) -> str:
    return str(value) if isinstance(value, int) else value[:16]
