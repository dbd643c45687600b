"""Two passes of one attempt: secrets of their own, the same members, and nothing of one in the other."""

import numpy as np
import pytest

from fedproto.errors import LocalFault, PeerFault
from fedproto.secagg.agreement import exchange, mask_keys, pair_info, pair_mask, self_mask
from fedproto.secagg.keying_messages import Advertise
from fedproto.secagg.masking_messages import Reveal
from fedproto.secagg.messages import decode, encode
from fedproto.secagg.ring import unmask
from fedproto.secagg.shamir import lagrange, recover
from fedproto.secagg.stages import MaskSeed


def begin(attempt, number, summed=None, n=5):
    return attempt(n, pass_no=number, passes=2, summed=summed)


def passes(attempt):
    """Return a first pass that is done, and the second one that follows it."""
    first = begin(attempt, 1)
    for step in (first.advertise, first.share, first.mask, first.confirm, first.reveal):
        step()
    first.server.finish()
    return first, begin(attempt, 2, first.clients["m00"].survivors)


def test_every_key_of_a_pass_is_its_own_even_where_entropy_repeats(attempt):
    """The pass is in ctx, and ctx in each derivation."""
    first = begin(attempt, 1)
    second = begin(attempt, 2, tuple(first.names))
    assert first.authorisation.ctx != second.authorisation.ctx
    keys = [
        decode(Advertise, client.advertise(), peer="test").raw_keys[:2]
        for client in (
            first.client("m00", entropy=lambda count: b"\x07" * count),
            second.client("m00", entropy=lambda count: b"\x07" * count),
        )
    ]
    assert set(keys[0]).isdisjoint(keys[1])


def test_two_honest_passes_give_two_sums_over_the_same_members(attempt):
    _, second = passes(attempt)
    second.advertise()
    second.share()
    second.mask()
    second.confirm()
    second.reveal()
    mean, _ = second.expected(second.names)
    assert np.array_equal(second.server.finish().mean_delta, mean)


def opened(first, secret, self_secret):
    """Return what m00's upload of the first pass is once these two secrets' masks are off it."""
    keying = first.server._keying
    keys = mask_keys(secret, keying.ctx, "m00")
    seeds = [self_mask(self_secret, keying.ctx, keying.h2, "m00", add=False)]
    for peer in first.names[1:]:
        # m00 sent every KEM ciphertext of its edges; its own client still knows their secrets.
        kem = first.kem[peer]
        seed = pair_mask(
            "m00",
            peer,
            exchange(keys, keying.keys[peer].mask_x25519),
            kem,
            pair_info(keying.ctx, keying.h2, "m00", peer),
        )
        seeds.append(MaskSeed(seed=seed.seed, add=not seed.add))
    words = np.frombuffer(b"".join(first.uploads["m00"].chunks), "<u4").copy()
    unmask(words, seeds)
    return words


def test_a_dropout_of_the_second_pass_opens_nothing_of_the_first(attempt):
    """All that the second pass could reveal of m00, with what the first one did reveal of it."""
    first = begin(attempt, 1)
    first.advertise()
    first.share()
    keys = first.clients["m00"]._keys
    first.kem, first_secret = dict(keys.kem), keys.seeds.mask_secret
    first.mask()
    first.confirm()
    reveals = {
        place: decode(Reveal, first.clients[name].reveal(first.confirmations), peer="test")
        for place, name in enumerate(first.names, 1)
    }
    # The coordinator's rightful knowledge of the first pass: m00's self seed.
    coefficients = lagrange(tuple(reveals))
    self_secret = recover(
        {point: item.self_shares[0].share for point, item in reveals.items()}, coefficients
    )
    second = begin(attempt, 2, tuple(first.names))
    second.advertise()
    second.share()
    # What T members would reveal of a dropout, had they agreed to: its whole mask secret.
    held = {
        point: second.clients[name]
        for point, name in enumerate(second.names, 1)
        if not second.clients[name].check_shares(second.share_lists[name])
    }
    second_secret = recover(
        {point: client._held["m00"].mask_share for point, client in held.items()},
        lagrange(tuple(held)),
    )
    assert second_secret == second.clients["m00"]._keys.seeds.mask_secret
    truth = first.words_of("m00")
    # The method works: with the first pass's own mask secret the delta lies open.
    assert np.array_equal(opened(first, first_secret, self_secret), truth)
    attacked = opened(first, second_secret, self_secret)
    assert not np.any(attacked == truth)
    # What is left is noise: the high byte of 301 words takes about 177 values.
    assert len(set((attacked >> 24).tolist())) > 140


def test_a_pass_over_other_members_than_the_one_before_is_confirmed_by_nobody(attempt):
    _, second = passes(attempt)
    second.server._summed = None
    second.advertise()
    second.share()
    second.mask(without=["m02"])
    for name in second.survivors:
        with pytest.raises(PeerFault) as caught:
            second.clients[name].confirm(second.survivor_list)
        assert caught.value.code == "RNM-SECAGG-0003"
        assert second.clients[name]._held == {}


def test_the_coordinator_ends_a_pass_that_lost_a_member_of_the_one_before(attempt):
    _, second = passes(attempt)
    second.advertise()
    second.share()
    with pytest.raises(LocalFault) as caught:
        second.mask(without=["m02"])
    assert caught.value.code == "RNM-SECAGG-0002"
    assert "m02" in caught.value.why


def test_a_later_pass_without_the_one_before_and_a_first_pass_with_one_are_refused(attempt):
    for number, summed in ((2, None), (1, ("m00", "m01", "m02", "m03", "m04"))):
        with pytest.raises(PeerFault) as caught:
            begin(attempt, number, summed)
        assert caught.value.code == "RNM-SECAGG-0003"


def test_what_was_dealt_in_one_pass_is_refused_in_the_other(attempt):
    first, second = passes(attempt)
    second.advertise()
    with pytest.raises(PeerFault) as caught:
        second.server.receive_shares("m01", encode(first.server._keying.shares["m01"]))
    assert (caught.value.code, caught.value.peer) == ("RNM-SECAGG-0001", "m01")
