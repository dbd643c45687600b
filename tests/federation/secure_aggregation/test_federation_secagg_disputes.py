"""Disputes over dealt shares: who is named, who goes on, and what an honest dealer never opens."""

import dataclasses
import hashlib

import numpy as np
import pytest

from federation.secure_aggregation.server import SecAggServer
from fedproto.errors import LocalFault, PeerFault
from fedproto.identity import SigningKey
from fedproto.secagg.agreement import KEM_CIPHERTEXT_BYTES, SEALED_BYTES, wrap
from fedproto.secagg.dealing import UnusableShareError, open_entry
from fedproto.secagg.dispute_messages import KEM, UNFIT, UNOPENED, Complaint, Opening
from fedproto.secagg.faults import COORDINATOR, Equivocation, IdentifiableAbort
from fedproto.secagg.keying_messages import DealtShare, EncryptedShares
from fedproto.secagg.messages import decode, encode

STRANGER = SigningKey(hashlib.sha512(b"stranger").digest())


def parse(cls, raw):
    return decode(cls, raw, peer="test")


def refused(call, peer, code="RNM-SECAGG-0001"):
    with pytest.raises(PeerFault) as caught:
        call()
    assert (caught.value.code, caught.value.peer) == (code, peer), str(caught.value)
    return caught.value


def ended(call, *culprits):
    """Return the end of an attempt, which names exactly these."""
    with pytest.raises(IdentifiableAbort) as caught:
        call()
    assert caught.value.culprits == culprits
    assert caught.value.code == "RNM-SECAGG-0006"
    return caught.value


def dealt(attempt, bend=None, n=5, **arguments):
    """Return an attempt whose shares are dealt; `bend` alters the entries of one dealer."""
    run = attempt(n, **arguments)
    run.advertise()
    for name in run.names:
        message = parse(EncryptedShares, run.clients[name].share_keys(run.key_list))
        entries = list(message.entries)
        if bend is not None:
            bend(run, name, entries)
        if tuple(entries) != message.entries:
            digests = tuple(entry.digest for entry in entries)
            header = dataclasses.replace(message.header, entry_digests=digests)
            header = header.signed_by(run.keys[name])
            run.clients[name]._seen.sent = header
            message = EncryptedShares(header=header, entries=tuple(entries))
        run.server.receive_shares(name, encode(message))
    run.share_lists = dict(run.server.close_shares())
    return run


def bad_entry(dealer="m01", holders=("m03",), **changes):
    def bend(run, name, entries):
        if name == dealer:
            for holder in holders:
                place = run.names.index(holder)
                entries[place] = dataclasses.replace(entries[place], **changes)

    return bend


UNREADABLE = {"ciphertext": bytes(SEALED_BYTES)}
MISCOMMITTED = {"self_commitment": bytes(32)}
OTHER_KEM = {"kem_ciphertext": b"\x01" * KEM_CIPHERTEXT_BYTES}


def checked(run, without=()):
    """Let the members check their shares; return the complaints, encoded."""
    complaints = {}
    for name in run.names:
        if name not in without:
            complaints[name] = run.clients[name].check_shares(run.share_lists[name])
    return {name: found for name, found in complaints.items() if found}


def complaint_of(run, holder, dealer, reason=UNFIT, **changes):
    """Return a complaint that a lying holder makes up."""
    seen = run.clients[holder]._seen
    fields = {"ctx": seen.ctx, "h1": seen.h1, "h2": seen.h2, **changes}
    return encode(
        Complaint(member=holder, dealer=dealer, reason=reason, **fields).signed_by(run.keys[holder])
    )


def finish(run):
    run.mask()
    run.confirm()
    run.reveal()
    result = run.server.finish()
    mean, _ = run.expected(run.survivors)
    assert np.array_equal(result.mean_delta, mean)
    return result


def test_a_round_without_dispute_has_no_message_of_one(attempt):
    run = dealt(attempt)
    assert checked(run) == {}
    assert finish(run).included == tuple(run.names)


