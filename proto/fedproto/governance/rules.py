"""The charter's rules for proposals and mandates, as coordinator, members and auditors apply them.

Each function raises RNM-GOV-* with the clause that is broken. Trusts only verified statements. Pure.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from fedproto.authorisation import can_sum
from fedproto.errors import LocalFault
from fedproto.events.governance import Choice, ProposalOpened
from fedproto.events.rounds import RunApproved
from fedproto.governance.charter import Charter, Clause, Role
from fedproto.governance.plan import RunPlan
from fedproto.governance.tally import Motion, Verdict, count, verdict
from fedproto.ids import Digest, MemberId


@dataclass(frozen=True, slots=True, kw_only=True)
class Ballot:
    """A logged vote: the leaf it stands in and its answer."""

    leaf: Digest
    choice: Choice


def refuse(why: str, code: str = "RNM-GOV-0001") -> LocalFault:
    """Return the error of an act that the charter does not allow."""
    return LocalFault(
        code,
        what="an act was refused",
        why=why,
        mend="read the charter in force with `renmei audit charter`, and propose within it",
    )


def clause_for(charter: Charter, proposal: ProposalOpened) -> Clause:
    """Return the clause that decides a proposal."""
    return charter.clause(proposal.action)


def check_roles(charter: Charter, member: MemberId, allowed: tuple[Role, ...], act: str) -> None:
    """Refuse an act by a member that holds none of the `allowed` roles."""
    known = charter.member(member)
    if known is None or not set(known.roles) & set(allowed):
        roles = ", ".join(role.value for role in allowed)
        raise refuse(f"{act} is open to {roles}; {member} is none of these")


def check_plan(charter: Charter, plan: RunPlan) -> None:
    """Refuse a plan outside the charter's limits."""
    limits = charter.limits
    trainers = set(charter.with_role(Role.TRAINER))
    if not set(plan.members) <= trainers:
        raise refuse("the plan names members that are not trainers under this charter")
    if plan.min_members < limits.min_members:
        raise refuse(f"the plan's cohort may fall below the charter's {limits.min_members} members")
    if plan.training.rounds > limits.max_rounds:
        raise refuse(f"the plan has more than {limits.max_rounds} rounds")
    if plan.aggregation.tolerated < limits.tolerated:
        raise refuse(f"the plan tolerates fewer than {limits.tolerated} colluding members")
    if 0 < limits.robust_from <= len(plan.members) and plan.aggregation.groups == 1:
        raise refuse(f"cohorts of {limits.robust_from} and more are summed in groups")


def check_mandate(
    charter: Charter,
    mandate: RunApproved,
    proposal: ProposalOpened,
    ballots: Mapping[MemberId, Ballot],
    *,
    voters: frozenset[MemberId] | None = None,
) -> None:
    """Recount a mandate from logged ballots; refuse it unless every word of it follows.

    `voters` are those whose vote counts; by default all whom the clause lets vote. A veto stands
    whoever of them cast it: `ballots` are logged, so it was cast by one who had the right to.

    Raises:
        LocalFault: RNM-GOV-0002 the quorum is not reached; RNM-GOV-0001 anything else differs.
    """
    clause = clause_for(charter, proposal)
    if mandate.plan_sha256 != proposal.terms_sha256:
        raise refuse("the mandate's plan is not the one that was voted on")
    check_plan(charter, mandate.plan)
    motion = Motion(clause=clause, voters=charter.eligible(clause) if voters is None else voters)
    answers = {member: ballot.choice for member, ballot in ballots.items()}
    tally = count(answers, motion.entitled)
    if Choice.VETO in answers.values():
        raise refuse("a veto stands against the proposal", "RNM-GOV-0002")
    if verdict(motion, answers) is not Verdict.CARRIED:
        raise refuse(
            f"{len(tally.approvals)} of {motion.needed} votes needed under {proposal.action.value}",
            "RNM-GOV-0002",
        )
    counted = tuple(sorted(ballots[member].leaf for member in tally.approvals))
    if mandate.votes != counted:
        raise refuse("the mandate cites other votes than those in the ledger")
    # Nobody trains by majority: a member takes part only by its own yes.
    willing = tuple(member for member in mandate.plan.members if member in tally.approvals)
    if mandate.members != willing:
        raise refuse("the mandate binds members that did not vote yes")
    if len(willing) < mandate.plan.min_members:
        raise refuse(
            f"{len(willing)} members are willing, the plan needs {mandate.plan.min_members}",
            "RNM-GOV-0002",
        )
    summing = mandate.plan.aggregation
    hides = can_sum(len(willing), summing.groups, summing.tolerated)
    if not hides or len(willing) // summing.groups < mandate.plan.min_members:
        raise refuse(
            f"{len(willing)} members are willing: too few for sums in {summing.groups} groups, each of "
            f"{mandate.plan.min_members} and two that {summing.tolerated} colluders do not see",
            "RNM-GOV-0002",
        )
    if mandate.not_after - mandate.not_before > clause.expires_s * 1000:
        raise refuse(f"the mandate's term is longer than {clause.expires_s} s")
    if mandate.not_before > proposal.closes_at + clause.expires_s * 1000:
        raise refuse("the mandate's term starts long after its proposal closed")
