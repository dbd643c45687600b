"""A consortium's year in one log, for the questions that auditors ask: each case occurs in it."""

import os
import subprocess
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import ledger_kit as kit

from audit import bundle, merkle, tiles
from audit.history import History
from audit.policy import policy_of
from audit.publication import Content, publish
from audit.replay import replay
from fedproto.events.governance import (
    ActRefused,
    Choice,
    Closing,
    EmergencyResumed,
    EmergencyStopped,
    MemberStatus,
    ProposalClosed,
    ResumeTerms,
    Standing,
)
from fedproto.events.models import (
    DatasetWithdrawn,
    EvaluationAttested,
    ReleaseApproved,
    ReleaseRevoked,
    ReleaseTerms,
    Remedy,
    RevocationTerms,
)
from fedproto.events.oversight import AccessGranted, ExportIssued, Method, RemediationDone
from fedproto.events.rounds import Accountant, BudgetSpent, Excluded, Outcome
from fedproto.governance.charter import Action
from fedproto.ids import Digest
from fedproto.statements import leaf_id

MINUTE = 60_000


@dataclass(frozen=True)
class Year:
    """The log, and where each thing that tests ask about stands in it."""

    leaves: tuple[bytes, ...]
    at: dict[str, int]

    @property
    def history(self) -> History:
        found = replay(self.leaves)
        assert not found.violations
        events = tuple(event for event in found.events if event is not None)
        return History(state=found.state, events=events, leaves=tuple(map(leaf_id, self.leaves)))

    def bundle(self, path: Path) -> Path:
        leaves = list(self.leaves)
        policy = policy_of(self.history.state.charter)
        bundle.write(path, note=kit.cosigned_note(leaves), entries=leaves, policy=policy)
        return path


def spent(member: str, number: int, epsilon: int, total: int) -> BudgetSpent:
    return BudgetSpent(
        run=kit.RUN,
        round=number,
        dataset=kit.digest(f"dataset:{member}"),
        mechanism="gaussian",
        sigma_micro=1_100_000,
        q_ppm=10_000,
        steps=5,
        delta_exp=6,
        epsilon_micro=epsilon,
        total_epsilon_micro=total,
        accountant=Accountant.PLD,
    )


def evaluated(number: int, accuracy: str) -> EvaluationAttested:
    return EvaluationAttested(
        artifact=kit.digest(f"adapter:{number}"),
        suite_sha256=kit.digest("suite"),
        report_sha256=kit.digest("evaluation report"),
        metrics={"accuracy": accuracy},
    )


@cache
def year() -> Year:
    story = kit.Story()
    at: dict[str, int] = {}

    def mark(name: str, leaf: Digest) -> Digest:
        at[name] = story.state.leaves[leaf]
        return leaf

    story.approved()
    at["mandate"] = story.state.runs[kit.RUN].mandate.index
    _clock(story, "founded", mark)
    _rounds(story, mark)
    _governance(story, mark)
    _release(story, mark)
    _aftermath(story, mark)
    return Year(leaves=tuple(story.leaves), at=at)


def _clock(story: kit.Story, name: str, mark) -> None:
    story.now += 10 * MINUTE
    mark(f"anchor:{name}", story.anchor(story.now))


def _rounds(story: kit.Story, mark) -> None:
    mark("started:1", story.start(1))
    for member in kit.TRAINERS:
        mark(f"receipt:1:{member}", story.receipt(member, 1))
    mark("spent:1", story.act("nec", spent("nec", 1, 500_000, 500_000)))
    mark("closed:1", story.close(1))
    # The second round fails once; in its next attempt honda drops out after it had signed.
    mark("started:2.1", story.start(2))
    story.receipt("sony", 2)
    mark(
        "aborted",
        story.close(
            2,
            outcome=Outcome.ABORTED,
            reason="RNM-SECAGG-0002",
            model_out=kit.digest("adapter:1"),
            included=(),
            excluded=tuple(Excluded(member=m, reason="RNM-ROUND-0002") for m in kit.TRAINERS),
        ),
    )
    mark("started:2.2", story.start(2, 2))
    for member in kit.TRAINERS:
        mark(f"receipt:2:{member}", story.receipt(member, 2, 2))
    mark("spent:2", story.act("nec", spent("nec", 2, 500_000, 900_000)))
    mark(
        "closed:2",
        story.close(
            2,
            2,
            included=("nec", "softbank", "sony"),
            excluded=(Excluded(member="honda", reason="RNM-ROUND-0002"),),
        ),
    )
    _clock(story, "trained", mark)