def test_a_dealer_that_opens_the_disputed_pair_settles_it_and_the_sum_is_exact(attempt):
    run = dealt(attempt, bad_entry(**UNREADABLE))
    ((holder, (complaint,)),) = checked(run).items()
    assert (holder, parse(Complaint, complaint).reason) == ("m03", UNOPENED)
    assert run.clients["m03"].awaits_openings == ("m01",)
    assert run.server.receive_complaint("m03", complaint) == ("m01", complaint)
    opening = run.clients["m01"].open_share(complaint)
    assert run.server.receive_opening("m01", opening) == ("m03", opening)
    run.clients["m03"].take_opening(opening)
    assert run.clients["m03"].awaits_openings == ()
    assert finish(run).included == tuple(run.names)


def test_the_opened_share_is_as_good_as_a_sealed_one_when_its_dealer_drops_out(attempt):
    run = dealt(attempt, bad_entry(**UNREADABLE), n=7)
    complaint = checked(run)["m03"][0]
    run.server.receive_complaint("m03", complaint)
    opening = run.clients["m01"].open_share(complaint)
    run.server.receive_opening("m01", opening)
    run.clients["m03"].take_opening(opening)
    run.mask(without=["m01"])
    run.confirm()
    run.reveal(without=["m00"])
    mean, _ = run.expected(run.survivors)
    assert np.array_equal(run.server.finish().mean_delta, mean)


def test_nothing_is_masked_before_the_disputed_share_is_there(attempt):
    run = dealt(attempt, bad_entry(**UNREADABLE))
    run.clients["m03"].check_shares(run.share_lists["m03"])
    refused(lambda: run.mask_of("m03"), "m01")


def test_masking_with_another_share_list_than_was_checked_is_refused(attempt):
    run = dealt(attempt)
    run.clients["m00"].check_shares(run.share_lists["m00"])
    run.share_lists["m00"] = run.share_lists["m01"]
    refused(lambda: run.mask_of("m00"), COORDINATOR, "RNM-SECAGG-0003")


def test_a_dealer_that_opens_another_pair_is_named_and_nothing_is_unmasked(attempt):
    run = dealt(attempt, bad_entry(**MISCOMMITTED))
    complaint = checked(run)["m03"][0]
    assert parse(Complaint, complaint).reason == UNFIT
    run.server.receive_complaint("m03", complaint)
    opening = run.clients["m01"].open_share(complaint)
    fault = ended(lambda: run.server.receive_opening("m01", opening), "m01")
    # The evidence convinces a third party: three signed messages that do not fit together.
    said, entry, opened = (
        parse(cls, raw)
        for cls, raw in zip((Complaint, DealtShare, Opening), fault.evidence, strict=True)
    )
    for message, name in ((said, "m03"), (entry.header, "m01"), (opened, "m01")):
        message.verify(run.roster[name], "test")
    assert entry.entry.digest in entry.header.entry_digests
    upload = run.mask_of("m00")
    refused(lambda: run.server.receive_header("m00", upload.header), "m00", "RNM-SECAGG-0005")
    ended(run.server.close_uploads, "m01")


def test_a_dealer_that_does_not_open_is_named_before_a_survivor_set_exists(attempt):
    run = dealt(attempt, bad_entry(**UNREADABLE))
    run.server.receive_complaint("m03", checked(run)["m03"][0])
    for name in ("m00", "m01", "m02", "m04"):
        run.send(name, run.mask_of(name))
    fault = ended(run.server.close_uploads, "m01")
    assert "did not open" in fault.why


def test_a_lying_holder_gets_only_the_pair_that_it_holds_and_the_sum_is_exact(attempt):
    run = dealt(attempt)
    checked(run)
    complaint = complaint_of(run, "m03", "m01")
    run.server.receive_complaint("m03", complaint)
    opening = parse(Opening, run.clients["m01"].open_share(complaint))
    held = run.clients["m03"]._held["m01"]
    assert (opening.mask_share, opening.self_share) == (held.mask_share, held.self_share)
    run.server.receive_opening("m01", encode(opening))
    assert finish(run).included == tuple(run.names)


