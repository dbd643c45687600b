"""How people act: every verb of `renmei govern` against a real coordinator, with real witnesses."""

import hashlib
import json
import re
import stat
from pathlib import Path

import pytest
from governing_kit import TRAINERS, Governed, renmei

from federation import openings
from federation.governing_cli import ACTIONS
from fedproto.errors import CODES
from fedproto.events.governance import TERMS_OF, Standing
from fedproto.governance.charter import Action, Role
from fedproto.party import Party
from renmei import cli


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    made = Governed(tmp_path_factory.mktemp("governed") / "c")
    yield made
    made.close()


@pytest.fixture
def governed(tmp_path):
    """A consortium of one test's own, for what cannot be undone."""
    made = Governed(tmp_path / "c")
    yield made
    made.close()


# proposals, shown and drafted


def test_an_amendment_is_drafted_proposed_voted_on_and_adopted_by_the_clerk(governed):
    draft = governed.root / "draft.json"
    governed.ok("honda", "draft charter", "-o", draft)
    terms = json.loads(draft.read_text())
    assert terms["charter"]["version"] == 2
    assert terms["charter"]["prev_sha256"] == governed.state.charter.digest
    terms["charter"]["limits"]["max_rounds"] = 7
    proposal = governed.propose("charter.amend", terms, "honda")
    shown = governed.ok("sony", "show", proposal)
    assert {d["path"]: (d["old"], d["new"]) for d in shown["differences"]} == {
        "limits.max_rounds": (100, 7),
        "prev_sha256": ("0" * 64, governed.state.charter.digest),
        "version": (1, 2),
    }
    assert "~ limits.max_rounds: 100 → 7" in governed.run("sony", "show", proposal).out
    after = governed.vote(proposal, "nec", "softbank")
    assert (after["stands"], after["silent"]) == ("open", ["honda", "sony"])
    assert [(a["clause"], a["proposed"], a["yes"], a["needed"]) for a in after["asked"]] == [
        ("charter.amend", False, ["nec", "softbank"], 3),
        ("charter.amend", True, ["nec", "softbank"], 3),
    ]
    governed.vote(proposal, "sony")
    assert governed.state.charter.limits.max_rounds == 7
    (row,) = governed.ok("meti", "list")["proposals"]
    assert (row["stands"], row["outcome"]) == ("decided", "charter.adopted")
    assert row["decided"] == governed.state.charters[-1].index


def test_a_dry_run_says_what_a_proposal_needs_and_sends_nothing(shared):
    terms = shared.file("standing.json", {"member": "sony", "standing": "suspended"})
    size = shared.state.size
    said = shared.ok("secretariat", "propose", "member.status", "--terms", terms, "--dry-run")
    (need,) = said["asked"]
    assert (need["clause"], need["subject"], need["needed"]) == ("member.status", "sony", 3)
    assert need["entitled"] == ["honda", "nec", "softbank"]
    assert len(said["terms_sha256"]) == 64
    assert "proposal" not in said
    assert shared.state.size == size


def test_a_dry_run_refuses_what_the_ledger_would_refuse(shared):
    terms = shared.file("stale.json", shared.ok("honda", "draft charter"))
    charter = json.loads(terms.read_text())["charter"]
    stale = shared.file("stale.json", {"charter": {**charter, "version": 9}})
    refused = shared.fails("honda", "propose", "charter.amend", "--terms", stale, "--dry-run")
    assert refused == (6, "RNM-GOV-0001")


def test_terms_with_an_unknown_field_a_float_or_a_name_twice_are_refused(shared):
    good = '"member":"sony","standing":"suspended"'
    for text in (
        f'{{{good},"why":"x"}}',
        '{"member":"sony"}',
        '{"member":1.5,"standing":"suspended"}',
        f'{{"member":"nec",{good}}}',
        '{"member":"sony","standing":"asleep"}',
        "[]",
        "no json",
    ):
        path = shared.file("bad.json", text)
        refused = shared.fails("honda", "propose", "member.status", "--terms", path, "--dry-run")
        assert refused == (2, "RNM-CONF-0001"), text


def test_who_is_not_entitled_is_refused_with_exit_6(shared):
    proposals = len(shared.state.proposals)
    terms = shared.file("standing.json", {"member": "sony", "standing": "suspended"})
    refused = shared.fails("pfn", "propose", "member.status", "--terms", terms)
    assert refused == (6, "RNM-GOV-0001")
    proposal = shared.propose("member.status", {"member": "sony", "standing": "expelled"})
    assert shared.fails("sony", "vote", proposal, "no") == (6, "RNM-GOV-0001")
    assert shared.fails("pfn", "vote", proposal, "yes") == (6, "RNM-GOV-0001")
    assert shared.fails("pfn", "stop", "--reason", "drill") == (6, "RNM-GOV-0001")
    assert len(shared.state.proposals) == proposals + 1
    assert shared.state.proposals[proposal].votes == ()
    assert shared.state.stops == ()


