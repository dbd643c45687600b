"""Ledger acts and round authorisations: strict fields, the actor signs, thresholds are computed."""

import dataclasses
from typing import Any

import pytest

from fedproto import envelope, jcs
from fedproto.authorisation import (
    SUITE,
    Authorisation,
    open_authorisation,
    recovery_threshold,
    seal_authorisation,
)
from fedproto.errors import LocalFault
from fedproto.events.governance import Choice, VoteCast
from fedproto.identity import SigningKey
from fedproto.ids import MemberId, RunId, sha256_hex
from fedproto.schema import from_json, to_json
from fedproto.statements import (
    Actor,
    Event,
    Head,
    Trace,
    event_from_json,
    event_to_json,
    leaf_id,
    open_event,
    seal_event,
)

KEY = SigningKey(bytes(range(64)))
OTHER = SigningKey(bytes(64))
ROSTER = {key.verify_key.key_id: key.verify_key for key in (KEY, OTHER)}
DIGEST = sha256_hex(b"x")
EVENT = Event(
    log="ledger.example/demo",
    id="0" * 32,
    at=1,
    actor=Actor(member=MemberId("nec"), key=KEY.verify_key.key_id),
    charter=DIGEST,
    head=Head(size=3, root=DIGEST),
    trace=Trace(trace_id="0" * 32, span_id="0" * 16),
    body=VoteCast(proposal=DIGEST, terms_sha256=DIGEST, choice=Choice.YES, reason=""),
)


def code_of(leaf: bytes) -> str:
    with pytest.raises(LocalFault) as caught:
        open_event(leaf, ROSTER.get)
    return caught.value.code


def payload(**change: Any) -> dict[str, Any]:
    value = event_to_json(EVENT)
    assert isinstance(value, dict)
    return {**value, **change}


def test_an_event_reads_back_from_its_leaf_with_its_signer() -> None:
    signed = open_event(seal_event(EVENT, (KEY,)), ROSTER.get)
    assert signed.event == EVENT
    assert signed.event.type == "vote.cast"
    assert signed.signers == (KEY.verify_key.key_id,)


def test_an_act_in_the_name_of_another_is_refused() -> None:
    """The signature is good, but it is not the actor's."""
    assert code_of(seal_event(EVENT, (OTHER,))) == "RNM-SIG-0002"


WRONG: dict[str, dict[str, Any]] = {
    "an unknown field": {"note": "hello"},
    "another version": {"v": 2},
    "a version that is a bool": {"v": True},
    "an unknown type": {"type": "world.ended"},
    "a type with the body of another": {"type": "round.started"},
    "an id that is none": {"id": "x"},
    "a negative time": {"at": -1},
    "a time that is text": {"at": "1"},
    "a charter that is no digest": {"charter": "x"},
    "a head of negative size": {"head": {"size": -1, "root": DIGEST}},
    "a trace id in upper case": {"trace": {"trace_id": "A" * 32, "span_id": "0" * 16}},
    "a body that is nothing": {"body": None},
    "a body with free text": {
        "body": {
            "proposal": DIGEST,
            "terms_sha256": DIGEST,
            "choice": "yes",
            "reason": "",
            "comment": "hi",
        }
    },
    "an answer that is none": {
        "body": {"proposal": DIGEST, "terms_sha256": DIGEST, "choice": "maybe", "reason": ""}
    },
}


@pytest.mark.parametrize("change", WRONG.values(), ids=WRONG.keys())
def test_an_event_that_differs_from_its_schema_is_refused_even_if_signed(
    change: dict[str, Any],
) -> None:
    assert code_of(envelope.seal(envelope.EVENT_TYPE, payload(**change), (KEY,))) == "RNM-FORM-0002"


@pytest.mark.parametrize("field", list(payload()))
def test_an_event_without_one_of_its_fields_is_refused(field: str) -> None:
    value = payload()
    del value[field]
    with pytest.raises(LocalFault) as caught:
        event_from_json(value)
    assert caught.value.code == "RNM-FORM-0002"


def test_a_leaf_is_named_by_its_rfc_6962_hash() -> None:
    assert leaf_id(b"leaf") == sha256_hex(b"\x00leaf")


AUTHORISATION = Authorisation(
    v=1,
    suite=SUITE,
    consortium="demo",
    charter=DIGEST,
    mandate=DIGEST,
    prev=DIGEST,
    run=RunId("0" * 32),
    round=1,
    attempt=1,
    members=tuple(MemberId(m) for m in ("honda", "nec", "softbank", "sony")),
    recovery_threshold=recovery_threshold(4, 1),
    tolerated=1,
    parameters=10,
    layout_sha256=DIGEST,
    plan_sha256=DIGEST,
    model_in=DIGEST,
    word_bits=32,
    bits=16,
    clip_milli=1000,
    not_after=10,
    nonce=DIGEST,
)

BAD: dict[str, dict[str, Any]] = {
    "a lower threshold": {"recovery_threshold": 2},
    "a higher threshold": {"recovery_threshold": 4},
    "nobody tolerated, threshold to match": {"tolerated": 0, "recovery_threshold": 3},
    "more colluders than the cohort bears": {"tolerated": 4, "recovery_threshold": 5},
    "a weaker suite": {"suite": "SA-1/x25519/ed25519/aes128/u32"},
    "another ring": {"word_bits": 16},
    "members out of order": {"members": (MemberId("sony"), MemberId("nec"), MemberId("honda"))},
    "a member twice": {"members": (MemberId("nec"),) * 4},
    "round nought": {"round": 0},
    "attempt nought": {"attempt": 0},
    "pass nought": {"pass_no": 0},
    "a pass beyond the last": {"pass_no": 2},
    "no parameters": {"parameters": 0},
    "bits beyond the ring": {"bits": 25},
    "a short nonce": {"nonce": "00"},
}


@pytest.mark.parametrize("change", BAD.values(), ids=BAD.keys())
def test_an_authorisation_that_weakens_the_round_is_refused_even_if_signed(
    change: dict[str, Any],
) -> None:
    with pytest.raises(ValueError, match=r"."):
        dataclasses.replace(AUTHORISATION, **change)
    value = to_json(AUTHORISATION)
    assert isinstance(value, dict)
    altered = {k: list(v) if isinstance(v, tuple) else v for k, v in {**value, **change}.items()}
    raw = envelope.seal(envelope.AUTHORISATION_TYPE, altered, (KEY,))
    with pytest.raises(LocalFault) as caught:
        open_authorisation(raw, ROSTER.get)
    assert caught.value.code == "RNM-FORM-0002"


def test_an_authorisation_reads_back_and_its_ctx_covers_every_field() -> None:
    signed = open_authorisation(seal_authorisation(AUTHORISATION, KEY), ROSTER.get)
    assert signed.content == AUTHORISATION
    other = dataclasses.replace(AUTHORISATION, attempt=2)
    assert open_authorisation(seal_authorisation(other, KEY), ROSTER.get).ctx != signed.ctx
    again = open_authorisation(seal_authorisation(AUTHORISATION, KEY), ROSTER.get)
    assert again.ctx == signed.ctx


def test_an_event_does_not_pass_for_an_authorisation() -> None:
    with pytest.raises(LocalFault):
        open_authorisation(seal_event(EVENT, (KEY,)), ROSTER.get)


def test_every_statement_is_canonical_json() -> None:
    for value in (event_to_json(EVENT), to_json(AUTHORISATION)):
        assert jcs.loads(jcs.dumps(value)) == value
    assert from_json(Authorisation, jcs.loads(jcs.dumps(to_json(AUTHORISATION)))) == AUTHORISATION
