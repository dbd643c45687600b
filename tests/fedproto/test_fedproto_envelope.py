"""The envelope: verified before it is parsed, one act in one spelling, no signature swapped or hidden."""

import base64
import contextlib
import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from fedproto import envelope, jcs
from fedproto.envelope import AUTHORISATION_TYPE, EVENT_TYPE, MAX_ENVELOPE, countersign, seal
from fedproto.errors import LocalFault
from fedproto.identity import SigningKey, VerifyKey
from fedproto.ids import KeyId

ALICE = SigningKey(bytes(range(64)))
BOB = SigningKey(bytes(range(1, 65)))
ROSTER: dict[KeyId, VerifyKey] = {key.verify_key.key_id: key.verify_key for key in (ALICE, BOB)}
PAYLOAD: jcs.Json = {"act": "vote", "choice": "yes"}


def opened(data: bytes, kind: str = EVENT_TYPE) -> envelope.Opened:
    return envelope.open_envelope(data, kind, ROSTER.get)


def code_of(data: bytes, kind: str = EVENT_TYPE) -> str:
    with pytest.raises(LocalFault) as caught:
        opened(data, kind)
    return caught.value.code


def changed(data: bytes, **fields: object) -> bytes:
    return jcs.dumps({**json.loads(data), **fields})


def test_what_two_keys_sealed_opens_with_both_signers_in_order() -> None:
    result = opened(seal(EVENT_TYPE, PAYLOAD, (BOB, ALICE)))
    assert result.payload == PAYLOAD
    assert result.payload_bytes == jcs.dumps(PAYLOAD)
    assert result.signers == tuple(sorted(ROSTER))


def test_signing_twice_gives_one_leaf_in_whatever_order_the_keys_come() -> None:
    # ML-DSA is hedged: only the parts that are not signatures repeat.
    first, second = seal(EVENT_TYPE, PAYLOAD, (ALICE, BOB)), seal(EVENT_TYPE, PAYLOAD, (BOB, ALICE))
    ids = [[s["keyid"] for s in json.loads(data)["signatures"]] for data in (first, second)]
    assert ids[0] == ids[1] == sorted(ids[0])


def test_a_countersignature_adds_a_signer_and_keeps_the_others() -> None:
    data = countersign(seal(EVENT_TYPE, PAYLOAD, (ALICE,)), EVENT_TYPE, BOB)
    assert len(opened(data).signers) == 2


@pytest.mark.parametrize("position", [0, 10, -1])
def test_a_changed_byte_of_the_payload_breaks_the_signature(position: int) -> None:
    data = seal(EVENT_TYPE, {"text": "a" * 40}, (ALICE,))
    body = bytearray(jcs.dumps({"text": "a" * 40}))
    body[position] ^= 1
    assert code_of(changed(data, payload=base64.b64encode(body).decode())) == "RNM-SIG-0001"


def test_the_payload_is_not_parsed_before_the_signature_verified() -> None:
    data = seal(EVENT_TYPE, PAYLOAD, (ALICE,))
    broken = changed(data, payload=base64.b64encode(b"{not json").decode())
    assert code_of(broken) == "RNM-SIG-0001"


def test_a_signature_for_another_type_of_statement_does_not_open() -> None:
    data = seal(AUTHORISATION_TYPE, PAYLOAD, (ALICE,))
    assert code_of(data) == "RNM-FORM-0002"
    assert code_of(changed(data, payloadType=EVENT_TYPE)) == "RNM-SIG-0001"


def test_signatures_swapped_between_two_signers_do_not_verify() -> None:
    fields = json.loads(seal(EVENT_TYPE, PAYLOAD, (ALICE, BOB)))
    first, second = fields["signatures"]
    first["sig"], second["sig"] = second["sig"], first["sig"]
    assert code_of(jcs.dumps(fields)) == "RNM-SIG-0001"


def test_one_bad_signature_beside_a_good_one_refuses_the_whole() -> None:
    fields = json.loads(seal(EVENT_TYPE, PAYLOAD, (ALICE, BOB)))
    fields["signatures"][1]["sig"] = base64.b64encode(bytes(3373)).decode()
    assert code_of(jcs.dumps(fields)) == "RNM-SIG-0001"