def test_a_second_ballot_is_refused_with_exit_8(shared):
    proposal = shared.propose("member.status", {"member": "nec", "standing": "suspended"})
    shared.vote(proposal, "honda")
    assert shared.fails("honda", "vote", proposal, "no") == (8, "RNM-GOV-0003")


def test_a_proposal_is_named_by_its_first_digits_and_by_nothing_less(shared):
    proposal = shared.propose("member.status", {"member": "nec", "standing": "expelled"})
    assert shared.ok("honda", "show", proposal[:10])["proposal"] == proposal
    assert shared.fails("honda", "show", proposal[:5]) == (2, "RNM-CONF-0001")
    assert shared.fails("honda", "vote", "0" * 12, "yes") == (2, "RNM-CONF-0001")


def test_voting_may_not_stay_open_longer_than_the_clause_says(shared):
    terms = shared.file("standing.json", {"member": "sony", "standing": "suspended"})
    words = ("member.status", "--terms", terms, "--closes-in", 31 * 86_400)
    assert shared.fails("honda", "propose", *words) == (6, "RNM-GOV-0001")


def test_a_veto_ends_a_proposal_and_its_reason_stays_with_who_gave_it(tmp_path):
    made = Governed(
        tmp_path / "c",
        CHANGE_STANDING={"veto": (Role.TRAINER,)},
    )
    try:
        proposal = made.propose("member.status", {"member": "nec", "standing": "suspended"})
        assert made.fails("sony", "vote", proposal, "veto") == (2, "RNM-CONF-0001")
        reason = made.file("why.txt", "the evidence is hearsay")
        said = made.ok("sony", "vote", proposal, "veto", "--reason", reason)
        assert (said["stands"], said["vetoed_by"]) == ("decided", ["sony"])
        assert said["outcome"] == "proposal.closed vetoed"
        kept = json.loads(Path(said["reason_file"]).read_text())
        assert stat.S_IMODE(made.dir("sony").joinpath("openings").stat().st_mode) == 0o700
        mode = (made.dir("sony") / "openings" / f"{kept['commitment']}.json").stat().st_mode
        assert stat.S_IMODE(mode) == 0o600
        ballot = made.state.proposals[proposal].votes[0].body
        opened = openings.commitment(
            bytes.fromhex(kept["salt"]), "vote-reason", reason.read_bytes()
        )
        assert ballot.reason == kept["commitment"] == opened
        entries = made.coordinator.ledger.entries(0, made.state.size)
        assert not any(b"hearsay" in entry for entry in entries)
    finally:
        made.close()


# seats


def test_a_newcomer_is_drafted_from_its_public_keys_admitted_by_charter_and_seated(governed):
    governed.newcomer("toyota")
    keys = governed.root / "toyota.keys.json"
    governed.ok("toyota", "keys", "-o", keys)
    assert governed.fails("toyota", "seat") == (4, "RNM-AUTH-0001")
    entry = governed.root / "toyota.member.json"
    drafted = renmei_draft("toyota", keys, entry)
    assert drafted["roles"] == ["trainer", "witness"]
    terms = governed.file(
        "admission.json", governed.ok("secretariat", "draft charter", "--member", entry)
    )
    proposal = governed.propose("charter.amend", json.loads(terms.read_text()))
    asked = governed.ok("honda", "show", proposal)["asked"]
    assert [need["clause"] for need in asked] == [
        "charter.amend",
        "charter.amend",
        "member.admit",
    ]
    governed.vote(proposal, *TRAINERS)
    assert governed.state.charter.member("toyota") is not None
    assert governed.state.acting_key("toyota") is None
    # It may not act before it has taken its seat.
    words = ("--reason", "drill")
    assert governed.fails("toyota", "stop", *words) == (6, "RNM-GOV-0001")
    governed.ok("toyota", "seat")
    key = Party.load(governed.dir("toyota")).signing_key.verify_key
    assert governed.state.acting_key("toyota") == key
    assert governed.fails("toyota", "seat") == (8, "RNM-GOV-0003")
    ballot = governed.propose("member.status", {"member": "nec", "standing": "suspended"})
    assert "toyota" in governed.vote(ballot, "toyota")["asked"][0]["yes"]


