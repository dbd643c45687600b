"""The clerk: writes the mandate as soon as the ballots in the ledger carry a proposal.

Decides nothing of its own: the count is the charter's, and every node counts again. It waits until all
members of the plan have answered, or voting has closed, so that no willing member is left out.
"""

import os
import threading

from audit.records import Proposal, State
from federation.register import Register
from fedproto.governance import rules
from fedproto.governance.tally import Verdict, count, electorate, verdict
from fedproto.ids import RunId
from fedproto.statements import RunApproved


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
    if proposal.run is not None:
        return None
    clause = rules.clause_for(state.charter, opened)
    voters = electorate(state.charter, clause)
    ballots = proposal.ballots
    tally = count({member: ballot.choice for member, ballot in ballots.items()}, voters)
    ripe = set(opened.plan.members) <= ballots.keys() or now_ms > opened.closes_at
    carried = verdict(tally, voters=voters, vote_quorum=clause.yes) is Verdict.CARRIED
    willing = tuple(member for member in opened.plan.members if member in tally.approvals)
    if not ripe or not carried or len(willing) < opened.plan.min_members:
        return None
    return RunApproved(
        run=RunId(os.urandom(16).hex()),
        proposal=proposal.opened.leaf,
        votes=tuple(sorted(ballots[member].leaf for member in tally.approvals)),
        members=willing,
        plan=opened.plan,
        plan_sha256=opened.plan_sha256,
        not_before=now_ms,
        not_after=now_ms + clause.expires_s * 1000,
    )
