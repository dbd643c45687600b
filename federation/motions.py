"""What a person is shown of a proposal: what it needs, of whom, who has answered, when it is ripe.

Decides nothing: `audit.decision` says where it stands, here it only gets names. A proposal that is
decided keeps its ballots, but is not counted again: the voters of today are not those of then. Pure.
"""

from dataclasses import dataclass

from audit import decision
from audit.records import Proposal, State
from fedproto.events.governance import CharterTerms, Choice, ProposalOpened
from fedproto.governance.charter import Action, Role, Rule
from fedproto.governance.tally import Motion, count
from fedproto.ids import Digest, MemberId

DECIDED = "decided"
LAPSED = "lapsed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """One clause that must carry: whose (`proposed`: the new charter's own), and who has answered."""

    clause: str
    proposed: bool
    subject: str
    rule: Rule
    needed: int
    entitled: tuple[MemberId, ...]
    yes: tuple[MemberId, ...]
    silent: tuple[MemberId, ...]
    veto: tuple[Role, ...]
    timelock_s: int
    expires_s: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """A proposal as it is listed; `stands` is a verdict, `decided` or `lapsed`."""

    proposal: Digest
    index: int
    action: str
    by: MemberId
    at: int
    closes_at: int
    terms_sha256: Digest
    stands: str
    asked: tuple[Asked, ...]
    votes: dict[str, str]
    silent: tuple[MemberId, ...]
    vetoed_by: tuple[MemberId, ...]
    timelock_s: int
    carried: int | None
    ripens_at_s: int | None
    clock_s: int
    decided: int | None
    run: str


def asked(
    state: State, opened: ProposalOpened, proposal: Proposal | None = None
) -> tuple[Asked, ...]:
    """Return what a proposal needs, clause by clause, and who of its ballots met it."""
    ballots = proposal.ballots if proposal else {}
    answers = {member: ballot.choice for member, ballot in ballots.items()}
    motions = decision.motions(state, opened)
    return tuple(
        _asked(motion, answers, clause, proposed=proposed)
        for motion, (clause, proposed) in zip(motions, _clauses(motions, opened), strict=True)
    )


def _clauses(motions: tuple[Motion, ...], opened: ProposalOpened) -> list[tuple[Action, bool]]:
    """Return which clause each motion is of, in the order in which `audit.decision` asks them."""
    if not isinstance(opened.terms, CharterTerms):
        return [(opened.action, False)]
    named = [(Action.AMEND_CHARTER, False), (Action.AMEND_CHARTER, True)]
    leaving = [motion for motion in motions[2:] if motion.subject]
    if len(motions) > 2 + len(leaving):
        named.append((Action.ADMIT_MEMBER, False))
    return named + [(Action.CHANGE_STANDING, False) for _ in leaving]


def _asked(
    motion: Motion, answers: dict[MemberId, Choice], clause: Action, *, proposed: bool
) -> Asked:
    tally = count(answers, motion.entitled)
    said = tally.approvals | tally.refusals | tally.abstentions | tally.vetoes
    return Asked(
        clause=clause.value,
        proposed=proposed,
        subject=motion.subject,
        rule=motion.clause.rule,
        needed=motion.needed,
        entitled=tuple(sorted(motion.entitled)),
        yes=tuple(sorted(tally.approvals)),
        silent=tuple(sorted(motion.entitled - said)),
        veto=motion.clause.veto,
        timelock_s=motion.clause.timelock_s,
        expires_s=motion.clause.expires_s,
    )


def standing(state: State, proposal: Proposal) -> Standing:
    """Return what is shown of a proposal now."""
    act, opened = proposal.opened, proposal.opened.body
    is_open = act.leaf in state.waiting
    needs = asked(state, opened, proposal) if is_open else ()
    choices = {vote.member: vote.body.choice for vote in proposal.votes}
    if proposal.decided is not None:
        stands = DECIDED
    else:
        stands = decision.stands(state, proposal).value if is_open else LAPSED
    return Standing(
        proposal=act.leaf,
        index=act.index,
        action=opened.action.value,
        by=act.member,
        at=act.at,
        closes_at=opened.closes_at,
        terms_sha256=opened.terms_sha256,
        stands=stands,
        asked=needs,
        votes={member: choice.value for member, choice in sorted(choices.items())},
        silent=tuple(sorted({member for need in needs for member in need.silent})),
        vetoed_by=tuple(sorted(m for m, choice in choices.items() if choice is Choice.VETO)),
        timelock_s=max((need.timelock_s for need in needs), default=0),
        carried=proposal.carried,
        ripens_at_s=decision.ripens_at(state, proposal) if is_open else None,
        clock_s=state.clock_s,
        decided=proposal.decided,
        run=proposal.run or "",
    )
