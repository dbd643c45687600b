"""The codec: one encoding for each message, and every other spelling refused."""

import dataclasses
import hashlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedproto.errors import PeerFault
from fedproto.identity import SIGNATURE_BYTES, SigningKey
from fedproto.secagg import audit_messages, dispute_messages, keying_messages, masking_messages
from fedproto.secagg.agreement import SEALED_BYTES, WRAPPED_BYTES
from fedproto.secagg.dispute_messages import REASONS, Complaint, Opening
from fedproto.secagg.keying_messages import Advertise, KeyList, SealedShare, ShareHeader
from fedproto.secagg.masking_messages import (
    Confirm,
    Confirmations,
    MaskedHeader,
    Reveal,
    RevealedShare,
    UploadHeader,
)
from fedproto.secagg.messages import MAX_MESSAGE_BYTES, decode, encode
from fedproto.secagg.stages import upload_root
from fedproto.v1 import secagg_pb2

digests = st.binary(min_size=32, max_size=32)
members = st.from_regex(r"[a-z][a-z0-9-]{0,30}", fullmatch=True)
signatures = st.binary(min_size=8, max_size=8).map(lambda b: b * 421 + b[:5])


def sized(count):
    return st.binary(min_size=8, max_size=8).map(lambda b: (b * (count // 8 + 1))[:count])


advertises = st.builds(
    Advertise,
    ctx=digests,
    member=members,
    signature=signatures,
    mask_x25519=sized(32),
    mask_mlkem=sized(1184),
    channel_x25519=sized(32),
    channel_mlkem=sized(1184),
)
sealed = st.builds(
    SealedShare,
    ciphertext=st.sampled_from([0, SEALED_BYTES]).flatmap(sized),
    kem_ciphertext=st.sampled_from([0, 1088]).flatmap(sized),
    kem_wrapped=st.sampled_from([0, WRAPPED_BYTES]).flatmap(sized),
    kem_commitment=st.sampled_from([0, 32]).flatmap(sized),
    mask_commitment=digests,
    self_commitment=digests,
)
confirms = st.builds(
    Confirm, ctx=digests, member=members, signature=signatures, h1=digests, h2=digests, h3=digests
)
revealed = st.lists(
    st.builds(RevealedShare, member=members, share=sized(33), salt=sized(16)),
    max_size=3,
    unique_by=lambda item: item.member,
).map(lambda items: tuple(sorted(items, key=lambda item: item.member)))
reveals = st.builds(
    Reveal,
    ctx=digests,
    member=members,
    signature=signatures,
    h1=digests,
    h2=digests,
    h3=digests,
    self_shares=revealed,
    mask_shares=revealed,
)
headers = st.builds(
    ShareHeader,
    ctx=digests,
    member=members,
    signature=signatures,
    h1=digests,
    self_seed_commitment=digests,
    entry_digests=st.lists(digests, max_size=4).map(tuple),
)


complaints = st.builds(
    Complaint,
    ctx=digests,
    member=st.just("ann"),
    signature=signatures,
    h1=digests,
    h2=digests,
    dealer=members.filter(lambda name: name != "ann"),
    reason=st.sampled_from(sorted(REASONS)),
)
openings = st.builds(
    Opening,
    ctx=digests,
    member=members,
    signature=signatures,
    h1=digests,
    h2=digests,
    holder=members,
    mask_share=sized(32).map(lambda share: b"\0" + share),
    self_share=sized(32).map(lambda share: b"\0" + share),
    mask_salt=sized(16),
    self_salt=sized(16),
)


@st.composite
def masked(draw):
    words, chunks = draw(st.integers(0, 2**64 - 1)), tuple(draw(st.lists(digests, max_size=4)))
    header = UploadHeader(
        ctx=draw(digests),
        member=draw(members),
        signature=draw(signatures),
        h1=draw(digests),
        h2=draw(digests),
        root=upload_root(words, chunks),
    )
    return MaskedHeader(header=header, words=words, chunk_digests=chunks)


anything = st.one_of(advertises, sealed, confirms, reveals, headers, masked(), complaints, openings)


@pytest.mark.parametrize("name", list(secagg_pb2.DESCRIPTOR.message_types_by_name))
def test_a_class_has_all_fields_of_its_message_so_that_none_is_read_past(name):
    (cls,) = [
        getattr(module, name)
        for module in (keying_messages, masking_messages, dispute_messages, audit_messages)
        if getattr(module, name, None) is not None
        and getattr(module, name).__module__ == module.__name__
    ]
    wire = secagg_pb2.DESCRIPTOR.message_types_by_name[name].fields_by_name
    assert set(wire) == {field.name for field in dataclasses.fields(cls)}


def read(cls, raw):
    try:
        return decode(cls, raw, peer="p")
    except PeerFault as fault:
        return fault


def require_canonical(cls, raw):
    result = read(cls, raw)
    if isinstance(result, PeerFault):
        assert (result.code, result.peer) == ("RNM-SECAGG-0001", "p")
    else:
        assert encode(result) == raw


@settings(max_examples=150, deadline=None)
@given(anything)
def test_what_is_encoded_is_decoded_again(message):
    assert decode(type(message), encode(message), peer="p") == message


@settings(max_examples=300, deadline=None)
@given(st.one_of(confirms, reveals, headers, masked(), complaints, openings), st.data())
def test_whatever_decodes_has_that_one_encoding(message, data):
    """Bend a good message in any byte: it is refused, or is the one encoding of another message."""
    raw = bytearray(encode(message))
    place = data.draw(st.integers(0, len(raw) - 1))
    match data.draw(st.sampled_from(["flip", "cut", "insert", "append"])):
        case "flip":
            raw[place] ^= data.draw(st.integers(1, 255))
        case "cut":
            del raw[place]
        case "insert":
            raw.insert(place, data.draw(st.integers(0, 255)))
        case "append":
            raw += data.draw(st.binary(min_size=1, max_size=9))
    bent = bytes(raw)
    require_canonical(type(message), bent)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200))
def test_noise_is_refused_or_is_canonical(noise):
    for cls in (KeyList, Confirm, Confirmations, MaskedHeader, Reveal, Complaint, Opening):
        require_canonical(cls, noise)


def test_a_message_without_end_is_refused_before_it_is_parsed():
    with pytest.raises(PeerFault, match="more than"):
        decode(KeyList, bytes(MAX_MESSAGE_BYTES + 1), peer="p")


KEY = SigningKey(hashlib.sha512(b"codec").digest())
CONFIRM = Confirm(ctx=bytes(32), member="ann", h1=b"1" * 32, h2=b"2" * 32, h3=b"3" * 32)


def test_a_signature_covers_every_field():
    signed = CONFIRM.signed_by(KEY)
    signed.verify(KEY.verify_key, "p")
    for name, value in {
        "ctx": b"x" * 32,
        "member": "bob",
        "h1": b"x" * 32,
        "h2": b"x" * 32,
        "h3": b"x" * 32,
    }.items():
        with pytest.raises(PeerFault) as caught:
            dataclasses.replace(signed, **{name: value}).verify(KEY.verify_key, "p")
        assert caught.value.peer == "p"


@pytest.mark.parametrize("half", [0, 64, SIGNATURE_BYTES - 1])
def test_both_halves_of_a_signature_must_verify(half):
    signed = CONFIRM.signed_by(KEY)
    bent = bytearray(signed.signature)
    bent[half] ^= 1
    with pytest.raises(PeerFault):
        dataclasses.replace(signed, signature=bytes(bent)).verify(KEY.verify_key, "p")


def test_an_unsigned_message_does_not_verify():
    with pytest.raises(PeerFault):
        CONFIRM.verify(KEY.verify_key, "p")


def test_kinds_of_messages_do_not_share_signatures():
    """The same fields in two kinds of message are two statements."""
    upload = UploadHeader(ctx=bytes(32), member="ann", h1=b"1" * 32, h2=b"2" * 32, root=b"3" * 32)
    assert upload.statement() != CONFIRM.statement()


def test_an_opening_does_not_show_its_shares_in_a_repr_and_a_complaint_is_of_another_member():
    fields = {"ctx": bytes(32), "h1": b"1" * 32, "h2": b"2" * 32}
    opening = Opening(
        **fields,
        member="ann",
        holder="bob",
        mask_share=b"\0" + b"S" * 32,
        self_share=b"\0" + b"S" * 32,
        mask_salt=b"T" * 16,
        self_salt=b"T" * 16,
    )
    assert "S" * 8 not in repr(opening)
    assert "T" * 8 not in repr(opening)
    for change in ({"dealer": "ann"}, {"reason": "because"}):
        with pytest.raises(ValueError, match=r"."):
            Complaint(**{**fields, "member": "ann", "dealer": "bob", "reason": "kem", **change})
    with pytest.raises(ValueError, match="prime"):
        dataclasses.replace(opening, mask_share=b"\xff" * 33)


def test_a_revealed_share_does_not_show_in_a_repr():
    share = RevealedShare(member="ann", share=b"\x00" + b"S" * 32, salt=b"T" * 16)
    assert "S" * 8 not in repr(share)
    assert "T" * 8 not in repr(share)
