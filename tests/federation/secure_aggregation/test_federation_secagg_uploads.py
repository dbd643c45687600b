"""Masked uploads on disk: memory that doesn't grow with the cohort, and faults that cost one member."""

import errno
import os
import subprocess
import sys

import numpy as np
import pytest

from federation.rounds import spool as spools
from federation.rounds.spool import Spool
from federation.secure_aggregation.server import SecAggServer
from fedproto.errors import LocalFault, PeerFault
from fedproto.ids import MemberId
from fedproto.secagg.params import UPLOAD_CHUNK_WORDS
from fedproto.secagg.stages import chunk_digest

LONG = 2 * UPLOAD_CHUNK_WORDS + 17


@pytest.fixture
def spooled(attempt, tmp_path):
    """An attempt whose coordinator keeps chunks on disk, up to the uploads."""
    run = attempt(4, d=LONG)
    run.spool = Spool(tmp_path / "spool")
    run.server = SecAggServer(authorisation=run.authorisation, roster=run.roster, chunks=run.spool)
    run.advertise()
    run.share()
    yield run
    run.spool.close()


def finish(run):
    run.survivor_list = run.server.close_uploads()
    run.confirm()
    run.reveal()
    return run.server.finish()


def test_a_sum_over_chunks_on_disk_is_exact_and_leaves_nothing_behind(spooled, tmp_path):
    run = spooled
    run.mask(without=["m02"])
    run.confirm()
    run.reveal()
    total = run.server.finish()
    delta, weight = run.expected(run.survivors)
    assert np.array_equal(total.mean_delta, delta)
    assert total.weight == weight
    run.spool.close()
    assert not (tmp_path / "spool").exists()


def test_what_lies_on_disk_is_its_owners_alone_and_is_what_was_signed(spooled, tmp_path):
    run = spooled
    upload = run.mask_of("m00")
    run.send("m00", upload)
    (file,) = (tmp_path / "spool").iterdir()
    assert file.stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "spool").stat().st_mode & 0o777 == 0o700
    assert "m00" not in file.name
    uploads = run.server._uploads
    assert [uploads.read_chunk("m00", i) for i in range(3)] == list(upload.chunks)


def test_a_chunk_that_the_disk_changed_is_named_and_never_used(spooled, tmp_path):
    run = spooled
    run.send("m00", run.mask_of("m00"))
    (file,) = (tmp_path / "spool").iterdir()
    data = bytearray(file.read_bytes())
    data[100] ^= 1
    file.write_bytes(data)
    with pytest.raises(LocalFault, match="not what was written"):
        run.server._uploads.read_chunk("m00", 0)


def test_half_an_upload_is_taken_out_again_when_the_phase_closes(spooled):
    run = spooled
    for name in ("m00", "m01", "m03"):
        run.send(name, run.mask_of(name))
    half = run.mask_of("m02")
    run.server.receive_header("m02", half.header)
    run.server.receive_chunk("m02", 1, half.chunks[1])
    run.server.receive_chunk("m02", 1, half.chunks[1])
    assert run.server._uploads.missing("m02") == (0, 2)
    run.survivors = ("m00", "m01", "m03")
    total = finish(run)
    assert np.array_equal(total.mean_delta, run.expected(run.survivors)[0])


def test_chunks_may_come_before_the_header_that_signs_them(spooled):
    run = spooled
    for name in run.names:
        upload = run.mask_of(name)
        run.server.begin_upload(name)
        for index in (1, 0, 2):
            assert not run.server.receive_chunk(name, index, upload.chunks[index])
        assert run.server.receive_header(name, upload.header)
        assert run.server.receive_header(name, upload.header), "again, after a broken connection"
    run.survivors = tuple(run.names)
    total = finish(run)
    assert np.array_equal(total.mean_delta, run.expected(run.survivors)[0])


@pytest.mark.parametrize("signs", ["another chunk", "nothing"])
def test_chunks_that_no_header_signs_are_taken_out_of_the_sum_again(spooled, signs):
    run = spooled
    for name in ("m00", "m01", "m03"):
        run.send(name, run.mask_of(name))
    upload = run.mask_of("m02")
    run.server.begin_upload("m02")
    bent = bytearray(upload.chunks[1])
    bent[7] ^= 1
    for index, data in enumerate((upload.chunks[0], bytes(bent), upload.chunks[2])):
        assert not run.server.receive_chunk("m02", index, data)
    if signs == "another chunk":
        with pytest.raises(PeerFault, match="chunk 1 is not the one") as refusal:
            run.server.receive_header("m02", upload.header)
        assert refusal.value.peer == "m02"
    run.survivors = ("m00", "m01", "m03")
    total = finish(run)
    assert np.array_equal(total.mean_delta, run.expected(run.survivors)[0])