def _governance(story: kit.Story, mark) -> None:
    mark(
        "refused",
        story.act(
            "coordinator",
            ActRefused(
                member="sony", kind="vote.cast", sha256=kit.digest("late"), code="RNM-GOV-0001"
            ),
        ),
    )
    rejected = mark("rejected", story.proposal(kit.plan_of(purpose="second")))
    for member in ("honda", "nec"):
        mark(f"no:{member}", story.vote(member, rejected, Choice.NO))
    votes = tuple(sorted(v.leaf for v in story.state.proposals[rejected].votes))
    record = ProposalClosed(proposal=rejected, outcome=Closing.REJECTED, votes=votes)
    mark("closed:rejected", story.act("coordinator", record))
    stop = mark("stop", story.act("nec", EmergencyStopped(run="", reason="drill")))
    resumed = story.carried(Action.RESUME, ResumeTerms(stop=stop))
    mark("resumed", story.act("secretariat", EmergencyResumed(stop=stop, **story.cited(resumed))))


def _release(story: kit.Story, mark) -> None:
    for member, accuracy in (("nec", "0.91"), ("sony", "0.90")):
        mark(f"evaluated:{member}", story.act(member, evaluated(2, accuracy)))
    terms = ReleaseTerms(
        artifact=kit.digest("adapter:2"),
        made_by=kit.RUN,
        channels=("internal", "member-products"),
        conditions_sha256=kit.digest("conditions"),
    )
    proposed = mark("release:proposed", story.carried(Action.APPROVE_RELEASE, terms))
    _clock(story, "carried", mark)
    story.now += 3 * kit.HOUR
    mark("anchor:ripe", story.anchor(story.now))
    evaluations = tuple(sorted(item.leaf for item in story.state.evaluations[terms.artifact]))
    approved = ReleaseApproved(release=terms, evaluations=evaluations, **story.cited(proposed))
    mark("release", story.act("secretariat", approved))
    grant = AccessGranted(grantee="meti", content="report", until=story.now + kit.HOUR)
    mark("access", story.act("secretariat", grant))
    issued = ExportIssued(
        bundle_sha256=kit.digest("bundle"), size=story.state.size, recipient="meti"
    )
    mark("export", story.act("coordinator", issued))


def _aftermath(story: kit.Story, mark) -> None:
    withdrawal = DatasetWithdrawn(
        commitment=kit.digest("dataset:sony"), reason="consent-withdrawn", remedy=Remedy.TO_BE_VOTED
    )
    cause = mark("withdrawn", story.act("sony", withdrawal))
    release = next(iter(story.state.releases))
    terms = RevocationTerms(release=release, reason="dataset-withdrawn", severity=2)
    voted = story.carried(Action.REVOKE_RELEASE, terms, ("honda", "nec"))
    revoked = ReleaseRevoked(revocation=terms, **story.cited(voted))
    mark("revoked", story.act("secretariat", revoked))
    done = RemediationDone(cause=cause, method=Method.REVOKED, evidence=kit.digest("evidence"))
    mark("remedied", story.act("secretariat", done))
    leaving = MemberStatus(member="honda", standing=Standing.WITHDRAWN, proposal="", votes=())
    mark("left", story.act("honda", leaving))


# The launcher of an auditor's machine: nothing but the standard library and `cryptography`.
BARE = """
import sys
allowed = {"cryptography", "cffi", "_cffi_backend", "fedproto", "audit", "renmei"}
class Only:
    def find_spec(self, name, path=None, target=None):
        top = name.split(".")[0]
        if top not in sys.stdlib_module_names and top not in allowed and top[0] != "_":
            raise ModuleNotFoundError(f"blocked: {name}", name=name)
sys.meta_path.insert(0, Only())
import renmei.cli
renmei.cli.MODULES = ("renmei.builtin", "audit.cli")
sys.exit(renmei.cli.main(sys.argv[1:]))
"""
ENV = {k: v for k, v in os.environ.items() if not k.startswith(("LC_", "LANG", "RENMEI_"))}
PINS = ("--log-key", kit.LOG_KEY.vkey, "--genesis", kit.charter_of().digest)


def bare(*words: object) -> subprocess.CompletedProcess[str]:
    """Run `renmei audit` as an auditor has it."""
    return subprocess.run(
        [sys.executable, "-c", BARE, "audit", *map(str, words)],
        env=ENV,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def published(leaves: list[bytes], folder: Path, witnesses: tuple[str, ...] = kit.TRAINERS) -> Path:
    """Publish a log as files, as a mirror keeps it."""
    grown = tiles.RightEdge().grow([merkle.leaf_hash(leaf) for leaf in leaves])
    content = Content(
        size=len(leaves),
        note=kit.cosigned_note(leaves, witnesses),
        entries=lambda start, end: leaves[start:end],
        tile=lambda level, n: bytes(grown.tiles[level, n]),
    )
    publish(folder, content, after=0)
    return folder
