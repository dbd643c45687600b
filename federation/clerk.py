"""The clerk: writes the mandate as soon as the ballots in the ledger carry a proposal.

Decides nothing of its own: the count is the charter's, and every node counts again. It waits until all
members of the plan have answered, or voting has closed, so that no willing member is left out.
"""

import os
import threading

from audit import decision
from audit.records import Proposal, State
from federation.register import Register
from fedproto.events.governance import Choice
from fedproto.events.rounds import RunApproved
from fedproto.governance import rules
from fedproto.governance.tally import Verdict
from fedproto.ids import RunId


class Clerk:
    """Reviews open proposals; called after each ballot and now and then."""

    def __init__(self, register: Register) -> None:
        self._register = register
        self._reviewing = threading.Lock()

    def review(self, now_ms: int) -> None:
        """Write a mandate for each proposal that is carried and ripe."""
        with self._reviewing:
            state = self._register.ledger.state
            for proposal in state.proposals.values():
                if proposal.opened.charter != state.charter.digest:
                    # Lapsed: nobody voted on it under the charter in force.
                    continue
                mandate = _mandate(state, proposal, now_ms)
                if mandate is not None:
                    self._register.act(mandate)


def _mandate(state: State, proposal: Proposal, now_ms: int) -> RunApproved | None:
    opened = proposal.opened.body
    plan = opened.plan
    if proposal.decided is not None or plan is None:
        return None
    ballots = proposal.ballots
    if not (set(plan.members) <= ballots.keys() or now_ms > opened.closes_at):
        return None
    if decision.stands(state, proposal) is not Verdict.CARRIED:
        return None
    willing = tuple(m for m in plan.members if m in ballots and ballots[m].choice is Choice.YES)
    if len(willing) < plan.min_members or not _is_ripe(state, proposal):
        return None
    return RunApproved(
        run=RunId(os.urandom(16).hex()),
        proposal=proposal.opened.leaf,
        votes=decision.approvals(proposal),
        members=willing,
        plan=plan,
        plan_sha256=opened.terms_sha256,
        not_before=now_ms,
        not_after=now_ms + rules.clause_for(state.charter, opened).expires_s * 1000,
    )


def _is_ripe(state: State, proposal: Proposal) -> bool:
    due = decision.ripens_at(state, proposal)
    return due is not None and state.clock_s >= due
