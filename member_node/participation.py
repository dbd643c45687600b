"""One task from Flower to its receipt: consent, mark, train, mask, sign.

Decides the order, which is the point: nothing touches data before consent; the mark is on the disk
before the first answer of an attempt; keys are exchanged while the trainer works; the delta goes from the
trainer to the masking client and nowhere else. Every refusal becomes an answer with a code. A shell
module.
"""

import os
import threading
from collections.abc import Callable
from dataclasses import dataclass, field

from fedproto import telemetry
from fedproto.authorisation import SignedAuthorisation
from fedproto.calibration import fastest_keystream
from fedproto.errors import CODES, FederationError, PeerFault
from fedproto.events.rounds import ParticipationSigned, SumAudited, Verdict
from fedproto.evidence import EvidenceStore
from fedproto.ids import Digest, MemberId, tagged_hash
from fedproto.layout import FlatVector
from fedproto.party import Party, now_ms, utc_now
from member_node import consent as consents
from member_node import policy as policies
from member_node.acts import ActClient
from member_node.artifact_client import ArtifactClient
from member_node.ballot import Found
from member_node.consent import Consent, Site
from member_node.egress import EgressJournal
from member_node.gate import GatedChannel
from member_node.ledger_client import LedgerClient
from member_node.log import Log
from member_node.marks import MarkBook
from member_node.ports import Answer, Task
from member_node.preparation import Preparation
from member_node.secagg_client import SecAggClient
from member_node.session import ExchangeSession, Upload
from member_node.sum_auditor import Finding
from member_node.training import BackgroundTraining, Lesson

# How long a node waits for the ledger to show, cosigned, what it was sent.
_LEDGER_PATIENCE_S = 30.0