def test_an_upload_is_begun_once_and_no_chunk_comes_before(spooled):
    run = spooled
    upload = run.mask_of("m00")
    with pytest.raises(PeerFault, match="before its upload was begun"):
        run.server.receive_chunk("m00", 0, upload.chunks[0])
    run.server.begin_upload("m00")
    with pytest.raises(PeerFault, match="began its upload before"):
        run.server.begin_upload("m00")
    run.server.receive_chunk("m00", 0, upload.chunks[0])
    # Another content in the same place, before any header: the first one stands.
    with pytest.raises(PeerFault):
        run.server.receive_chunk("m00", 0, bytes(len(upload.chunks[0])))


def test_a_vector_is_masked_as_its_chunks_are_read_and_its_secrets_go_with_the_last(spooled):
    upload = spooled.mask_of("m00")
    vector = upload.chunks
    assert vector._masked == 0
    first = vector[0]
    assert vector._masked == len(first) // 4
    assert vector._masks is not None
    # Out of order: what lies before is masked too, and every byte is what it is in order.
    last = vector[2]
    assert vector._masks is None
    assert vector._rounding is None
    assert (vector[0], vector[2]) == (first, last)
    assert vector.chunk_digests() == tuple(chunk_digest(i, vector[i]) for i in range(3))


def test_an_upload_is_not_signed_any_more_once_its_sum_was_confirmed(spooled):
    run = spooled
    late = run.mask_of("m00")
    for name in ("m01", "m02", "m03"):
        run.send(name, run.mask_of(name))
    run.survivors = ("m01", "m02", "m03")
    survivors = run.server.close_uploads()
    with pytest.raises(PeerFault):
        run.clients["m00"].confirm(survivors)
    with pytest.raises(PeerFault, match="signed before its sum"):
        _ = late.header


def test_a_full_disk_costs_the_member_whose_chunk_it_refused(spooled, monkeypatch):
    run = spooled
    for name in ("m00", "m01", "m03"):
        run.send(name, run.mask_of(name))
    half = run.mask_of("m02")
    run.server.receive_header("m02", half.header)
    run.server.receive_chunk("m02", 0, half.chunks[0])

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr(spools.os, "pwrite", full)
        with pytest.raises(LocalFault) as caught:
            run.server.receive_chunk("m02", 1, half.chunks[1])
    assert caught.value.code == "RNM-DISK-0001"
    run.survivors = ("m00", "m01", "m03")
    total = finish(run)
    assert np.array_equal(total.mean_delta, run.expected(run.survivors)[0])


def test_what_a_killed_coordinator_left_is_removed_before_the_next_attempt(tmp_path):
    first = Spool(tmp_path / "spool")
    first.write(MemberId("honda"), 0, b"masked")
    second = Spool(tmp_path / "spool")
    assert list((tmp_path / "spool").iterdir()) == []
    second.write(MemberId("honda"), 3, b"other")
    assert second.read(MemberId("honda"), 3, 5) == b"other"
    second.close()


_PROBE = """
import resource, sys
from pathlib import Path
import numpy as np
from federation.rounds.spool import Spool
from federation.secure_aggregation.uploads import Uploads
from fedproto.secagg.masking_messages import MaskedHeader, UploadHeader
from fedproto.secagg.params import Params
from fedproto.secagg.stages import chunk_digest, upload_root
members, words = int(sys.argv[1]), 1_000_000
params = Params(members=64, threshold=43, tolerated=21, parameters=words - 1, qmax=1000, clip=1.0)
uploads = Uploads(params, Spool(Path(sys.argv[2])))
rng = np.random.default_rng(1)
for number in range(members):
    name = f"m{number:02d}"
    data = rng.bytes(4 * words)
    chunks = [data[i : i + (1 << 20)] for i in range(0, len(data), 1 << 20)]
    digests = tuple(chunk_digest(i, chunk) for i, chunk in enumerate(chunks))
    root = upload_root(words, digests)
    header = UploadHeader(ctx=bytes(32), member=name, h1=bytes(32), h2=bytes(32), root=root)
    uploads.open(name, MaskedHeader(header=header, words=words, chunk_digests=digests))
    for index, chunk in enumerate(chunks):
        uploads.add(name, index, chunk)
assert len(uploads.complete) == members
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def test_the_coordinators_memory_does_not_grow_with_the_cohort(tmp_path):
    """64 uploads of a million words are 256 MB; 60 more than four may not show in its peak."""

    def peak_kib(members):
        result = subprocess.run(
            [sys.executable, "-c", _PROBE, str(members), str(tmp_path / str(members))],
            capture_output=True,
            text=True,
            check=True,
        )
        return int(result.stdout)

    few, many = peak_kib(4), peak_kib(64)
    assert many - few < 16 * 1024
