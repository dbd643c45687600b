"""The member's corpus: what is refused, what is remembered, and what is erased."""

import hashlib
import json
import os

import numpy as np
import pytest
from training_kit import SECRET, words, write_corpus

from base_model import packing, tokenizer
from base_model.sources import Document
from fedproto.errors import LocalFault
from member_node import data

ROOT = os.geteuid() == 0


def refused(code, act):
    with pytest.raises(LocalFault) as caught:
        act()
    fault = caught.value
    assert fault.code == code
    assert SECRET not in str(fault) + fault.why + fault.mend
    assert SECRET not in repr(fault.__cause__)
    return fault


@pytest.fixture
def corpus(tmp_path):
    return write_corpus(tmp_path / "data")


def documents(corpus):
    return data.read_documents([corpus / data.TRAIN])


def batches(corpus, documents, tokens=None):
    directory = corpus / data.PACKED
    return data.batches(documents, tokens or words(), directory, sequence=32, seed=4)


def test_several_files_are_read_in_order(corpus):
    both = data.read_documents([corpus / data.TRAIN, corpus / data.TEST])
    assert both == documents(corpus) + data.read_documents([corpus / data.TEST])
    assert len(both) == 240


def test_a_missing_corpus_is_named(tmp_path):
    fault = refused("RNM-DATA-0001", lambda: data.read_documents([tmp_path / data.TRAIN]))
    assert data.TRAIN in fault.what


def test_an_unreadable_corpus_is_named(tmp_path):
    (tmp_path / data.TRAIN).mkdir()
    refused("RNM-DATA-0002", lambda: data.read_documents([tmp_path / data.TRAIN]))


@pytest.mark.skipif(ROOT, reason="root reads every file")
def test_a_corpus_of_another_user_is_named(corpus):
    (corpus / data.TRAIN).chmod(0)
    refused("RNM-DATA-0002", lambda: documents(corpus))


@pytest.mark.parametrize("content", [b"", b'{"group": "g", "text": ""}\n'])
def test_an_empty_corpus_is_named(tmp_path, content):
    (tmp_path / data.TRAIN).write_bytes(content)
    refused("RNM-DATA-0003", lambda: data.read_documents([tmp_path / data.TRAIN]))


@pytest.mark.parametrize(
    "line",
    [
        f"{SECRET} is no JSON".encode(),
        json.dumps([SECRET]).encode(),
        json.dumps({"group": "g", "body": SECRET}).encode(),
        json.dumps({"group": "g", "text": [SECRET]}).encode(),
        json.dumps({"group": 3, "text": SECRET}).encode(),
        SECRET.encode("utf-16"),
        b'{"group": "g", "text": "' + SECRET.encode() + b"\xff\xfe",
        b'{"group": "g", "text": "' + SECRET.encode() + b'\\ud800"}',
    ],
)
def test_a_line_that_is_no_document_is_named_by_number_and_never_shown(tmp_path, line):
    good = json.dumps({"group": "g", "text": SECRET}).encode()
    (tmp_path / data.TRAIN).write_bytes(b"\n".join([good, good, line, good]))
    fault = refused("RNM-DATA-0002", lambda: data.read_documents([tmp_path / data.TRAIN]))
    assert "line 3" in fault.why


def test_a_line_nested_without_end_is_refused(tmp_path):
    (tmp_path / data.TRAIN).write_bytes(b"[" * 200_000)
    refused("RNM-DATA-0002", lambda: data.read_documents([tmp_path / data.TRAIN]))


def test_a_corpus_shorter_than_a_window_is_refused(tmp_path):
    (tmp_path / "data").mkdir(mode=0o700)
    few = (Document("g", "a b c"),)
    refused("RNM-DATA-0003", lambda: batches(tmp_path / "data", few))


def test_packed_tokens_are_taken_from_the_cache(corpus, monkeypatch):
    first = batches(corpus, documents(corpus))

    def never(*_):
        raise AssertionError("packed again")

    monkeypatch.setattr(packing, "_write_shards", never)
    assert np.array_equal(batches(corpus, documents(corpus)).stream, first.stream)


def test_batches_follow_from_seed_and_step(corpus):
    one, other = batches(corpus, documents(corpus)), batches(corpus, documents(corpus))
    assert np.array_equal(one.batch(5, 4), other.batch(5, 4))
    assert not np.array_equal(one.batch(5, 4), one.batch(6, 4))
    assert one.batch(0, 4).shape == (4, 33)


def test_tokens_of_a_corpus_that_was_withdrawn_are_erased(corpus):
    batches(corpus, documents(corpus))
    (before,) = (corpus / data.PACKED).iterdir()
    write_corpus(corpus, count=110)
    batches(corpus, documents(corpus))
    (after,) = (corpus / data.PACKED).iterdir()
    assert before.name != after.name
    assert not before.exists()


def test_another_tokenizer_packs_anew(corpus):
    first = batches(corpus, documents(corpus))
    other = tokenizer.train((d.text for d in documents(corpus)), 280)
    assert not np.array_equal(batches(corpus, documents(corpus), other).stream, first.stream)


def test_damaged_tokens_are_refused(corpus):
    batches(corpus, documents(corpus))
    (directory,) = (corpus / data.PACKED).iterdir()
    shard = next(directory.glob("*.bin"))
    shard.write_bytes(shard.read_bytes()[:-2] + b"\0\0")
    refused("RNM-DATA-0002", lambda: batches(corpus, documents(corpus)))


def test_packed_tokens_are_their_owners_alone(corpus):
    batches(corpus, documents(corpus))
    (directory,) = (corpus / data.PACKED).iterdir()
    assert directory.stat().st_mode & 0o777 == 0o700
    assert (corpus / data.PACKED).stat().st_mode & 0o777 == 0o700


def test_the_commitment_stays_with_the_data_and_its_salt(corpus):
    first = data.commitment(documents(corpus), corpus)
    assert data.commitment(documents(corpus), corpus) == first
    assert data.commitment(documents(corpus)[1:], corpus) != first
    (corpus / data.SALT).unlink()
    assert data.commitment(documents(corpus), corpus) != first


def test_the_commitment_is_no_plain_digest_of_the_data(corpus):
    raw = (corpus / data.TRAIN).read_bytes()
    known = data.digest(documents(corpus))
    name = data.commitment(documents(corpus), corpus)
    assert name not in {hashlib.sha256(raw).hexdigest(), known.hex()}
    assert (corpus / data.SALT).stat().st_mode & 0o777 == 0o600
    assert len((corpus / data.SALT).read_bytes()) == 32


def test_a_salt_that_others_may_read_is_refused(corpus):
    data.commitment(documents(corpus), corpus)
    (corpus / data.SALT).chmod(0o644)
    refused("RNM-KEY-0002", lambda: data.commitment(documents(corpus), corpus))


def test_a_salt_cut_short_is_refused(corpus):
    data.commitment(documents(corpus), corpus)
    (corpus / data.SALT).write_bytes(b"")
    refused("RNM-KEY-0003", lambda: data.commitment(documents(corpus), corpus))