@pytest.mark.parametrize("half", [slice(0, 64), slice(64, None)], ids=["ed25519", "mldsa65"])
def test_both_halves_of_a_hybrid_signature_must_verify(half: slice) -> None:
    fields = json.loads(seal(EVENT_TYPE, PAYLOAD, (ALICE,)))
    raw = bytearray(base64.b64decode(fields["signatures"][0]["sig"]))
    other = json.loads(seal(EVENT_TYPE, {"act": "other"}, (ALICE,)))
    raw[half] = base64.b64decode(other["signatures"][0]["sig"])[half]
    fields["signatures"][0]["sig"] = base64.b64encode(raw).decode()
    assert code_of(jcs.dumps(fields)) == "RNM-SIG-0001"


@pytest.mark.parametrize("cut", [0, 63, 64, 3372])
def test_a_signature_of_another_length_is_refused(cut: int) -> None:
    fields = json.loads(seal(EVENT_TYPE, PAYLOAD, (ALICE,)))
    raw = base64.b64decode(fields["signatures"][0]["sig"])
    fields["signatures"][0]["sig"] = base64.b64encode(raw[:cut]).decode()
    assert code_of(jcs.dumps(fields)) == "RNM-SIG-0001"


def test_unsorted_signatures_are_refused() -> None:
    fields = json.loads(seal(EVENT_TYPE, PAYLOAD, (ALICE, BOB)))
    fields["signatures"].reverse()
    assert code_of(jcs.dumps(fields)) == "RNM-FORM-0001"


def test_a_signature_that_stands_twice_is_refused() -> None:
    fields = json.loads(seal(EVENT_TYPE, PAYLOAD, (ALICE,)))
    fields["signatures"] *= 2
    assert code_of(jcs.dumps(fields)) == "RNM-FORM-0001"


def test_an_envelope_without_signatures_is_refused() -> None:
    assert code_of(changed(seal(EVENT_TYPE, PAYLOAD, (ALICE,)), signatures=[])) == "RNM-SIG-0001"


def test_a_signer_off_the_roster_is_refused() -> None:
    stranger = SigningKey(bytes(64))
    assert code_of(seal(EVENT_TYPE, PAYLOAD, (ALICE, stranger))) == "RNM-SIG-0002"


def test_a_second_spelling_of_base64_is_refused() -> None:
    """Two spare bits of the last character mean nothing; another leaf of one act would."""
    data = seal(EVENT_TYPE, {"a": 1}, (ALICE,))
    fields = json.loads(data)
    text = fields["payload"]
    assert text.endswith("=")
    stem = text.rstrip("=")
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    other = stem[:-1] + alphabet[alphabet.index(stem[-1]) + 1] + "=" * (len(text) - len(stem))
    assert base64.b64decode(other) == base64.b64decode(text)
    assert code_of(changed(data, payload=other)) == "RNM-FORM-0001"


@pytest.mark.parametrize("text", ["====", "a", "a b=", "-_-_", "QQ==\n", "QQ", ""])
def test_a_payload_that_is_not_canonical_base64_is_refused(text: str) -> None:
    assert code_of(changed(seal(EVENT_TYPE, PAYLOAD, (ALICE,)), payload=text)) in (
        "RNM-FORM-0001",
        "RNM-SIG-0001",  # the empty payload is canonical; its signature is not there
    )


def test_an_unknown_field_is_refused_inside_and_outside() -> None:
    data = seal(EVENT_TYPE, PAYLOAD, (ALICE,))
    assert code_of(changed(data, extra=1)) == "RNM-FORM-0002"
    fields = json.loads(data)
    fields["signatures"][0]["extra"] = 1
    assert code_of(jcs.dumps(fields)) == "RNM-FORM-0002"


@pytest.mark.parametrize("field", ["payload", "payloadType", "signatures"])
def test_a_missing_field_is_refused(field: str) -> None:
    fields = json.loads(seal(EVENT_TYPE, PAYLOAD, (ALICE,)))
    del fields[field]
    assert code_of(jcs.dumps(fields)) == "RNM-FORM-0002"


