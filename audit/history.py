"""The log as it was replayed: its acts in order, and the state after any of them.

Decides nothing: `audit.replay` verified the acts. Pure.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from audit import decision
from audit.records import EMPTY, Proposal, State
from audit.state import Rejected, apply
from fedproto.errors import LocalFault
from fedproto.events.governance import ProposalClosed
from fedproto.governance.tally import Verdict
from fedproto.ids import Digest
from fedproto.statements import Event, SignedEvent


def unanswered(why: str, mend: str) -> LocalFault:
    """Return RNM-CONF-0001: the question names what this log does not have."""
    return LocalFault("RNM-CONF-0001", what="the question was not answered", why=why, mend=mend)


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """Acts whose signatures were verified and that all were allowed, and the state they lead to."""

    state: State
    events: tuple[SignedEvent, ...]
    leaves: tuple[Digest, ...]

    def event(self, index: int) -> Event:
        """Return what an entry says; raise RNM-CONF-0001 if there is none."""
        if not 0 <= index < len(self.events):
            raise unanswered(
                f"there is no entry {index}", f"the log has entries 0 to {len(self.events) - 1}"
            )
        return self.events[index].event

    def states(self) -> Iterator[State]:
        """Yield the state of size 0, then the one after each entry."""
        state = EMPTY
        yield state
        for leaf, signed in zip(self.leaves, self.events, strict=True):
            after = apply(state, leaf, signed)
            assert not isinstance(after, Rejected), after.why  # noqa: S101  # it was replayed before
            state = after
            yield state

    def state_at(self, size: int) -> State:
        """Return the state of the log's first `size` entries; raise RNM-CONF-0001 beyond its end."""
        if not 0 <= size <= len(self.events):
            raise unanswered(
                f"the log has {len(self.events)} entries, and no state at size {size}",
                f"give a size from 0 to {len(self.events)}",
            )
        return next(state for state in self.states() if state.size == size)

    def outcome(self, proposal: Proposal) -> str:
        """Return how a proposal ended: carried-out, rejected, vetoed, expired or lapsed.

        Without a record of its end: open, carried, rejected or vetoed, as its ballots stand; lapsed once
        an amendment, or its close by the log's own clock, has passed over it.
        """
        if proposal.decided is not None:
            body = self.event(proposal.decided).body
            return body.outcome.value if isinstance(body, ProposalClosed) else "carried-out"
        if proposal.opened.charter != self.state.charters[-1].body.sha256:
            return "lapsed"
        stands = decision.stands(self.state, proposal)
        late = self.state.clock_s * 1000 > proposal.opened.body.closes_at
        return "lapsed" if stands is Verdict.OPEN and late else stands.value
