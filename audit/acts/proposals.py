"""The rules of proposals, ballots, emergencies and refusals.

Decides one event type each, on top of the common checks of `audit.state`. Trusts only admitted acts.
Every refusal raises RNM-GOV-*. Pure.
"""

from dataclasses import replace

from audit import decision
from audit.acts.charters import check_fit, check_succession
from audit.decision import AGAIN
from audit.records import Logged, Proposal, State
from fedproto.events.governance import (
    ActRefused,
    CharterTerms,
    Choice,
    Closing,
    EmergencyResumed,
    EmergencyStopped,
    KeyTerms,
    ProposalClosed,
    ProposalOpened,
    ResumeTerms,
    StandingTerms,
    Terms,
    VoteCast,
)
from fedproto.events.models import BaseModel, ReleaseTerms, RevocationTerms
from fedproto.governance import rules
from fedproto.governance.charter import Action, Role
from fedproto.governance.plan import RunPlan
from fedproto.governance.rules import refuse
from fedproto.governance.tally import Verdict


def open_proposal(state: State, act: Logged[ProposalOpened]) -> State:
    """Something that the charter puts to the vote, by whom its clause lets propose."""
    body = act.body
    clause = rules.clause_for(state.charter, body)
    rules.check_roles(state.charter, act.member, clause.propose, "proposal.opened")
    if clause.direct:
        raise refuse(f"{body.action.value} needs no vote under this charter: act on it")
    if not act.at < body.closes_at <= act.at + clause.expires_s * 1000:
        raise refuse(
            f"the proposal closes before it opens, or more than {clause.expires_s} s later"
        )
    _check_terms(state, body.terms)
    return replace(
        state,
        proposals=state.proposals.with_item(act.leaf, Proposal(opened=act)),
        waiting=(*state.waiting, act.leaf),
    )


def _check_terms(state: State, terms: Terms) -> None:
    """Refuse to vote on what could not be carried out."""
    match terms:
        case RunPlan():
            _check_run(state, terms)
        case CharterTerms():
            check_fit(terms.charter)
            check_succession(state.charter, terms.charter)
        case StandingTerms() | KeyTerms() | ResumeTerms():
            _check_member_terms(state, terms)
        case BaseModel() | ReleaseTerms() | RevocationTerms():
            _check_model_terms(state, terms)


def _check_member_terms(state: State, terms: StandingTerms | KeyTerms | ResumeTerms) -> None:
    match terms:
        case StandingTerms():
            if state.standing(terms.member) in {None, terms.standing}:
                raise refuse(f"{terms.member} has no seat, or is {terms.standing.value} already")
        case KeyTerms():
            key = state.key(terms.key)
            if key is None or key.member != terms.member:
                raise refuse(f"key {terms.key[:32]} is not in force for {terms.member}")
        case ResumeTerms():
            if all(stop.leaf != terms.stop for stop in state.stops):
                raise refuse(f"there is no stop {terms.stop[:16]}")


def _check_model_terms(state: State, terms: BaseModel | ReleaseTerms | RevocationTerms) -> None:
    match terms:
        case BaseModel():
            if terms.manifest_sha256 in state.base_models:
                raise refuse(f"base weights {terms.manifest_sha256[:16]} are approved", AGAIN)
        case ReleaseTerms():
            if terms.made_by not in state.runs:
                raise refuse(f"there is no run {terms.made_by}")
        case RevocationTerms():
            release = state.releases.get(terms.release)
            if release is None or release.revoked is not None:
                raise refuse(f"there is no release {terms.release[:16]} in force")


def _check_run(state: State, plan: RunPlan) -> None:
    rules.check_plan(state.charter, plan)
    if plan.base_manifest_sha256 not in state.base_models:
        raise refuse(f"base weights {plan.base_manifest_sha256[:16]} are not approved")


def cast_vote(state: State, act: Logged[VoteCast]) -> State:
    """One ballot a voter, for this proposal and these terms, in time and under one charter."""
    body = act.body
    proposal = decision.find(state, body.proposal)
    opened = proposal.opened.body
    if act.member not in decision.entitled(state, opened):
        raise refuse(f"{act.member} has no vote on {opened.action.value}")
    if body.terms_sha256 != opened.terms_sha256:
        raise refuse("the ballot is for other terms than the proposal's")
    if any(vote.member == act.member for vote in proposal.votes):
        raise refuse(f"{act.member} has voted on this proposal", AGAIN)
    clause = rules.clause_for(state.charter, opened)
    if body.choice is Choice.VETO:
        rules.check_roles(state.charter, act.member, clause.veto, "a veto")
    # The signer's clock may be wrong or lie; the log's own clock can only be late.
    if max(act.at, state.clock_s * 1000) > opened.closes_at:
        raise refuse("the ballot is later than the proposal's close")
    vetoed = proposal.vetoed
    if vetoed is None and body.choice is Choice.VETO:
        vetoed = act.index
    return decision.noted(state, replace(proposal, votes=(*proposal.votes, act), vetoed=vetoed))


def close_proposal(state: State, act: Logged[ProposalClosed]) -> State:
    """The record of a proposal that ended without effect, by its ballots or by its term."""
    rules.check_roles(state.charter, act.member, (Role.OPERATOR,), "proposal.closed")
    body = act.body
    proposal = decision.find(state, body.proposal)
    if body.votes != tuple(sorted(vote.leaf for vote in proposal.votes)):
        raise refuse("the record cites other votes than those in the ledger")
    standing = decision.stands(state, proposal)
    ended = {Verdict.VETOED: Closing.VETOED, Verdict.REJECTED: Closing.REJECTED}.get(standing)
    # A carried proposal whose term is over has lapsed as well: nobody carried it out.
    late = max(act.at, state.clock_s * 1000) > proposal.opened.body.closes_at
    if ended is None and late:
        ended = Closing.EXPIRED
    if body.outcome is not ended:
        raise refuse(f"the proposal is {standing.value}, not {body.outcome.value}")
    return decision.decided(state, proposal)


def stop(state: State, act: Logged[EmergencyStopped]) -> State:
    """One member stops work at once, in one run or everywhere."""
    decision.require_direct(state, Action.STOP, act.member)
    if act.body.run and act.body.run not in state.runs:
        raise refuse(f"there is no run {act.body.run}")
    if any(stop.body.run == act.body.run for stop in state.stops):
        raise refuse("this is stopped already", AGAIN)
    return replace(state, stops=(*state.stops, act))


def resume(state: State, act: Logged[EmergencyResumed]) -> State:
    """A stop ends by the vote that it cites."""
    decision.check_executor(state, act.member, Action.RESUME, "emergency.resumed")
    body = act.body
    if all(stop.leaf != body.stop for stop in state.stops):
        raise refuse(f"there is no stop {body.stop[:16]}")
    proposal = decision.require_carried(state, body.proposal, body.votes, Action.RESUME, act.at)
    if proposal.opened.body.terms != ResumeTerms(stop=body.stop):
        raise refuse("the stop is not the one that was voted on")
    left = tuple(stop for stop in state.stops if stop.leaf != body.stop)
    return replace(decision.decided(state, proposal), stops=left)


def record_refusal(state: State, act: Logged[ActRefused]) -> State:
    """The operator records what it refused a member; once for each act."""
    rules.check_roles(state.charter, act.member, (Role.OPERATOR,), "act.refused")
    body = act.body
    if state.charter.member(body.member) is None:
        raise refuse(f"{body.member} is not a member under this charter")
    if body.sha256 in state.refused:
        raise refuse("this refusal is in the ledger", AGAIN)
    return replace(state, refused=state.refused.with_item(body.sha256, act.index))
