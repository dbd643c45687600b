"""Validating witnesses: who replayed the log says so by a key of its own, and by no other."""

from dataclasses import replace

import pytest
from ledger_kit import (
    LOG_KEY,
    T0,
    TRAINERS,
    Story,
    adopted,
    charter_of,
    copy_of,
    cosigned_note,
    full_story,
    seed,
    witness_of,
)

from audit import bundle
from audit.bundle import Pinned
from audit.ledger import Ledger
from audit.note import NoteSigner, parse
from audit.policy import policy_of
from audit.state import Rejected
from audit.validation import validations, validators
from fedproto.errors import LocalFault


def validator_of(member):
    return NoteSigner(f"{member}.example/v1", seed(f"validator:{member}"), cosigner=True)


def validated_charter(**others):
    members = tuple(
        replace(m, validator=others.get(m.id, validator_of(m.id).vkey)) if m.witness else m
        for m in charter_of().members
    )
    return replace(charter_of(), members=members)


def with_lines(note, *members, key=validator_of):
    text = parse(note).text
    return note + b"".join(key(member).cosign(text, T0 // 1000).encode() for member in members)


@pytest.fixture
def story():
    told = Story()
    told.genesis(validated_charter())
    told.base_model()
    return told


def test_validations_are_counted_apart_from_the_witness_quorum(story):
    note = parse(with_lines(cosigned_note(story.leaves, TRAINERS[:3]), "nec", "sony"))
    charter = story.state.charter
    assert [item.member for item in validations(charter, note)] == ["nec", "sony"]
    assert len(policy_of(charter).cosignatures(note)) == 3


def test_a_validation_does_not_fill_the_witness_quorum(story):
    note = with_lines(cosigned_note(story.leaves, TRAINERS[:2]), *TRAINERS)
    with pytest.raises(LocalFault) as caught:
        policy_of(story.state.charter).open(note)
    assert caught.value.code == "RNM-LEDGER-0006"


def test_a_validation_over_another_checkpoint_is_refused(story):
    other = parse(cosigned_note(story.leaves[:-1])).text
    line = validator_of("nec").cosign(other, T0 // 1000).encode()
    note = parse(cosigned_note(story.leaves) + line)
    with pytest.raises(LocalFault) as caught:
        validations(story.state.charter, note)
    assert caught.value.code == "RNM-LEDGER-0001"


@pytest.mark.parametrize(
    "forged",
    [
        NoteSigner("alias/v1", seed("witness:sony"), cosigner=True).vkey,
        NoteSigner("alias/v1", seed("validator:nec"), cosigner=True).vkey,
        NoteSigner("alias/v1", seed("log"), cosigner=True).vkey,
        LOG_KEY.vkey,
        "no key",
    ],
)
def test_a_validator_key_serves_one_party_and_one_use(forged):
    charter = validated_charter(sony=forged)
    result = Story().try_act("coordinator", adopted(charter))
    assert isinstance(result, Rejected)
    assert result.code == "RNM-GOV-0001"


def test_a_charter_may_name_no_validator():
    assert validators(charter_of()) == ()
    assert validations(charter_of(), parse(cosigned_note([b"x"]))) == ()


def test_a_ledger_keeps_and_publishes_validations(story, tmp_path):
    with Ledger.create(tmp_path / "l", log_key=LOG_KEY, genesis_leaf=story.leaves[0]) as ledger:
        for leaf in story.leaves[1:]:
            ledger.append(leaf)
        size, text = len(story.leaves), parse(ledger.signed_checkpoint()).text
        lines = b"".join(witness_of(m).cosign(text, 1).encode() for m in TRAINERS)
        ledger.add_cosignatures(size, lines)
        ledger.add_cosignatures(size, validator_of("nec").cosign(text, 1).encode())
        path = tmp_path / "bundle.zip"
        ledger.export(path)
        stranger = NoteSigner("stranger/v1", b"s" * 32, cosigner=True)
        with pytest.raises(LocalFault):
            ledger.add_cosignatures(size, stranger.cosign(text, 1).encode())
    found = bundle.verify(path, pinned=Pinned(log_vkey=None, genesis_sha256=None))
    assert [item.member for item in found.validations] == ["nec"]


def test_a_bundle_with_a_line_of_a_stranger_is_refused(tmp_path):
    told = copy_of(full_story())
    note = with_lines(cosigned_note(told.leaves), "nec")
    path = tmp_path / "bundle.zip"
    policy = policy_of(told.state.charter)
    bundle.write(path, note=note, entries=told.leaves, policy=policy)
    with pytest.raises(LocalFault, match="neither the log's nor a witness's"):
        bundle.verify(path, pinned=Pinned(log_vkey=None, genesis_sha256=None))
