"""Disputes over dealt shares on the wire: settled and forgotten, or the end of the attempt with names."""

import dataclasses
import json

import numpy as np
from secagg_members import NAMES, Members
from wire_kit import Wire, deals_badly

from fedproto.errors import FederationError
from fedproto.evidence import EvidenceStore
from fedproto.party import utc_now
from fedproto.secagg.agreement import KEM_CIPHERTEXT_BYTES, SEALED_BYTES
from fedproto.secagg.dispute_messages import Complaint, Opening
from fedproto.secagg.faults import IdentifiableAbort
from fedproto.secagg.messages import decode, encode

UNREADABLE = {"ciphertext": bytes(SEALED_BYTES)}


def kinds(wire, name):
    return [frame.WhichOneof("frame") for frame in wire.frames[name]]


def test_a_disputed_share_is_opened_on_the_wire_and_the_sum_is_exact(tmp_path):
    members = Members()
    deals_badly(members, "honda", "sony", **UNREADABLE)
    wire = Wire(tmp_path, members=members).play()
    assert wire.error is None
    assert wire.total.included == NAMES
    mean = np.mean([members.delta(name) for name in NAMES], axis=0)
    assert np.abs(wire.total.mean_delta - mean).max() < 1e-4
    assert kinds(wire, "sony").count("complaint") == 1
    assert kinds(wire, "honda").count("opening") == 1
    assert all("opening" not in kinds(wire, name) for name in ("nec", "softbank", "sony"))
    assert [(e.state, e.member) for e in wire.words("complaint") + wire.words("opening")] == [
        ("complaint", "honda"),
        ("opening", "sony"),
    ]


def test_a_round_without_dispute_has_no_frame_of_one(tmp_path):
    wire = Wire(tmp_path).play()
    assert wire.error is None
    assert {kind for name in NAMES for kind in kinds(wire, name)} & {
        "complaint",
        "opening",
    } == set()


def test_a_dealer_that_opens_another_pair_ends_the_attempt_and_is_named_with_evidence(tmp_path):
    members = Members()
    deals_badly(members, "honda", "sony", **UNREADABLE)
    half, honest = members.halves["honda"], members.halves["honda"].open_share

    def lie(complaint):
        opening = decode(Opening, honest(complaint), peer="honda")
        changed = dataclasses.replace(opening, self_salt=bytes(len(opening.self_salt)))
        return encode(changed.signed_by(half._key))

    half.open_share = lie
    wire = Wire(tmp_path, members=members).play()
    assert isinstance(wire.error, IdentifiableAbort)
    assert wire.error.culprits == ("honda",)
    assert wire.runner.excluded == {"honda": "RNM-SECAGG-0006"}
    for name in NAMES:
        assert wire.outcomes[name].code == "RNM-SECAGG-0006"
        assert {"confirm", "reveal"} & set(kinds(wire, name)) == set()
    store = EvidenceStore(root=tmp_path)
    path = store.keep(wire.error, b"", members.authorisation.raw, utc_now())
    case = json.loads(path.read_bytes())
    assert case["culprits"] == ["honda"]
    signed = sorted(path.parent.glob("*.signed-*"))
    assert len(signed) == len(case["signed_sha256"]) == 3
    assert decode(Complaint, signed[0].read_bytes(), peer="file").dealer == "honda"


def test_a_dealer_that_opens_nothing_is_named_when_time_is_up(tmp_path):
    members = Members()
    deals_badly(members, "honda", "sony", **UNREADABLE)

    def silent(complaint):
        raise FederationError("RNM-BUG-0001", what="x", why="x", mend="x")

    members.halves["honda"].open_share = silent
    wire = Wire(tmp_path, members=members, timeout_s=1.5).play()
    assert isinstance(wire.error, IdentifiableAbort)
    assert wire.error.culprits == ("honda",)
    assert "did not open" in wire.error.why


def test_a_kem_ciphertext_that_gives_another_secret_names_dealer_and_holder(tmp_path):
    members = Members()
    changed = {"kem_ciphertext": b"\x01" * KEM_CIPHERTEXT_BYTES}
    deals_badly(members, "honda", "sony", **changed)
    wire = Wire(tmp_path, members=members).play()
    assert isinstance(wire.error, IdentifiableAbort)
    assert wire.error.culprits == ("honda", "sony")
    assert wire.runner.excluded == dict.fromkeys(("honda", "sony"), "RNM-SECAGG-0006")


def test_who_was_named_is_not_let_into_the_next_attempt_and_the_others_go_on(tmp_path):
    wire = Wire(tmp_path, barred=frozenset({"honda"})).play()
    assert wire.error is None
    assert wire.total.included == ("nec", "softbank", "sony")
    assert wire.runner.excluded == {"honda": "RNM-SECAGG-0006"}
    assert wire.outcomes["honda"].code == "RNM-SECAGG-0006"
