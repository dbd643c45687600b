"""The sum is exact over the survivors, whoever drops out and whenever."""

import numpy as np
import pytest

from fedproto.errors import LocalFault, PeerFault
from fedproto.secagg.params import UPLOAD_CHUNK_WORDS


def finish_and_check(run):
    assert run.server.can_finish()
    result = run.server.finish()
    mean, weight = run.expected(run.survivors)
    assert result.included == run.survivors
    assert result.mean_delta.dtype == np.float32
    assert np.array_equal(result.mean_delta, mean)
    assert result.weight == weight
    true_weight = sum(run.weights[name] for name in run.survivors)
    exact = sum(run.weights[name] * run.deltas[name].astype(np.float64) for name in run.survivors)
    step = run.params.clip / run.params.qmax
    assert np.abs(result.mean_delta - exact / true_weight).max() < 4 * step * len(run.names)
    return result


@pytest.mark.parametrize("n", [3, 4, 7, 16, 20])
def test_the_sum_of_a_whole_cohort_is_exact(attempt, n):
    run = attempt(n)
    run.advertise()
    run.share()
    run.mask()
    run.confirm()
    run.reveal()
    finish_and_check(run)


CASES = [
    (n, phase)
    for n in (4, 7, 16, 20)
    for phase in ("advertise", "share", "mask", "confirm", "reveal")
]


@pytest.mark.parametrize(("n", "phase"), CASES)
def test_dropouts_in_any_phase_leave_the_sum_of_the_survivors_exact(attempt, n, phase):
    run = attempt(n)
    # As many as the threshold bears, from both ends of the order.
    spare = n - run.params.threshold
    names = [run.names[0], run.names[-1], *run.names[1:-1]][:spare]
    for step in ("advertise", "share", "mask", "confirm", "reveal"):
        getattr(run, step)(without=names if step == phase else ())
    result = finish_and_check(run)
    missing = set(run.names) - set(result.included)
    assert missing == (set(names) if phase in ("advertise", "share", "mask") else set())


def test_dropouts_in_every_phase_at_once_leave_the_sum_exact(attempt):
    run = attempt(20, tolerated=1)
    run.advertise(without=["m00", "m19"])
    run.share(without=["m05", "m06"])
    run.mask(without=["m01", "m10", "m11"])
    run.confirm(without=["m03"])
    run.reveal(without=["m18"])
    result = finish_and_check(run)
    assert len(result.included) == 13


def test_the_same_holds_on_the_circulant_graph_above_sixteen_members(attempt):
    run = attempt(24, d=50)
    run.advertise()
    neighbours = run.server._keying.neighbours(run.names[0])
    assert len(neighbours) < 23
    run.share(without=["m02"])
    run.mask(without=["m00", "m12", "m23"])
    run.confirm()
    run.reveal()
    finish_and_check(run)


def test_an_upload_of_several_chunks_arrives_in_any_order(attempt):
    run = attempt(4, d=2 * UPLOAD_CHUNK_WORDS + 17)
    run.advertise()
    run.share()
    for name in run.names:
        upload = run.mask_of(name)
        assert len(upload.chunks) == 3
        run.server.receive_header(name, upload.header)
        assert not run.server.receive_chunk(name, 2, upload.chunks[2])
        assert not run.server.receive_chunk(name, 0, upload.chunks[0])
        assert not run.server.receive_chunk(name, 0, upload.chunks[0])
        assert run.server.receive_chunk(name, 1, upload.chunks[1])
        # A chunk that is sent again after a broken connection is not added twice.
        assert run.server.receive_chunk(name, 1, upload.chunks[1])
    run.survivor_list, run.survivors = run.server.close_uploads(), tuple(run.names)
    run.confirm()
    run.reveal()
    finish_and_check(run)


def test_nothing_of_an_incomplete_upload_is_in_the_sum(attempt):
    run = attempt(4, d=UPLOAD_CHUNK_WORDS + 5)
    run.advertise()
    run.share()
    for name in run.names[:3]:
        run.send(name, run.mask_of(name))
    before = run.server._uploads.total.copy()
    half = run.mask_of(run.names[3])
    run.server.receive_header(run.names[3], half.header)
    assert not run.server.receive_chunk(run.names[3], 0, half.chunks[0])
    run.survivor_list, run.survivors = run.server.close_uploads(), tuple(run.names[:3])
    assert np.array_equal(run.server._uploads.total, before)
    run.confirm()
    run.reveal()
    finish_and_check(run)


@pytest.mark.parametrize("phase", ["advertise", "share", "mask", "confirm"])
def test_below_the_threshold_the_attempt_ends_and_opens_nothing(attempt, phase):
    run = attempt(4)
    steps = ["advertise", "share", "mask", "confirm"]
    for step in steps[: steps.index(phase)]:
        getattr(run, step)()
    with pytest.raises(LocalFault) as caught:
        getattr(run, phase)(without=run.names[:2])
    assert caught.value.code == "RNM-SECAGG-0002"
    with pytest.raises((PeerFault, LocalFault)):
        run.server.receive_reveal(run.names[3], b"")
    assert not run.server.can_finish()


def test_fewer_reveals_than_the_threshold_open_nothing(attempt):
    run = attempt(4)
    run.advertise()
    run.share()
    run.mask()
    run.confirm()
    run.reveal(without=run.names[:2])
    assert not run.server.can_finish()
    with pytest.raises(LocalFault) as caught:
        run.server.finish()
    assert caught.value.code == "RNM-SECAGG-0002"


def test_the_sum_is_asked_for_once(attempt):
    run = attempt(4)
    for step in ("advertise", "share", "mask", "confirm", "reveal"):
        getattr(run, step)()
    run.server.finish()
    assert not run.server.can_finish()
    with pytest.raises(LocalFault):
        run.server.finish()


def test_the_transcript_changes_with_every_attempt(attempt):
    digests = set()
    for number in (1, 2):
        run = attempt(4, attempt=number)
        for step in ("advertise", "share", "mask", "confirm", "reveal"):
            getattr(run, step)()
        digests.add(run.server.finish().transcript_sha256)
    assert len(digests) == 2
