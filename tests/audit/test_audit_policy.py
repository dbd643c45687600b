"""The witness quorum: counted by key, forged in every way we know, never reached by a forger."""

from dataclasses import replace

import pytest
from ledger_kit import (
    LOG_KEY,
    ORIGIN,
    TRAINERS,
    charter_of,
    cosign,
    cosigned_note,
    full_story,
    seed,
    signed_note,
    witness_of,
)

from audit.note import Note, NoteSigner, SignatureLine, merge, parse
from audit.policy import Witness, WitnessPolicy, policy_of, read_policy
from audit.quorum import Group, Quorum
from fedproto.errors import LocalFault

POLICY = policy_of(charter_of())
LEAVES = full_story().leaves


def refused(data, code):
    with pytest.raises(LocalFault) as caught:
        POLICY.open(data)
    assert caught.value.code == code


@pytest.mark.parametrize("who", [TRAINERS, TRAINERS[:3], TRAINERS[1:]])
def test_a_quorum_is_accepted(who):
    cosigned = POLICY.open(cosigned_note(LEAVES, who))
    assert tuple(item.member for item in cosigned.cosignatures) == tuple(sorted(who))


@pytest.mark.parametrize("who", [(), TRAINERS[:1], TRAINERS[:2]])
def test_below_the_quorum_a_checkpoint_is_refused(who):
    refused(cosigned_note(LEAVES, who), "RNM-LEDGER-0006")


def test_one_witness_twice_is_not_two():
    data = cosigned_note(LEAVES, TRAINERS[:2])
    again = witness_of("nec").cosign(parse(data).text, 5).encode()
    refused(data + again, "RNM-LEDGER-0001")


def test_one_key_under_two_names_is_not_two():
    data = cosigned_note(LEAVES, TRAINERS[:2])
    alias = NoteSigner("witness.other.example/w1", seed("witness:nec"), cosigner=True)
    refused(data + alias.cosign(parse(data).text, 5).encode(), "RNM-LEDGER-0006")


def test_a_stranger_does_not_count():
    data = cosigned_note(LEAVES, TRAINERS[:2])
    stranger = NoteSigner("witness.sony.example/w1", seed("stranger"), cosigner=True)
    refused(data + stranger.cosign(parse(data).text, 5).encode(), "RNM-LEDGER-0006")


def test_a_cosignature_over_another_checkpoint_is_refused():
    other = cosigned_note(LEAVES[:-1])
    lines = tuple(line for line in parse(other).lines if line.name != ORIGIN)
    signed = parse(signed_note(LEAVES))
    refused(Note(signed.text, (*signed.lines, *lines)).encode(), "RNM-LEDGER-0001")


def test_swapped_cosignatures_are_refused():
    note = parse(cosigned_note(LEAVES))
    log, a, b, *rest = note.lines
    swapped = (
        SignatureLine(a.name, a.key_id, b.signature),
        SignatureLine(b.name, b.key_id, a.signature),
    )
    refused(Note(note.text, (log, *swapped, *rest)).encode(), "RNM-LEDGER-0001")


def test_a_bad_line_of_a_witness_is_refused_even_above_the_quorum():
    note = parse(cosigned_note(LEAVES))
    *kept, last = note.lines
    bad = SignatureLine(last.name, last.key_id, bytes(72))
    refused(Note(note.text, (*kept, bad)).encode(), "RNM-LEDGER-0001")


def test_a_witness_quorum_does_not_replace_the_log():
    note = parse(cosigned_note(LEAVES))
    refused(Note(note.text, note.lines[1:]).encode(), "RNM-LEDGER-0001")
    forger = NoteSigner(ORIGIN, seed("forger"))
    refused(cosign(signed_note(LEAVES, forger)), "RNM-LEDGER-0001")


def test_the_policy_reads_as_a_tlog_policy():
    rows = POLICY.text.splitlines()
    assert rows[0] == f"log {LOG_KEY.vkey}"
    assert rows[1:5] == [f"witness {m} {witness_of(m).vkey}" for m in TRAINERS]
    assert rows[5:] == [
        "group witness_quorum 3 honda nec softbank sony",
        "quorum witness_quorum",
    ]
    assert WitnessPolicy.from_text(POLICY.text) == POLICY
    assert read_policy(POLICY.text.encode()) == POLICY


def policy_with(*witnesses):
    names = tuple(witness.member for witness in witnesses)
    return replace(POLICY, witnesses=witnesses, rule=Quorum(witnesses=names, top=names[0]))


def test_a_policy_with_one_key_for_two_members_is_refused():
    shared = witness_of("nec").verifier
    with pytest.raises(ValueError, match="share one key"):
        policy_with(Witness("nec", shared), Witness("sony", shared))
    alias = NoteSigner("w.sony/w1", seed("witness:nec"), cosigner=True).verifier
    with pytest.raises(ValueError, match="share one key"):
        policy_with(Witness("nec", shared), Witness("sony", alias))
    log_as_witness = NoteSigner(ORIGIN, seed("log"), cosigner=True).verifier
    with pytest.raises(ValueError, match="share one key"):
        policy_with(Witness("nec", log_as_witness))


@pytest.mark.parametrize("quorum", [0, 5])
def test_a_quorum_is_within_the_number_of_witnesses(quorum):
    with pytest.raises(ValueError, match="quorum"):
        Group(name="g", threshold=quorum, members=TRAINERS)


def test_a_quorum_over_other_witnesses_makes_no_policy():
    with pytest.raises(ValueError, match="other witnesses"):
        replace(POLICY, rule=Quorum(witnesses=TRAINERS[:3], top=TRAINERS[0]))


def test_a_member_may_cosign_with_ml_dsa():
    pq = NoteSigner("witness.sony.example/w1", seed("pq"), cosigner=True, post_quantum=True)
    kept = [w for w in POLICY.witnesses if w.member != "sony"]
    policy = replace(POLICY, witnesses=(*kept, Witness("sony", pq.verifier)))
    data = cosigned_note(LEAVES, TRAINERS[:2])
    with pytest.raises(LocalFault):
        policy.open(data)
    data += pq.cosign(parse(data).text, 5).encode()
    assert [item.member for item in policy.open(data).cosignatures] == [*TRAINERS[:2], "sony"]
    assert WitnessPolicy.from_text(policy.text) == policy


def test_keys_of_the_wrong_kind_make_no_policy():
    with pytest.raises(ValueError, match="note key"):
        replace(POLICY, origin="other")
    with pytest.raises(ValueError, match="cosignature key"):
        policy_with(Witness("nec", LOG_KEY.verifier))
    with pytest.raises(LocalFault):
        policy_of(replace(charter_of(), log_vkey="nonsense"))
    assert isinstance(policy_of(charter_of()), WitnessPolicy)


def test_merging_keeps_the_first_line_of_each_key():
    first, second = (witness_of("nec").cosign(b"t\n", at) for at in (1, 2))
    other = witness_of("sony").cosign(b"t\n", 1)
    assert merge((first, other, second)) == (first, other)