def renmei_draft(name, keys, output):
    answer = renmei(
        *("govern", "draft", "member", name, "--key", str(keys), "-o", str(output), "--json")
    )
    assert answer.exit == 0, answer.err
    return json.loads(output.read_text())


def test_the_keys_that_a_party_hands_out_are_those_that_the_charter_names(shared):
    keys = shared.ok("honda", "keys")
    member = shared.state.charter.member("honda")
    for name in ("key", "recovery", "witness", "validator"):
        assert keys[name] == getattr(member, name), name


def test_a_suspended_member_neither_votes_nor_counts(governed):
    proposal = governed.propose("member.status", {"member": "sony", "standing": "suspended"})
    told = governed.vote(proposal, "honda", "nec", "softbank")
    assert (told["stands"], told["outcome"]) == ("decided", "member.status")
    assert governed.state.standing("sony") is Standing.SUSPENDED
    other = governed.propose("member.status", {"member": "nec", "standing": "suspended"})
    assert governed.ok("honda", "show", other)["asked"][0]["entitled"] == ["honda", "softbank"]
    assert governed.fails("sony", "vote", other, "yes") == (6, "RNM-GOV-0001")
    back = governed.propose("member.status", {"member": "sony", "standing": "active"})
    governed.vote(back, "honda", "nec", "softbank")
    assert governed.state.standing("sony") is Standing.ACTIVE


def test_a_member_leaves_only_when_its_name_is_typed_back(governed):
    assert governed.fails("sony", "withdraw") == (2, "RNM-CONF-0001")
    assert governed.fails("sony", "withdraw", "--yes", "nec") == (2, "RNM-CONF-0001")
    governed.ok("sony", "withdraw", "--yes", "sony")
    assert governed.state.standing("sony") is Standing.WITHDRAWN
    assert governed.fails("sony", "withdraw", "--yes", "sony") == (8, "RNM-GOV-0003")


def test_a_decision_is_written_down_by_who_may_propose_it_where_the_clerk_does_not(
    governed, monkeypatch
):
    monkeypatch.setattr(type(governed.coordinator.clerk), "review", lambda *_: None)
    monkeypatch.setattr("federation.governing._DECIDED_S", 0.1)
    proposal = governed.propose("member.status", {"member": "sony", "standing": "suspended"})
    assert governed.fails("nec", "carry-out", proposal) == (6, "RNM-GOV-0002")
    assert governed.vote(proposal, "honda", "nec", "softbank")["stands"] == "carried"
    assert governed.fails("pfn", "carry-out", proposal) == (6, "RNM-GOV-0001")
    governed.ok("nec", "carry-out", proposal)
    assert governed.state.standing("sony") is Standing.SUSPENDED
    assert governed.fails("nec", "carry-out", proposal) == (8, "RNM-GOV-0003")


# emergencies


def test_a_stop_refuses_the_start_of_a_run_until_a_vote_resumes(governed):
    governed.prepare_run(rounds=1)
    run = next(iter(governed.state.runs))
    stop = governed.ok("nec", "stop", "--run", run[:8], "--reason", "data-leak")["entry"]
    start = ("run", "start", run, "--dir", str(governed.dir("secretariat")), "--json")
    refused = renmei(*start)
    assert (refused.exit, refused.data["code"]) == (6, "RNM-GOV-0004")
    assert governed.state.rounds(run) == ()
    assert governed.fails("nec", "stop", "--run", run[:8], "--reason", "x") == (8, "RNM-GOV-0003")
    listed = governed.ok("meti", "list")["stops"]
    assert [(s["stop"], s["by"], s["reason"]) for s in listed] == [(stop, "nec", "data-leak")]
    governed.vote(governed.propose("emergency.resume", {"stop": stop}), *TRAINERS[:3])
    assert governed.state.stops == ()
    assert renmei(*start).exit == 0


def test_a_dataset_goes_out_of_use_and_an_incident_is_on_record(governed):
    governed.prepare_run()
    commitment = governed.members["nec"].dataset
    words = (commitment[:10], "--reason", "contract-ended")
    assert governed.fails("nec", "withdraw-dataset", *words) == (2, "RNM-CONF-0001")
    sure = (*words, "--yes", commitment[:8])
    assert governed.fails("honda", "withdraw-dataset", *sure) == (6, "RNM-GOV-0001")
    governed.ok("nec", "withdraw-dataset", *sure)
    assert governed.state.dataset(commitment) is None
    report = governed.file("report.txt", "a disk was stolen")
    said = governed.ok(
        *("nec", "report-incident", "--category", "theft", "--severity", 3, "--report", report)
    )
    assert json.loads(Path(said["report_file"]).read_text())["kind"] == "incident-report"