def test_a_dispute_over_a_kem_ciphertext_names_both_and_asks_nobody_to_open(attempt):
    run = dealt(attempt, bad_entry(**OTHER_KEM))
    complaint = checked(run)["m03"][0]
    assert parse(Complaint, complaint).reason == KEM
    ended(lambda: run.server.receive_complaint("m03", complaint), "m01", "m03")
    refused(lambda: run.clients["m01"].open_share(complaint), COORDINATOR, "RNM-SECAGG-0003")


def test_kem_ciphertexts_that_a_dealer_swapped_between_edges_are_disputed(attempt):
    def bend(run, name, entries):
        if name == "m00":
            first, second = entries[2], entries[3]
            for place, other in ((2, second), (3, first)):
                entries[place] = dataclasses.replace(
                    entries[place], kem_ciphertext=other.kem_ciphertext
                )

    found = checked(dealt(attempt, bend))
    assert sorted(found) == ["m02", "m03"]
    assert {parse(Complaint, raw).reason for (raw,) in found.values()} == {KEM}


def test_kem_ciphertexts_that_the_coordinator_swapped_between_edges_are_its_own_fault(attempt):
    run = dealt(attempt)
    raw = run.share_lists["m03"]
    first, second = (run.server._keying.entry(name, "m03") for name in ("m00", "m01"))
    swapped = raw.replace(first.kem_ciphertext, b"\0" * KEM_CIPHERTEXT_BYTES)
    swapped = swapped.replace(second.kem_ciphertext, first.kem_ciphertext)
    swapped = swapped.replace(b"\0" * KEM_CIPHERTEXT_BYTES, second.kem_ciphertext)
    assert swapped != raw
    refused(lambda: run.clients["m03"].check_shares(swapped), COORDINATOR)


@pytest.mark.parametrize("which", ["holder", "dealer", "attempt"])
def test_a_sealed_pair_opens_at_its_own_place_only(attempt, which):
    """The HPKE info binds attempt, key list, dealer and holder: elsewhere the pair does not open."""
    run, old = dealt(attempt), dealt(attempt, nonce="02" * 32)
    client, entry = run.clients["m03"], run.server._keying.entry("m00", "m03")
    edge = run.server._keying.edge("m00", "m03")
    changes = {
        "holder": {"holder": "m02"},
        "dealer": {"dealer": "m01"},
        "attempt": {"ctx": old.authorisation.ctx},
    }
    open_entry(entry, edge, client._keys.channel)
    with pytest.raises(UnusableShareError) as caught:
        open_entry(entry, dataclasses.replace(edge, **changes[which]), client._keys.channel)
    assert caught.value.reason == UNOPENED


def test_a_dealer_that_wraps_another_kem_secret_and_drops_out_is_named(attempt):
    def bend(run, name, entries):
        if name == "m01":
            secret = run.clients[name]._keys.seeds.mask_secret
            info = run.clients[name]._seen.edge("m01", "m03").wrap_info
            entries[3] = dataclasses.replace(
                entries[3], kem_wrapped=wrap(b"\x05" * 32, secret, info)
            )

    run = dealt(attempt, bend)
    assert checked(run) == {}
    run.mask(without=["m01"])
    run.confirm()
    run.reveal()
    fault = ended(run.server.finish, "m01")
    assert "another KEM secret" in fault.why
    assert parse(EncryptedShares, fault.evidence[0]).header.member == "m01"


def test_a_dealer_and_a_silent_holder_that_connive_over_a_kem_secret_name_the_dealer(attempt):
    """The holder drops out instead of complaining: its recovered keys show what it was sent."""
    run = dealt(attempt, bad_entry(**OTHER_KEM))
    checked(run)
    run.mask(without=["m03"])
    run.confirm()
    run.reveal()
    ended(run.server.finish, "m01")


def test_more_complaints_against_one_dealer_than_members_may_collude_convict_it(attempt):
    run = dealt(attempt, bad_entry(holders=("m03", "m04"), **UNREADABLE))
    found = checked(run)
    assert run.server.receive_complaint("m03", found["m03"][0])
    fault = ended(lambda: run.server.receive_complaint("m04", found["m04"][0]), "m01")
    assert len(fault.evidence) == 4


