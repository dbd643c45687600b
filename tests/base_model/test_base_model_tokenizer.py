from pathlib import Path

import pytest
from base_kit import TINY, some_documents
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer

from base_model import tokenizer as tokenizing
from base_model.tokenizer import BOS, EOS, PAD
from fedproto.errors import LocalFault


@given(st.text(max_size=200))
def test_every_text_comes_back_byte_for_byte(tokenizer: Tokenizer, text: str) -> None:
    ids = tokenizer.encode(text).ids
    assert tokenizer.decode(ids) == text
    assert all(id_ < TINY.vocabulary for id_ in ids)


def test_one_corpus_gives_one_vocabulary(tokenizer: Tokenizer) -> None:
    again = tokenizing.train((d.text for d in some_documents()), TINY.vocabulary)
    assert again.to_str() == tokenizer.to_str()


def test_a_document_that_spells_a_special_word_begins_no_document(tokenizer: Tokenizer) -> None:
    for name in ("<bos>", "<eos>", "<pad>"):
        ids = tokenizer.encode(f"a {name} b").ids
        assert not {BOS, EOS, PAD} & set(ids)


def test_digits_are_single_tokens(tokenizer: Tokenizer) -> None:
    assert len(tokenizer.encode("1234567").ids) == 7


def test_transformers_reads_it_without_the_hub(tokenizer: Tokenizer, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    tokenizing.save(tokenizer, tmp_path)
    theirs = AutoTokenizer.from_pretrained(tmp_path, local_files_only=True)
    text = "信号 <bos> BO_ 42"
    ids = theirs(text, add_special_tokens=False)["input_ids"]
    assert ids == tokenizer.encode(text).ids
    assert (theirs.bos_token_id, theirs.eos_token_id, theirs.pad_token_id) == (BOS, EOS, PAD)
    assert tokenizing.load(tmp_path).encode(text).ids == ids


def test_a_directory_without_a_tokenizer_is_named(tmp_path: Path) -> None:
    with pytest.raises(LocalFault) as caught:
        tokenizing.load(tmp_path)
    assert caught.value.code == "RNM-MODEL-0003"
