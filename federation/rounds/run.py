"""A run, from its mandate to its last round; it goes on where the ledger says that it stopped.

Decides nothing that the plan does not: rounds, cohort, outer step. No entry, no state change: an
attempt is in the ledger before a member hears of it, and an adapter is durable before the entry that
names it. After `kill -9` an open attempt is recorded as aborted and the next one begins. A shell module.
"""

import secrets
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from opentelemetry import trace

from audit.records import Logged, Round
from federation import optimiser, robust
from federation.artifacts import ArtifactStore
from federation.dispatch import Orders
from federation.exchange import Hub, Lobby
from federation.journal import RunJournal
from federation.ports import FlowerPort
from federation.register import Register
from federation.rounds import verdicts
from federation.rounds.attempt import AttemptRunner
from federation.rounds.spool import Spool
from fedproto import telemetry
from fedproto.authorisation import (
    SUITES,
    Authorisation,
    SignedAuthorisation,
    open_authorisation,
    recovery_threshold,
    seal_authorisation,
    word_bits,
)
from fedproto.durable import write_atomic
from fedproto.errors import FederationError, LocalFault
from fedproto.events.rounds import Outcome, RoundClosed, RoundStarted, RunApproved
from fedproto.evidence import EvidenceStore
from fedproto.ids import ZERO_DIGEST, Digest, MemberId, RunId
from fedproto.party import Party, now_ms, utc_now
from fedproto.secagg.faults import IdentifiableAbort
from fedproto.secagg.stages import AggregateSum
from fedproto.v1.exchange_pb2 import CoordinatorFrame, Result

MAX_ATTEMPTS = 3
# Training and all phases of an attempt must fit; Flower delivers within some seconds.
_PHASES = 7
_FLOWER_POLL_S = 0.5


