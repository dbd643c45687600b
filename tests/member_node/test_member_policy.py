import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedproto.errors import FederationError
from fedproto.events.models import LegalBasis
from fedproto.governance.plan import Aggregation, Lora, Method, RunPlan, Training
from fedproto.ids import Digest, MemberId
from member_node import policy as policies
from member_node.policy import DatasetTerms, Policy

PLAN = RunPlan(
    initial_adapter=Digest("e" * 64),
    purpose="domain-adaptation",
    base_manifest_sha256=Digest("a" * 64),
    layout_sha256=Digest("b" * 64),
    parameters=8,
    lora=Lora(rank=4, alpha=8, targets=("q_proj",)),
    training=Training(rounds=2, steps=10, batch=4, sequence=64, lr_micro=1000, seed=1),
    aggregation=Aggregation(
        method=Method.FEDAVG,
        outer_lr_milli=1000,
        momentum_milli=0,
        clip_milli=1000,
        bits=16,
        tolerated=1,
    ),
    members=tuple(MemberId(m) for m in ("honda", "nec", "softbank", "sony")),
    min_members=3,
    phase_timeout_s=60,
)
WILLING = Policy(
    purposes=("domain-adaptation",),
    base_models=("a" * 64,),
    max_rank=4,
    max_rounds=2,
    max_steps=10,
    min_members=3,
    min_tolerated=1,
    max_phase_timeout_s=60,
    auto_vote=True,
    dataset=DatasetTerms(
        legal_basis=LegalBasis.NOT_PERSONAL,
        purpose="domain-adaptation",
        residency="jp",
        licence="proprietary",
    ),
)


def test_a_plan_at_every_limit_is_allowed():
    policies.check_plan(WILLING, PLAN)


@pytest.mark.parametrize(
    ("tightened", "word"),
    [
        ({"purposes": ("other",)}, "purpose"),
        ({"base_models": ("c" * 64,)}, "base model"),
        ({"max_rank": 3}, "rank"),
        ({"max_rounds": 1}, "rounds"),
        ({"max_steps": 9}, "steps"),
        ({"min_members": 4}, "cohort"),
        ({"min_tolerated": 2}, "colluders"),
        ({"max_phase_timeout_s": 59}, "phase timeout"),
        ({"dataset": None}, "dataset"),
    ],
)
def test_one_step_beyond_any_limit_is_refused_by_name(tightened, word):
    with pytest.raises(FederationError, match=word) as refusal:
        policies.check_plan(replace(WILLING, **tightened), PLAN)
    assert refusal.value.code == "RNM-CONSENT-0004"


def test_a_directory_without_a_policy_allows_nothing(tmp_path):
    assert not policies.load(tmp_path).auto_vote
    with pytest.raises(FederationError, match="purpose"):
        policies.check_plan(policies.load(tmp_path), PLAN)


@pytest.mark.parametrize("name", list(Policy.__dataclass_fields__))
def test_leaving_a_permission_out_never_allows_more(name, tmp_path):
    """What remains is at least as strict: the default of each name denies or is the strictest."""
    value = json.loads(_text(WILLING))
    del value[name]
    loose = policies.parse(json.dumps(value).encode(), "p")
    assert not policies.refusals(WILLING, PLAN)
    if name not in {"min_members", "min_tolerated", "auto_vote"}:
        assert policies.refusals(loose, PLAN)
    assert not (name == "auto_vote" and loose.auto_vote)


def test_a_saved_policy_is_read_back_the_same_and_is_its_owners_alone(tmp_path):
    policies.save(tmp_path, WILLING)
    assert policies.load(tmp_path) == WILLING
    assert (tmp_path / "policy.json").stat().st_mode & 0o777 == 0o600


def test_a_policy_that_others_can_change_is_refused(tmp_path):
    policies.save(tmp_path, WILLING)
    (tmp_path / "policy.json").chmod(0o644)
    with pytest.raises(FederationError) as refusal:
        policies.load(tmp_path)
    assert refusal.value.code == "RNM-KEY-0002"


def test_a_misspelt_limit_is_an_error_with_the_nearest_spelling():
    with pytest.raises(FederationError, match="did you mean 'max_rank'") as refusal:
        policies.parse(b'{"max_rnak": 4}', "policy.json")
    assert refusal.value.code == "RNM-CONF-0001"
    with pytest.raises(FederationError, match="did you mean 'residency'"):
        policies.parse(b'{"dataset": {"residncy": "jp"}}', "policy.json")


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"[]",
        b"{",
        b"\xff",
        b'{"max_rank": 4.0}',
        b'{"max_rank": "4"}',
        b'{"max_rank": true}',
        b'{"max_rank": -1}',
        b'{"max_rank": 1, "max_rank": 9}',
        b'{"base_models": ["latest"]}',
        b'{"min_members": 2}',
        b'{"min_tolerated": 0}',
        b'{"auto_vote": "yes"}',
        b'{"dataset": {"legal_basis": "because", "purpose": "x", "residency": "jp"}}',
        b'{"purposes": [NaN]}',
    ],
)
def test_an_unclear_policy_is_never_guessed_at(text):
    with pytest.raises(FederationError) as refusal:
        policies.parse(text, "policy.json")
    assert refusal.value.code == "RNM-CONF-0001"


@given(st.integers(0, 30), st.booleans())
def test_spacing_does_not_change_the_digest(rank, voting):
    policy = replace(WILLING, max_rank=rank, auto_vote=voting)
    spaced = json.dumps(json.loads(_text(policy)), indent=5).encode()
    assert policies.parse(spaced, "p").digest == policy.digest
    assert (policy.digest == WILLING.digest) == (policy == WILLING)


def _text(policy):
    from fedproto.schema import to_json

    return json.dumps(to_json(policy))