def test_a_holder_that_complains_of_more_dealers_than_may_collude_is_the_liar(attempt):
    run = dealt(attempt)
    checked(run)
    assert run.server.receive_complaint("m03", complaint_of(run, "m03", "m01"))
    second = complaint_of(run, "m03", "m02")
    refused(lambda: run.server.receive_complaint("m03", second), "m03")


def test_a_member_takes_no_part_against_more_bad_dealers_than_may_collude(attempt):
    def bend(run, name, entries):
        if name in ("m01", "m02"):
            entries[3] = dataclasses.replace(entries[3], **UNREADABLE)

    run = dealt(attempt, bend)
    refused(lambda: run.clients["m03"].check_shares(run.share_lists["m03"]), "m02")


def test_a_complaint_comes_once_for_each_pair(attempt):
    run = dealt(attempt)
    checked(run)
    complaint = complaint_of(run, "m03", "m01")
    assert run.server.receive_complaint("m03", complaint) == ("m01", complaint)
    # The same bytes again, after a broken connection, go to nobody a second time.
    assert run.server.receive_complaint("m03", complaint) is None
    other = complaint_of(run, "m03", "m01", UNOPENED)
    refused(lambda: run.server.receive_complaint("m03", other), "m03")


def test_a_complaint_that_its_holder_did_not_sign_is_refused(attempt):
    run = dealt(attempt)
    checked(run)
    forged = parse(Complaint, complaint_of(run, "m03", "m01")).signed_by(STRANGER)
    refused(lambda: run.server.receive_complaint("m03", encode(forged)), "m03")
    genuine = complaint_of(run, "m03", "m01")
    refused(lambda: run.server.receive_complaint("m02", genuine), "m02")


def test_a_complaint_of_nobody_or_over_no_kem_ciphertext_is_refused(attempt):
    run = dealt(attempt)
    checked(run)
    for dealer, reason in (("zz", UNFIT), ("m04", KEM)):
        raw = complaint_of(run, "m03", dealer, reason)
        refused(lambda raw=raw: run.server.receive_complaint("m03", raw), "m03")


def test_a_complaint_after_the_upload_or_an_upload_with_an_open_complaint_is_refused(attempt):
    run = dealt(attempt)
    checked(run)
    run.send("m03", run.mask_of("m03"))
    complaint = complaint_of(run, "m03", "m01")
    refused(lambda: run.server.receive_complaint("m03", complaint), "m03")
    run.server.receive_complaint("m02", complaint_of(run, "m02", "m01"))
    upload = run.mask_of("m02")
    refused(lambda: run.server.receive_header("m02", upload.header), "m02")


def test_an_opening_that_nobody_asked_for_is_refused_by_both_sides(attempt):
    run = dealt(attempt)
    checked(run)
    complaint = complaint_of(run, "m03", "m01")
    opening = run.clients["m01"].open_share(complaint)
    refused(lambda: run.server.receive_opening("m01", opening), "m01")
    refused(lambda: run.clients["m03"].take_opening(opening), COORDINATOR)


@pytest.mark.parametrize("signed", [False, True], ids=["as it was signed", "signed again"])
@pytest.mark.parametrize("part", ["mask_share", "self_share", "mask_salt", "self_salt"])
def test_an_altered_opening_is_the_coordinators_fault(attempt, part, signed):
    """Even with the dealer's signature: the coordinator had to see that it does not fit."""
    run = dealt(attempt, bad_entry(**UNREADABLE))
    complaint = checked(run)["m03"][0]
    opening = parse(Opening, run.clients["m01"].open_share(complaint))
    bent = dataclasses.replace(opening, **{part: bytes(len(getattr(opening, part)))})
    raw = encode(bent.signed_by(run.keys["m01"]) if signed else bent)
    refused(lambda: run.clients["m03"].take_opening(raw), COORDINATOR)