@dataclass(slots=True, kw_only=True)
class Participation:
    """Answers tasks, one at a time."""

    party: Party
    channel: GatedChannel
    journal: EgressJournal
    ledger: LedgerClient
    acts: ActClient
    artifacts: ArtifactClient
    marks: MarkBook
    training: BackgroundTraining
    preparation: Preparation
    log: Log
    clock_ms: Callable[[], int] = now_ms
    entropy: Callable[[int], bytes] = os.urandom
    _one_at_a_time: threading.Lock = field(default_factory=threading.Lock)

    def answer(self, task: Task) -> Answer:
        """Take part in a round, or say why not; never raises a named error."""
        parent = telemetry.parent(task.traceparent)
        with (
            self._one_at_a_time,
            telemetry.tracer().start_as_current_span("member.round", parent) as span,
        ):
            span.set_attribute("member", self.party.profile.id)
            try:
                answer = Answer(receipt=self._take_part(task.authorisation))
            except FederationError as error:
                answer = _refusal(error)
            return self._written_down(answer)

    def _written_down(self, answer: Answer) -> Answer:
        """Put the reply into the journal: the courier carries it, but it leaves all the same."""
        said = answer.receipt or f"{answer.code}\n{answer.why}".encode()
        self.journal.record("flower.reply", said, to=self.party.profile.gateway)
        return answer

    def _take_part(self, raw: bytes) -> bytes:
        run, round_no = "", 0
        try:
            consent = self._consent(raw)
            content = consent.content
            run, round_no = content.run, content.round
            self.log.info("round.consented", run=run, round_no=round_no)
            found = self.preparation.ensure(consent.mandate.plan)
            consents.check_model(consent, found)
            self.preparation.declare(found.dataset)
            model_in = self._model_in(consent)
            # From here on this attempt counts as answered, whatever becomes of the process.
            self.marks.advance(content.run, consent.mark)
            receipt = self._exchange(consent, found, model_in)
        except FederationError as error:
            self.log.refused("round.refused", error, run=run, round_no=round_no)
            raise
        self.log.info("round.finished", run=run, round_no=round_no)
        return receipt

    def _consent(self, raw: bytes) -> Consent:
        with telemetry.tracer().start_as_current_span("member.consent"):
            state = self.ledger.sync()
            authorisation = consents.authenticate(raw, state)
            run = authorisation.content.run
            state = self.ledger.wait_for(
                lambda state: consents.is_decided(authorisation, state),
                patience_s=_LEDGER_PATIENCE_S,
            )
            site = Site(
                me=self.party.profile.id,
                policy=policies.load(self.party.root),
                last=self.marks.last(run),
            )
            grounds = consents.grounds_of(state, run)
            return consents.check(authorisation, grounds, site, self.clock_ms())

    def _model_in(self, consent: Consent) -> FlatVector:
        digest, plan = consent.content.model_in, consent.mandate.plan
        if digest == plan.initial_adapter:
            # The node's own trainer made it from the plan's seed: nothing to fetch or believe.
            return self.preparation.initial_adapter(plan)
        return self.artifacts.adapter(digest, plan.parameters)

    def _exchange(self, consent: Consent, found: Found, model_in: FlatVector) -> bytes:
        authorisation = consent.authorisation
        half = self._half(authorisation)
        receipts: list[bytes] = []

        def sign_receipt(upload: Upload) -> None:
            receipts.append(self._sign_receipt(consent, found.dataset, upload))

        session = ExchangeSession(
            channel=self.channel,
            authorisation=authorisation,
            half=half,
            trained=self.training.start(_lesson(consent), model_in),
            rounding_seed=_rounding_seed(consent, self.party.profile.id),
            me=self.party.profile.id,
            sign_receipt=sign_receipt,
            sign_audit=lambda finding: self._sign_audit(consent, finding),
            note_opened=lambda survivors: self.marks.open_sum(
                consent.content.run, consent.content.round, survivors
            ),
            timeout_s=max(1.0, (consent.content.not_after - self.clock_ms()) / 1000),
        )
        try:
            session.run()
        except PeerFault as fault:
            store = EvidenceStore(root=self.party.root)
            store.keep(fault, session.last_received, authorisation.raw, utc_now())
            raise
        self.training.drop()
        return receipts[0]

    def _half(self, authorisation: SignedAuthorisation) -> SecAggClient:
        state = self.ledger.state
        keys = {member: state.acting_key(member) for member in authorisation.content.members}
        return SecAggClient(
            authorisation=authorisation,
            member=self.party.profile.id,
            key=self.party.signing_key,
            roster={member: key for member, key in keys.items() if key is not None},
            entropy=self.entropy,
            opened=self.marks.opened(authorisation.content.run, authorisation.content.round),
            keystream=fastest_keystream(),
        )

    def _sign_receipt(self, consent: Consent, dataset: Digest, upload: Upload) -> bytes:
        content = consent.content
        # The last moment at which a stop keeps this sum from being opened.
        stop = self.ledger.sync().stopped(content.run)
        consents.check_running(content.run, stop.index if stop else None)
        return self.acts.sign_participation(
            ParticipationSigned(
                run=content.run,
                round=content.round,
                attempt=content.attempt,
                authorisation_sha256=consent.authorisation.digest,
                dataset=dataset,
                upload_sha256=upload.digest,
                upload_bytes=upload.bytes,
            )
        )

    def _sign_audit(self, consent: Consent, finding: Finding) -> None:
        content = consent.content
        self.acts.audit_sum(
            SumAudited(
                run=content.run,
                round=content.round,
                attempt=content.attempt,
                transcript_sha256=finding.transcript,
                verdict=Verdict.REFUSED if finding.fault else Verdict.MATCHES,
                chunks=finding.chunks,
            )
        )


def _lesson(consent: Consent) -> Lesson:
    content = consent.content
    return Lesson(run=content.run, round=content.round, model_in=content.model_in)


def _rounding_seed(consent: Consent, me: MemberId) -> bytes:
    """Return the seed of stochastic rounding: it follows from the plan, so that a seed repeats losses.

    Rounding hides nothing, masks do: that others can know this seed tells them nothing of a delta.
    """
    content = consent.content
    return tagged_hash(
        "renmei/v1/sa/rounding",
        bytes.fromhex(content.plan_sha256),
        content.round,
        me.encode("ascii"),
    )


def _refusal(error: FederationError) -> Answer:
    """Return what the coordinator is told: of consent why, else the code's title and no more."""
    plain = error.code.startswith(("RNM-CONSENT", "RNM-SECAGG", "RNM-GOV"))
    return Answer(code=error.code, why=error.why[:300] if plain else CODES[error.code].en)