@dataclass(slots=True, kw_only=True)
class RunDriver:
    """Drives one run in a thread of its own."""

    run: RunId
    party: Party
    register: Register
    artifacts: ArtifactStore
    hub: Hub
    orders: Orders
    flower: FlowerPort
    nodes: Callable[[], Mapping[MemberId, bytes]]
    journal: RunJournal
    directory: Path
    stopping: threading.Event
    witness_patience_s: float = 60.0
    flower_patience_s: float = 120.0
    _flower_run: int = 0

    def drive(self) -> None:
        """Run to the end; a named error ends the run, is noted, and is kept for a restart to see."""
        self.orders.begin(self.run)
        self.journal.note("run", "started")
        # What stands if an error without a name ends this thread: the next start goes on.
        state, code = "suspended", "RNM-BUG-0001"
        try:
            with telemetry.tracer().start_as_current_span("fed.run") as span:
                span.set_attribute("fed.run.id", self.run)
                self._drive()
            state, code = "stopped" if self.halted else "finished", ""
            self._end("")
        except FederationError as error:
            state, code = "suspended", error.code
            if not self.stopping.is_set():
                state = "stopped" if self.halted else "aborted"
                self._end(error.code)
        finally:
            self.journal.note("run", state, code=code, terminal=True)
            self.orders.finish(self.run)

    def forget_flower(self) -> None:
        """Start a new Flower run with the next attempt."""
        self._flower_run = 0

    def halt(self) -> None:
        """Let the run end after the round in progress, after a restart too."""
        write_atomic(self.directory / f"{self.run}.halted", b"")

    @property
    def halted(self) -> bool:
        """Whether an administrator stopped the run."""
        return (self.directory / f"{self.run}.halted").exists()

    def _must_stop(self) -> bool:
        """Whether the coordinator stops, or a member stopped the run by an entry of the ledger."""
        return self.stopping.is_set() or self.register.ledger.state.stopped(self.run) is not None

    def _end(self, code: str) -> None:
        write_atomic(self.directory / f"{self.run}.ended", code.encode())

    @property
    def _mandate(self) -> Logged[RunApproved]:
        mandate = self.register.ledger.state.mandate(self.run)
        if mandate is None:
            raise LocalFault(
                "RNM-CONSENT-0001",
                what=f"run {self.run[:8]} was not driven",
                why="the ledger holds no mandate for it",
                mend="propose it, and have the members vote",
            )
        return mandate

    def _attempts(self) -> tuple[Round, ...]:
        return self.register.ledger.state.rounds(self.run)

    def _drive(self) -> None:
        self._close_open_attempt()
        plan = self._mandate.body.plan
        step = self._resume()
        done = sum(attempt.aggregated for attempt in self._attempts())
        for round_no in range(done + 1, plan.training.rounds + 1):
            if self.halted:
                return
            step = self._round(round_no, step)

    def _close_open_attempt(self) -> None:
        attempts = self._attempts()
        if attempts and attempts[-1].closed is None:
            started = attempts[-1].started.body
            self._record_abort(started, "RNM-ROUND-0001", {})

    def _resume(self) -> optimiser.Step:
        """Return the adapter and momentum that the ledger's last aggregated round led to."""
        plan = self._mandate.body.plan
        aggregated = [a.closed for a in self._attempts() if a.aggregated and a.closed]
        if not aggregated:
            return optimiser.start(self.artifacts.adapter(plan.initial_adapter, plan.parameters))
        digest = aggregated[-1].body.model_out
        return optimiser.Step(
            adapter=self.artifacts.adapter(digest, plan.parameters),
            momentum=self.artifacts.momentum(digest, plan.parameters),
        )

    def _round(self, round_no: int, step: optimiser.Step) -> optimiser.Step:
        tried = sum(a.started.body.round == round_no for a in self._attempts())
        for attempt in range(tried + 1, tried + MAX_ATTEMPTS + 1):
            self._await_flower()
            with telemetry.tracer().start_as_current_span("fed.round") as span:
                span.set_attribute("fed.run.id", self.run)
                span.set_attribute("fed.round.id", round_no)
                span.set_attribute("fed.attempt", attempt)
                following = self._attempt(round_no, attempt, step)
            if following is not None:
                return following
            if self.stopping.is_set() or self.halted:
                break
        raise LocalFault(
            "RNM-ROUND-0001",
            what=f"run {self.run[:8]} ended in round {round_no}",
            why=f"{attempt - tried} attempts of this start were aborted",
            mend="see why in the ledger (`renmei audit log`), mend it, and start the run again",
        )

    def _await_flower(self) -> None:
        """Give Flower time to be started again; raise RNM-PROC-* if it is not."""
        deadline = time.monotonic() + self.flower_patience_s
        while True:
            try:
                self.flower.check()
            except FederationError:
                if time.monotonic() > deadline or self.stopping.wait(_FLOWER_POLL_S):
                    raise
            else:
                return

    def _attempt(self, round_no: int, attempt: int, step: optimiser.Step) -> optimiser.Step | None:
        """Return the next step, or nothing if the attempt was aborted (and recorded as such)."""
        authorisation = self._authorise(round_no, attempt)
        content = authorisation.content
        started = RoundStarted(
            run=self.run,
            round=round_no,
            attempt=attempt,
            authorisation_sha256=authorisation.digest,
            model_in=content.model_in,
            invited=content.members,
        )
        entry = self.register.act(started)
        self._note("started", started, index=entry.index)
        plan = self._mandate.body.plan
        lobby = self.hub.open(authorisation.ctx, content.members)
        state = self.register.ledger.state
        keys = {member: state.acting_key(member) for member in content.members}
        roster = {member: key for member, key in keys.items() if key is not None}
        spool = Spool(self.directory / f"{self.run}.spool")
        runner = AttemptRunner(
            authorisation=authorisation,
            roster=roster,
            cohort=plan.min_members,
            phase_timeout_s=plan.phase_timeout_s,
            lobby=lobby,
            journal=self.journal,
            stopping=self._must_stop,
            spool=spool,
            key=self.party.signing_key,
            barred=verdicts.barred(self._attempts(), round_no),
            least_groups=plan.aggregation.least_groups,
        )
        try:
            self.register.await_cosigned(entry.index + 1, self.witness_patience_s)
            self._dispatch(authorisation)
            sums = runner.run()
            for fault in runner.faults:
                self._keep(fault, authorisation)
            transcript = verdicts.digest_of(sums, authorisation.ctx)
            verdicts.require_audited(self._attempts()[-1], transcript, sums, content)
            following, size = self._record(
                started, step, sums, runner.excluded, lobby, transcript=transcript
            )
        except FederationError as failure:
            # Whatever ended the attempt: a refused sum is what the members have to look at.
            error = verdicts.disputed(self._attempts()[-1]) or failure
            self._keep(error, authorisation)
            for member in content.members:
                lobby.dismiss(member, error)
            self._record_abort(started, error.code, runner.excluded)
            if error.code == verdicts.DISPUTED or (runner.opened and content.groups > 1):
                # A sum may be known by now: another attempt over other members would show a difference,
                # and another attempt has other groups.
                raise error from None
            return None
        finally:
            self.hub.close(authorisation.ctx)
            spool.close()
        # The round is closed: too few witnesses from here on stop the run, and undo nothing.
        self.register.await_cosigned(size, self.witness_patience_s)
        return following

    def _keep(self, error: FederationError, authorisation: SignedAuthorisation) -> None:
        """Keep the signed messages that show who is to blame, if any do."""
        if isinstance(error, IdentifiableAbort):
            EvidenceStore(root=self.directory).keep(error, b"", authorisation.raw, utc_now())

    def _authorise(self, round_no: int, attempt: int) -> SignedAuthorisation:
        mandate, state = self._mandate, self.register.ledger.state
        plan, members = mandate.body.plan, mandate.body.members
        records = [a.closed for a in self._attempts() if a.closed]
        ring = word_bits(len(members), plan.aggregation.bits)
        term_ms = _PHASES * plan.phase_timeout_s * 1000
        content = Authorisation(
            v=1,
            suite=SUITES[ring],
            consortium=state.charter.consortium,
            charter=state.charter.digest,
            mandate=mandate.leaf,
            prev=records[-1].leaf if records else mandate.leaf,
            run=self.run,
            round=round_no,
            attempt=attempt,
            members=members,
            recovery_threshold=recovery_threshold(len(members), plan.aggregation.tolerated),
            tolerated=plan.aggregation.tolerated,
            groups=plan.aggregation.groups,
            parameters=plan.parameters,
            layout_sha256=plan.layout_sha256,
            plan_sha256=mandate.body.plan_sha256,
            model_in=self._model_in(),
            word_bits=ring,
            bits=plan.aggregation.bits,
            clip_milli=plan.aggregation.clip_milli,
            not_after=min(now_ms() + term_ms, mandate.body.not_after),
            nonce=secrets.token_hex(32),
        )
        raw = seal_authorisation(content, self.party.signing_key)
        return open_authorisation(raw, state.verify_key)

    def _model_in(self) -> Digest:
        aggregated = [
            a.closed.body.model_out for a in self._attempts() if a.aggregated and a.closed
        ]
        return aggregated[-1] if aggregated else self._mandate.body.plan.initial_adapter

    def _dispatch(self, authorisation: SignedAuthorisation) -> None:
        keys = self.nodes()
        members = authorisation.content.members
        self.flower.check()
        if not self._flower_run or self.flower.status(self._flower_run).startswith("finished"):
            self._flower_run = self.flower.start_run(self.run)
        self.orders.give(
            self.run,
            authorisation,
            {m: self.flower.node_key(keys[m]) for m in members if m in keys},
            traceparent=telemetry.traceparent(),
            timeout_s=_PHASES * self._mandate.body.plan.phase_timeout_s,
        )

    def _record(
        self,
        started: RoundStarted,
        step: optimiser.Step,
        sums: Sequence[AggregateSum],
        excluded: Mapping[MemberId, str],
        lobby: Lobby,
        *,
        transcript: Digest,
    ) -> tuple[optimiser.Step, int]:
        """Keep the adapter, then record the round; return it with the ledger's size."""
        aggregation = self._mandate.body.plan.aggregation
        following = optimiser.advance(
            step,
            robust.combine(sums, aggregation),
            rate=aggregation.outer_lr_milli / 1000,
            decay=aggregation.momentum_milli / 1000,
        )
        model_out = self.artifacts.keep_round(following.adapter, following.momentum)
        # One who left after its upload is in the sum all the same.
        out = {m: excluded.get(m, "RNM-ROUND-0002") for m in started.invited}
        included = tuple(sorted(name for total in sums for name in total.included))
        record = RoundClosed(
            run=started.run,
            round=started.round,
            attempt=started.attempt,
            outcome=Outcome.AGGREGATED,
            reason="",
            model_in=started.model_in,
            model_out=model_out,
            transcript_sha256=transcript,
            included=included,
            excluded=verdicts.excluded({m: c for m, c in out.items() if m not in included}),
            groups=tuple(total.included for total in sums) if aggregation.groups > 1 else (),
        )
        entry = self.register.act(record)
        self._note("closed", started, index=entry.index)
        result = Result(
            model_out=bytes.fromhex(model_out),
            ledger_index=entry.index,
            included=list(included),
        )
        for member in included:
            lobby.send(member, CoordinatorFrame(result=result))
        span = trace.get_current_span()
        span.set_attribute("fed.adapter.digest", model_out)
        span.set_attribute("fed.ledger.index", entry.index)
        return following, entry.index + 1

    def _record_abort(
        self, started: RoundStarted, code: str, excluded: Mapping[MemberId, str]
    ) -> None:
        # Where one member is to blame, the others are out for no fault of their own.
        rest = "RNM-ROUND-0001" if code in excluded.values() else code
        out = {member: excluded.get(member, rest) for member in started.invited}
        trace.get_current_span().set_attribute("error.type", code)
        entry = self.register.act(
            RoundClosed(
                run=started.run,
                round=started.round,
                attempt=started.attempt,
                outcome=Outcome.ABORTED,
                reason=code,
                model_in=started.model_in,
                model_out=started.model_in,
                transcript_sha256=ZERO_DIGEST,
                included=(),
                excluded=verdicts.excluded(out),
            )
        )
        self._note("aborted", started, index=entry.index, code=code)

    def _note(self, state: str, started: RoundStarted, *, index: int, code: str = "") -> None:
        self.journal.note(
            "round",
            state,
            round_no=started.round,
            attempt=started.attempt,
            index=index,
            code=code,
        )