def test_the_pretrainer_approves_base_weights_where_no_vote_is_asked_for(shared):
    terms = shared.file(
        "base.json",
        {
            "name": "base",
            "manifest_sha256": "a" * 64,
            "corpus_sha256": "b" * 64,
            "licence": "Apache-2.0",
            "parameters": 1000,
        },
    )
    assert shared.fails("honda", "approve-base", "--terms", terms) == (6, "RNM-GOV-0001")
    # What is not voted on is not proposed either.
    refused = shared.fails("pfn", "propose", "base_model.approve", "--terms", terms)
    assert refused == (6, "RNM-GOV-0001")
    shared.ok("pfn", "approve-base", "--terms", terms)
    assert shared.state.base_model("a" * 64) is not None
    assert shared.fails("pfn", "approve-base", "--terms", terms) == (8, "RNM-GOV-0003")


REPORT = {
    "v": 1,
    "artifact": "a" * 64,
    "suite_sha256": "c" * 64,
    "metrics": {"bits_per_byte": "2.4200", "cloze.ja": "0.3900"},
}


def test_the_figures_of_a_report_are_attested_once_by_who_may(governed):
    report = governed.file("report.json", REPORT)
    # A base model that nobody approved is not attested.
    assert governed.fails("nec", "attest", "--report", report) == (6, "RNM-GOV-0001")
    base = {
        "name": "base",
        "manifest_sha256": "a" * 64,
        "corpus_sha256": "b" * 64,
        "licence": "Apache-2.0",
        "parameters": 1000,
    }
    governed.ok("pfn", "approve-base", "--terms", governed.file("base.json", base))
    assert governed.fails("meti", "attest", "--report", report) == (6, "RNM-GOV-0001")
    for member in ("pfn", "nec"):
        governed.ok(member, "attest", "--report", report)
    assert governed.fails("nec", "attest", "--report", report) == (8, "RNM-GOV-0003")
    first, second = governed.state.evaluations["a" * 64]
    assert (first.member, second.member) == ("pfn", "nec")
    assert first.body.metrics == REPORT["metrics"]
    assert first.body.report_sha256 == hashlib.sha256(report.read_bytes()).hexdigest()


@pytest.mark.parametrize(
    "change",
    [
        {"v": 2},
        {"report_sha256": "d" * 64},
        {"artifact": "short"},
        {"metrics": {}},
        {"metrics": {"loss": "NaN"}},
        {"metrics": {"loss": 2.42}},
        {"note": "free text"},
    ],
)
def test_a_report_that_is_not_in_order_is_attested_by_nobody(shared, change):
    report = shared.file("report.json", {**REPORT, **change})
    size = shared.state.size
    assert shared.fails("nec", "attest", "--report", report) == (2, "RNM-CONF-0001")
    assert shared.state.size == size


# how it is said


def test_every_answer_is_said_in_japanese_too(shared):
    proposal = shared.propose("member.status", {"member": "honda", "standing": "suspended"})
    listed = shared.run("meti", "list", lang="ja").out
    assert "投票中" in listed
    assert "未投票: nec, softbank, sony" in listed
    refused = shared.run("pfn", "vote", proposal, "yes", lang="ja")
    assert refused.exit == 6
    assert "憲章により許可されていません" in refused.err
    # Where all must say yes, one abstention ends it.
    voted = shared.run("nec", "vote", proposal, "abstain", lang="ja")
    assert voted.exit == 0
    assert "決定済み" in voted.out


PAGE = Path(__file__).parents[2] / "docs" / "governance.md"


def test_every_command_on_the_page_is_one_that_renmei_understands():
    lines = [line for line in PAGE.read_text().splitlines() if line.startswith("renmei govern")]
    parser = cli.build_parser("en")
    verbs = {parser.parse_args(line.split()[1:]).command for line in lines}
    assert {"govern draft charter", "govern draft member", "govern vote"} <= verbs
    assert len(verbs) == 17, verbs


def test_every_action_and_every_code_on_the_page_exists():
    text = PAGE.read_text()
    assert set(re.findall(r"RNM-[A-Z]+-\d{4}", text)) <= CODES.keys()
    rows = re.findall(r"^\| `([a-z_]+\.[a-z]+)` \|", text, re.MULTILINE)
    assert sorted(rows) == sorted(action.value for action in Action)
    assert set(ACTIONS) == {action.value for action in TERMS_OF}