@pytest.mark.parametrize(
    "fields",
    [
        {"payload": 1},
        {"payload": None},
        {"signatures": {}},
        {"signatures": "x"},
        {"signatures": [1]},
        {"signatures": [{"keyid": 1, "sig": ""}]},
        {"signatures": [{"keyid": "a", "sig": 1}]},
    ],
    ids=str,
)
def test_a_field_of_another_type_is_refused(fields: dict[str, object]) -> None:
    code = code_of(changed(seal(EVENT_TYPE, PAYLOAD, (ALICE,)), **fields))
    assert code in ("RNM-FORM-0002", "RNM-SIG-0001")


def test_an_envelope_that_is_not_canonical_json_is_refused() -> None:
    data = seal(EVENT_TYPE, PAYLOAD, (ALICE,))
    assert code_of(json.dumps(json.loads(data)).encode()) == "RNM-FORM-0001"
    assert code_of(data + b"\n") == "RNM-FORM-0001"


def test_an_inner_payload_that_is_not_canonical_is_refused_even_if_signed() -> None:
    body = b'{"b":1,"a":2}'
    message = b"DSSEv1 %d %s %d %s" % (len(EVENT_TYPE), EVENT_TYPE.encode(), len(body), body)
    fields = {
        "payload": base64.b64encode(body).decode(),
        "payloadType": EVENT_TYPE,
        "signatures": [
            {
                "keyid": ALICE.verify_key.key_id,
                "sig": base64.b64encode(ALICE.sign(message)).decode(),
            }
        ],
    }
    assert code_of(jcs.dumps(fields)) == "RNM-FORM-0001"


def test_an_envelope_beyond_the_size_of_an_entry_is_refused() -> None:
    assert code_of(b"x" * (MAX_ENVELOPE + 1)) == "RNM-FORM-0002"


def test_the_pre_authentication_encoding_is_dsses() -> None:
    """The example of the DSSE specification, so that other tools can sign and verify."""
    expected = b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
    assert envelope._pae("http://example.com/HelloWorld", b"hello world") == expected


def decoded(data: bytes) -> object:
    """Return what an envelope says, or nothing if it is refused."""
    try:
        return envelope._decode(data, EVENT_TYPE)
    except LocalFault:
        return None


SEALED = seal(EVENT_TYPE, PAYLOAD, (ALICE,))
# Among them what JSON escapes, what it leaves as it is, and what is no text at all.
BYTES = st.sampled_from([bytes((byte,)) for byte in b'"\\{}[]:,=/+aZ09 \x00\n\x7f\xc3\xa9'] + [b""])


@given(st.integers(0, len(SEALED) - 1), st.integers(0, 2), BYTES)
@example(0, 0, b"")
def test_a_change_is_refused_alike_whether_it_is_read_by_its_marks_or_as_json(
    place: int, cut: int, put: bytes
) -> None:
    data = SEALED[:place] + put + SEALED[place + cut :]
    found = decoded(data)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(envelope, "_read_single", lambda _: None)
        assert decoded(data) == found


@given(*[st.text(st.sampled_from('aQ=+/"\\ \n\x7fé{'), max_size=8)] * 3)
def test_what_its_values_hold_is_refused_alike_too(payload: str, key_id: str, sig: str) -> None:
    kind = jcs.dumps(EVENT_TYPE)
    values = [value.encode() for value in (payload, key_id, sig)]
    data = b'{"payload":"%s","payloadType":%s,"signatures":[{"keyid":"%s","sig":"%s"}]}' % (
        values[0],
        kind,
        values[1],
        values[2],
    )
    found = decoded(data)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(envelope, "_read_single", lambda _: None)
        assert decoded(data) == found


@given(st.text(st.sampled_from("AQgw09+/=\n-é"), max_size=14))
def test_base64_has_one_spelling(text: str) -> None:
    with contextlib.suppress(LocalFault):
        assert base64.b64encode(envelope._base64(text)).decode() == text


@given(st.binary(max_size=14))
def test_that_spelling_is_taken(raw: bytes) -> None:
    assert envelope._base64(base64.b64encode(raw).decode()) == raw
