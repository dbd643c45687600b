"""A sum that does not follow from the signed uploads is found by the members that audit it."""

import dataclasses

import pytest

from federation.secure_aggregation.transcript import publish
from fedproto.errors import PeerFault
from fedproto.secagg.audit_messages import sum_chunk_digest
from fedproto.secagg.keying_messages import KeyList, ShareList
from fedproto.secagg.masking_messages import SurvivorList
from fedproto.secagg.messages import decode
from fedproto.secagg.params import UPLOAD_CHUNK_WORDS
from fedproto.secagg.sum_audit import SumAudit, Witnessed, assigned


def finished(attempt, n, dropped=(), d=300):
    run = attempt(n, d=d)
    run.advertise()
    run.share()
    run.mask(without=dropped)
    run.confirm()
    run.reveal()
    run.server.finish()
    return run


def published(run):
    server = run.server
    return publish(
        keying=server._keying,
        params=run.params,
        members=run.content.members,
        h3=server._h3,
        messages=server._transcript(),
        uploads=server._uploads.complete,
        reveals=server._reveals,
        total=server._uploads.total,
    )


def witnessed(run):
    keys = decode(KeyList, run.key_list, peer="coordinator").keys
    dealt = decode(ShareList, run.share_lists[run.survivors[0]], peer="coordinator").dealt
    headers = decode(SurvivorList, run.survivor_list, peer="coordinator").headers
    keying = run.server._keying
    return Witnessed(
        ctx=run.authorisation.ctx,
        h1=keying.h1,
        h2=keying.h2,
        h3=run.server._h3,
        params=run.params,
        keys={item.member: item for item in keys},
        shares={item.member: item.header for item in dealt},
        uploads={item.member: item for item in headers},
    )


def reader(run):
    return lambda member, index: run.uploads[member].chunks[index]


@pytest.mark.parametrize(
    ("n", "dropped"), [(4, []), (4, ["m00"]), (4, ["m03"]), (7, ["m03"]), (24, []), (24, ["m12"])]
)
def test_an_honest_sum_matches_on_both_graphs_with_and_without_a_dropout(attempt, n, dropped):
    run = finished(attempt, n, dropped, d=50)
    audit = SumAudit(witnessed(run), published(run))
    assert audit.matches(0, reader(run))


def test_every_chunk_of_a_long_sum_matches_and_swapped_chunks_do_not(attempt):
    run = finished(attempt, 4, d=2 * UPLOAD_CHUNK_WORDS + 17)
    seen, shown = witnessed(run), published(run)
    for name in run.survivors:
        audit = SumAudit(seen, shown)
        assert all(audit.matches(chunk, reader(run)) for chunk in assigned(name, seen))
    first, second, third = shown.sum_digests
    swapped = dataclasses.replace(shown, sum_digests=(second, first, third))
    audit = SumAudit(seen, swapped)
    assert [audit.matches(chunk, reader(run)) for chunk in range(3)] == [False, False, True]
    assert swapped.digest != shown.digest


def test_a_sum_with_one_word_changed_differs(attempt):
    run = finished(attempt, 4)
    run.server._uploads.total[17] += 1
    assert not SumAudit(witnessed(run), published(run)).matches(0, reader(run))


def test_a_sum_without_one_listed_upload_differs(attempt):
    run = finished(attempt, 4)
    run.server._uploads.total -= run.words_of(run.survivors[1])
    assert not SumAudit(witnessed(run), published(run)).matches(0, reader(run))


def test_an_upload_left_out_of_the_publication_is_refused(attempt):
    run = finished(attempt, 4)
    shown = published(run)
    with pytest.raises(PeerFault, match="confirmed survivors"):
        SumAudit(witnessed(run), dataclasses.replace(shown, uploads=shown.uploads[1:]))


@pytest.mark.parametrize("field", ["self_seeds", "mask_secrets"])
def test_another_secret_is_refused_and_names_the_coordinator(attempt, field):
    run = finished(attempt, 4, ["m03"])
    shown = published(run)
    first, *rest = getattr(shown, field)
    forged = dataclasses.replace(first, secret=bytes(len(first.secret)))
    with pytest.raises(PeerFault) as caught:
        SumAudit(witnessed(run), dataclasses.replace(shown, **{field: (forged, *rest)}))
    assert (caught.value.code, caught.value.peer) == ("RNM-SECAGG-0001", "coordinator")


def test_a_missing_edge_of_a_dropout_is_refused(attempt):
    run = finished(attempt, 4, ["m03"])
    shown = published(run)
    with pytest.raises(PeerFault, match="missing"):
        SumAudit(witnessed(run), dataclasses.replace(shown, edges=shown.edges[1:]))


def test_a_served_chunk_that_was_forged_is_refused_by_its_digest(attempt):
    run = finished(attempt, 4)
    audit = SumAudit(witnessed(run), published(run))
    with pytest.raises(PeerFault, match="chunk 0 of m00 is not the one"):
        audit.matches(0, lambda member, index: bytes(len(run.uploads[member].chunks[index])))


def test_both_secrets_of_one_member_cannot_be_published(attempt):
    shown = published(finished(attempt, 4))
    with pytest.raises(ValueError, match="both secrets"):
        dataclasses.replace(shown, mask_secrets=shown.self_seeds[:1])


def test_the_digest_covers_the_sum(attempt):
    shown = published(finished(attempt, 4))
    other = dataclasses.replace(shown, sum_digests=(sum_chunk_digest(0, b"other"),))
    assert other.sum_root != shown.sum_root
    assert other.digest != shown.digest
