"""The demo's parties at work: founding, processes, base model, proposal, votes, rounds."""

import json
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from audit.records import State
from base_model import tokenizer, weights
from base_model.corpus import Split
from base_model.evaluate import bits_per_byte, score
from base_model.packing import pack
from base_model.pretrain import Job, pretrain, useful_processes
from base_model.recipes import RECIPES
from base_model.train import StepReport
from federation.client import CoordinatorClient
from fedproto import process
from fedproto.events.governance import ProposalOpened
from fedproto.events.models import BaseModel, BaseModelApproved, LegalBasis
from fedproto.governance.charter import Action
from fedproto.governance.plan import Aggregation, Lora, Method, RunPlan, Training
from fedproto.ids import Digest, MemberId, RunId
from fedproto.layout import FlatVector, vector_digest
from fedproto.party import now_ms
from member_node import policy as policies
from member_node.policy import DatasetTerms, Policy
from renmei.consortium import found
from renmei.demo.settings import CONSORTIUM, MEMBERS
from renmei.demo.stage import Stage

PURPOSE = "japanese-domain-adaptation"
TARGETS = ("down_proj", "gate_proj", "k_proj", "o_proj", "q_proj", "up_proj", "v_proj")
_RENMEI = (sys.executable, "-m", "renmei.cli")
_READY_S = 120.0
_VOTE_S = 180.0
_POLL_S = 0.2


def found_consortium(stage: Stage) -> None:
    """Step 1: root, log key, coordinator, members with their own keys and policies."""
    coordinator, gateway = process.free_ports(2)
    made = found(
        stage.root,
        consortium=CONSORTIUM,
        coordinator=f"127.0.0.1:{coordinator}",
        gateway=f"127.0.0.1:{gateway}",
    )
    plan = stage.settings
    for member in MEMBERS:
        # Each member's own file: what its node may agree to without asking a person.
        policies.save(
            stage.root / member,
            Policy(
                purposes=(PURPOSE,),
                base_models=("*",),
                max_rank=plan.rank,
                max_rounds=plan.rounds,
                max_steps=plan.steps,
                max_phase_timeout_s=600,
                auto_vote=True,
                dataset=DatasetTerms(
                    legal_basis=LegalBasis.NOT_PERSONAL,
                    purpose=PURPOSE,
                    residency="JP",
                    licence="proprietary",
                ),
            ),
        )
    charter = made.charter
    names = ", ".join(member.id for member in charter.members)
    stage.say(f"parties: {names}", f"参加者: {names}")
    stage.say(
        f"genesis {charter.digest[:16]}…; each took its own seat in the ledger, entries 1 to "
        f"{len(charter.members) - 1}; keys stay in each directory (0700)",
        f"創設文書 {charter.digest[:16]}…。各参加者が自ら台帳の席に着きました(項目 1～"
        f"{len(charter.members) - 1})。鍵は各自のディレクトリ(0700)にあります",
    )


def start_processes(stage: Stage) -> None:
    """Start the coordinator and the four nodes; they get ready while the base is pretrained."""
    stage.children.append(
        process.spawn(
            "coordinator",
            [*_RENMEI, "coordinator", "serve", "--dir", str(stage.root / "coordinator")],
            stage.root / "coordinator.log",
            {"OMP_NUM_THREADS": "1"},
            ready_line=True,
        )
    )
    compiled = [] if stage.settings.compiled else ["--no-compile"]
    for member in MEMBERS:
        stage.children.append(
            process.spawn(
                f"node {member}",
                [*_RENMEI, "node", "run", "--dir", str(stage.root / member), *compiled],
                stage.root / f"{member}.log",
                {"OMP_NUM_THREADS": "1"},
                ready_line=True,
            )
        )


def await_processes(stage: Stage) -> None:
    """Wait until all of them have said that they are ready."""
    for child in stage.children:
        process.await_line(child, _READY_S)


@dataclass(frozen=True, slots=True, kw_only=True)
class Base:
    """The pretrained base: its release, and how good it is on held-out text of its own corpus."""

    release: Path
    loss: float
    held_out: float


def pretrain_base(stage: Stage, split: Split) -> Base:
    """Step 2: tokenizer, packing, training with progress, release by digest."""
    workshop = stage.root / "datacentre"
    recipe = RECIPES[stage.settings.base_recipe]()
    stage.say(
        f"tokenizer and packing of {sum(len(d.text) for d in split.train) / 1e6:.1f} M characters",
        f"トークナイザーの学習と詰め込み({sum(len(d.text) for d in split.train) / 1e6:.1f} M 文字)",
    )
    words = tokenizer.train(document.text for document in split.train)
    pack(split.train, words, workshop / "packed")
    job = Job(
        recipe=recipe,
        packed=workshop / "packed",
        seed=stage.seed,
        compile_=stage.settings.compiled,
        snapshots=workshop / "snapshots",
    )
    bar = stage.console.progress(
        stage.console.say(en="      pretraining", ja="      事前学習"),
        recipe.schedule.steps,
        stage.console.say(en="steps", ja="ステップ"),
    )

    def on_step(report: StepReport) -> None:
        bar.advance(1, f"loss {report.loss:.3f}")

    model, loss = pretrain(job, processes=useful_processes(), on_step=on_step)
    bar.close()
    release = weights.publish(model, words, workshop / "releases")
    texts = [document.text for document in split.test[:60]]
    scores = score(model, words, texts, window=recipe.sequence)
    return Base(release=release, loss=loss, held_out=bits_per_byte(scores))


