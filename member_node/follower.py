"""Following the ledger: votes on proposals as the policy says, and finishes runs that ended.

Decides when, never what: a ballot is decided by `member_node.ballot`, from the member's policy and what
its own trainer found. Acts on verified entries alone. One failure is written down and tried again with
the next news; it never stops the node. A shell module.
"""

import threading
from collections.abc import Callable

from audit.records import Run, State
from fedproto import jcs, telemetry
from fedproto.durable import make_private_directory, write_atomic
from fedproto.errors import FederationError, LocalFault
from fedproto.events.governance import Choice
from fedproto.governance.plan import RunPlan
from fedproto.ids import Digest, MemberId
from fedproto.party import Party, now_ms
from member_node import policy as policies
from member_node.acts import ActClient, made_before
from member_node.artifact_client import ArtifactClient
from member_node.ballot import Decision, OpenProposal, decide, differences, vote, waiting
from member_node.ledger_client import LedgerClient
from member_node.log import Log
from member_node.policy import refusals
from member_node.ports import Trainer
from member_node.preparation import Preparation

FINISHED = "finished"
_WAIT_S = 20.0
_PAUSE_S = 1.0
_LONGEST_PAUSE_S = 30.0


class Follower:
    """Watches the ledger in a thread of its own; `cast` is called from others too."""

    def __init__(
        self,
        *,
        party: Party,
        ledger: LedgerClient,
        acts: ActClient,
        artifacts: ArtifactClient,
        preparation: Preparation,
        trainer: Trainer,
        log: Log,
        clock_ms: Callable[[], int] = now_ms,
    ) -> None:
        self._party = party
        self._ledger = ledger
        self._acts = acts
        self._artifacts = artifacts
        self._preparation = preparation
        self._trainer = trainer
        self._log = log
        self._clock_ms = clock_ms
        self._answered: set[Digest] = set()
        self._stop = threading.Event()

    def run(self) -> None:
        """Follow until `stop`."""
        pause = _PAUSE_S
        while not self._stop.is_set():
            try:
                self.look(self._ledger.state)
                self._ledger.wait_for_more(_WAIT_S)
                pause = _PAUSE_S
            except FederationError as error:
                if self._stop.is_set():
                    return
                self._log.failed("ledger.following", error)
                self._stop.wait(pause)
                pause = min(2 * pause, _LONGEST_PAUSE_S)

    def stop(self) -> None:
        """Stop following."""
        self._stop.set()

    def look(self, state: State) -> None:
        """Answer what waits and finish what ended, in one state of the ledger."""
        if not state.charters:
            return
        for proposal in waiting(state, self._me, self._clock_ms()):
            if proposal.leaf not in self._answered:
                self._answer(proposal)
        for run in state.runs.values():
            if self._me in run.mandate.body.members and _is_over(run):
                self._finish(run)

    def cast(self, proposal: Digest, choice: Choice) -> None:
        """Vote as a person at the node says; a yes that the policy would not keep is refused."""
        found = waiting(self._ledger.sync(), self._me, self._clock_ms())
        chosen = [p for p in found if p.leaf.startswith(proposal)]
        if len(chosen) != 1:
            raise LocalFault(
                "RNM-GOV-0001",
                what="no vote was cast",
                why=f"{len(chosen)} proposals that wait for this member begin with {proposal[:16]}",
                mend="see which wait with `renmei node status`",
            )
        plan = chosen[0].proposal.plan
        if choice is Choice.YES and plan is not None:
            decision = self._decide(plan)
            if decision.choice is not Choice.YES:
                raise _would_not_keep(decision)
        self._vote(chosen[0], choice)

    @property
    def _me(self) -> MemberId:
        return self._party.profile.id

    def _answer(self, proposal: OpenProposal) -> None:
        # A policy file speaks of plans; of charters, members and releases a person decides.
        plan = proposal.proposal.plan
        if plan is None or not policies.load(self._party.root).auto_vote:
            self._log.info("ballot.waiting")
            self._answered.add(proposal.leaf)
            return
        with telemetry.tracer().start_as_current_span("member.ballot"):
            try:
                self._vote(proposal, self._decide(plan).choice)
            except FederationError as error:
                # After a crash the ballot may stand in the ledger already.
                if not made_before(error):
                    raise
                self._answered.add(proposal.leaf)

    def _decide(self, plan: RunPlan) -> Decision:
        """Decide by policy first: what the policy refuses costs neither download nor training."""
        policy = policies.load(self._party.root)
        reasons = refusals(policy, plan)
        if reasons:
            return Decision(choice=Choice.NO, reasons=reasons)
        decision = decide(policy, plan, self._preparation.ensure(plan))
        if decision.choice is Choice.YES:
            self._preparation.declare(self._preparation.ensure(plan).dataset)
        return decision

    def _vote(self, proposal: OpenProposal, choice: Choice) -> None:
        self._acts.vote(vote(proposal, choice))
        self._answered.add(proposal.leaf)
        self._log.info(f"ballot.{choice.value}")

    def _finish(self, run: Run) -> None:
        """Train the private adapter beside the final global one, once."""
        name, plan = run.mandate.body.run, run.mandate.body.plan
        marker = self._party.root / FINISHED / f"{name}.json"
        if marker.exists() or not _took_part(run, self._me):
            return
        with telemetry.tracer().start_as_current_span("member.personalise"):
            found = self._preparation.ensure(plan)
            if differences(plan, found):
                return
            final = _final_adapter(run)
            self._trainer.personalise(self._artifacts.adapter(final, plan.parameters))
        make_private_directory(marker.parent)
        write_atomic(marker, jcs.dumps({"run": name, "model_out": final}))
        self._log.info("run.finished", run=name)


def _is_over(run: Run) -> bool:
    return sum(a.aggregated for a in run.rounds) == run.mandate.body.plan.training.rounds


def _took_part(run: Run, me: MemberId) -> bool:
    return any(receipt.member == me for attempt in run.rounds for receipt in attempt.receipts)


def _final_adapter(run: Run) -> Digest:
    closed = [attempt.closed for attempt in run.rounds if attempt.closed and attempt.aggregated]
    return closed[-1].body.model_out


def _would_not_keep(decision: Decision) -> LocalFault:
    return LocalFault(
        "RNM-CONSENT-0004",
        what="no vote was cast",
        why="; ".join(decision.reasons),
        mend="vote no, or change policy.json first: the node would refuse the rounds of this run",
    )