def dealer_refuses(run, raw, code="RNM-SECAGG-0001"):
    fault = refused(lambda: run.clients["m01"].open_share(raw), COORDINATOR, code)
    # Refusing ends the attempt at this member: nothing can be asked for a second time.
    assert run.clients["m01"]._disputes is None
    assert run.clients["m01"]._held == {}
    return fault


def test_no_honest_dealer_opens_on_an_unsigned_complaint(attempt):
    run = dealt(attempt)
    checked(run)
    genuine = parse(Complaint, complaint_of(run, "m03", "m01"))
    dealer_refuses(run, encode(genuine.signed_by(STRANGER)))


def test_no_honest_dealer_opens_on_a_complaint_of_another_attempt(attempt):
    run, old = dealt(attempt), dealt(attempt, nonce="03" * 32)
    checked(run)
    checked(old)
    dealer_refuses(run, complaint_of(old, "m03", "m01"))


@pytest.mark.parametrize("digest", ["h1", "h2"])
def test_no_honest_dealer_opens_on_a_complaint_over_other_lists(attempt, digest):
    run = dealt(attempt)
    checked(run)
    raw = complaint_of(run, "m03", "m01", **{digest: bytes(32)})
    assert isinstance(dealer_refuses(run, raw, "RNM-SECAGG-0003"), Equivocation)


def test_no_honest_dealer_opens_what_is_anothers(attempt):
    run = dealt(attempt)
    checked(run)
    dealer_refuses(run, complaint_of(run, "m03", "m02"))


def test_no_honest_dealer_opens_twice_for_one_holder(attempt):
    run = dealt(attempt, n=7, tolerated=2)
    checked(run)
    complaint = complaint_of(run, "m03", "m01")
    run.clients["m01"].open_share(complaint)
    dealer_refuses(run, complaint, "RNM-SECAGG-0003")


def test_no_honest_dealer_opens_more_pairs_than_members_may_collude(attempt):
    run = dealt(attempt, n=7, tolerated=2)
    checked(run)
    for holder in ("m03", "m04"):
        run.clients["m01"].open_share(complaint_of(run, holder, "m01"))
    dealer_refuses(run, complaint_of(run, "m05", "m01"), "RNM-SECAGG-0003")


def test_no_honest_dealer_opens_after_its_confirmation(attempt):
    run = dealt(attempt)
    checked(run)
    complaint = complaint_of(run, "m03", "m01")
    run.mask()
    run.clients["m01"].confirm(run.survivor_list)
    # The pairs are gone by then, whatever is asked.
    assert run.clients["m01"]._disputes is None
    refused(lambda: run.clients["m01"].open_share(complaint), COORDINATOR, "RNM-SECAGG-0003")


def test_a_dealer_opens_after_its_upload_until_it_confirms(attempt):
    run = dealt(attempt)
    checked(run)
    complaint = complaint_of(run, "m03", "m01")
    run.mask()
    assert parse(Opening, run.clients["m01"].open_share(complaint)).holder == "m03"


def test_no_dealer_opens_before_it_has_seen_who_dealt(attempt):
    run = dealt(attempt)
    checked(run, without=["m01"])
    raw = complaint_of(run, "m03", "m01")
    refused(lambda: run.clients["m01"].open_share(raw), COORDINATOR, "RNM-SECAGG-0003")


def test_a_member_that_was_named_is_not_let_into_the_next_attempt(attempt):
    run = attempt(5)
    run.server = SecAggServer(
        authorisation=run.authorisation, roster=run.roster, barred=frozenset(["m01"])
    )
    refused(
        lambda: run.server.receive_advertise("m01", run.clients["m01"].advertise()),
        "m01",
        "RNM-SECAGG-0006",
    )
    run.advertise(without=["m01"])
    run.share()
    assert finish(run).included == ("m00", "m02", "m03", "m04")


def test_who_withheld_its_shares_is_named_by_absence(attempt):
    run = dealt(attempt)
    run.mask()
    run.confirm()
    run.reveal(without=["m02", "m04"])
    with pytest.raises(LocalFault) as caught:
        run.server.finish()
    assert caught.value.code == "RNM-SECAGG-0002"
    assert "m02, m04" in caught.value.why
    assert "m00" not in caught.value.why