def approve_base(stage: Stage, base: Base, corpus: Digest) -> int:
    """Record the release in the ledger and bring its files to the coordinator; return the index."""
    client = CoordinatorClient(stage.root / "pfn")
    client.sync(min_size=1)
    for path in sorted(base.release.iterdir()):
        client.put_file(path)
    body = BaseModelApproved(
        model=BaseModel(
            name="renmei-demo-base",
            manifest_sha256=Digest(base.release.name),
            corpus_sha256=corpus,
            licence="CC-BY-SA-4.0",
            parameters=_parameters(base.release),
        ),
        proposal="",
        votes=(),
    )
    return client.approve_base_model(body)


def _parameters(release: Path) -> int:
    header = (release / "model.safetensors").open("rb")
    with header as file:
        size = int.from_bytes(file.read(8), "little")
        entries = json.loads(file.read(size))
    total = 0
    for name, entry in entries.items():
        if name != "__metadata__":
            count = 1
            for side in entry["shape"]:
                count *= side
            total += count
    return total


def make_plan(stage: Stage, base: Base) -> tuple[RunPlan, FlatVector]:
    """Return the plan and the adapter that it starts from, as every node makes it itself."""
    from member_node import adapter

    settings = stage.settings
    lora = Lora(rank=settings.rank, alpha=2 * settings.rank, targets=TARGETS)
    manifest = Digest(base.release.name)
    model = adapter.attach(weights.load_base(base.release, manifest), lora, stage.seed)
    layout = adapter.layout_of(model)
    initial = adapter.to_flat(model, layout)
    plan = RunPlan(
        purpose=PURPOSE,
        base_manifest_sha256=manifest,
        initial_adapter=vector_digest(initial),
        layout_sha256=layout.digest,
        parameters=layout.size,
        lora=lora,
        training=Training(
            rounds=settings.rounds,
            steps=settings.steps,
            batch=settings.batch,
            sequence=settings.sequence,
            lr_micro=settings.lr_micro,
            seed=stage.seed,
        ),
        aggregation=Aggregation(
            method=Method.FEDAVG,
            outer_lr_milli=settings.outer_lr_milli,
            momentum_milli=settings.momentum_milli,
            clip_milli=64_000,
            bits=22,
            tolerated=1,
        ),
        members=tuple(MemberId(member) for member in MEMBERS),
        min_members=3,
        phase_timeout_s=300,
    )
    return plan, initial


def propose(stage: Stage, plan: RunPlan, initial: FlatVector) -> tuple[RunId, State]:
    """Step 3: the administrator proposes, the nodes vote, the clerk writes the mandate."""
    client = CoordinatorClient(stage.root / "secretariat")
    client.sync(min_size=1)
    client.put_vector(initial)
    body = ProposalOpened(
        action=Action.APPROVE_RUN,
        terms=plan,
        terms_sha256=plan.digest,
        closes_at=now_ms() + int(_VOTE_S * 1000),
    )
    index = client.propose(body)
    stage.say(
        f"proposal in entry {index}, plan {plan.digest[:16]}…",
        f"提案は項目 {index}、実行計画 {plan.digest[:16]}…",
    )
    deadline = time.monotonic() + _VOTE_S
    while True:
        stage.check()
        state = client.sync()
        runs = [run for run, found_ in state.runs.items() if found_.mandate.body.plan == plan]
        if runs:
            return RunId(runs[0]), state
        if time.monotonic() > deadline:
            raise TimeoutError("no mandate came of the proposal")
        time.sleep(_POLL_S)


def follow(stage: Stage, run: RunId, plan: RunPlan) -> None:
    """Step 4: start the run and show its rounds as the coordinator reports them."""
    client = CoordinatorClient(stage.root / "secretariat")
    client.start(run)
    rounds = plan.training.rounds
    bar = stage.console.progress(
        stage.console.say(en="      rounds", ja="      ラウンド"),
        rounds * len(MEMBERS),
        stage.console.say(en="uploads", ja="送信"),
    )
    for event in client.watch(run):
        if event.state == "masked":
            bar.advance(1, f"round {event.round}/{rounds}")
        elif event.phase == "round" and event.state in ("closed", "aborted"):
            code = f" {event.code}" if event.code else ""
            stage.say(
                f"round {event.round}: {event.state}, entry {event.ledger_index}{code}",
                f"ラウンド {event.round}: {event.state}、項目 {event.ledger_index}{code}",
            )
        elif event.state == "left":
            stage.say(
                f"{event.member} left in {event.phase}: {event.code}",
                f"{event.member} が {event.phase} で離脱: {event.code}",
            )
    bar.close()


def show_mandate(stage: Stage, run: RunId, state: State) -> None:
    """Show who voted, where the mandate stands, and who cosigned the ledger that holds it."""
    found_ = state.runs[run]
    proposal = state.proposals[found_.mandate.body.proposal]
    votes = ", ".join(f"{v.member} {v.body.choice.value} (entry {v.index})" for v in proposal.votes)
    stage.say(f"ballots: {votes}", f"投票: {votes}")
    index, quorum = found_.mandate.index, state.charter.witness_quorum
    stage.say(
        f"mandate {run[:8]} in entry {index}, under a checkpoint that {quorum} or more members "
        "cosigned",
        f"委任 {run[:8]} は項目 {index}。{quorum} 社以上が連署したチェックポイントの下にあります",
    )
