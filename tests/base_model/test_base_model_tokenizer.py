from pathlib import Path

import pytest
from base_kit import TINY, some_documents
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer

from base_model import tokenizer as tokenizing
from base_model.fertility import PUBLISHED, bytes_without_token, japanese_sentences, measure
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


HARD = (
    # Emoji: a plain one, with a skin tone, a family joined by ZWJ, a flag, a keycap.
    "😀",
    "👍🏽",
    "👩‍👩‍👧‍👦",
    "🇯🇵",
    "3️⃣",
    # Rare kanji: beyond the BMP (JIS X 0213), variants by selector, kangxi radicals, iteration marks.
    "𠮟る 𩸽 𠀋 𡈽 𪚲 𫝆",
    "葛󠄀城市 辻󠄂 邉󠄄",
    "⼀⼆ 々ゝヾ〱 ゟヿ",
    "髙﨑 鷗外 ①㍿㈱ ﾊﾝｶｸ",
    "\x00\x01\x7f\u0085\u200b\ufeff\uffff",
    "\r\n\t　",
)


@pytest.mark.parametrize("text", HARD)
def test_emoji_and_rare_kanji_come_back(tokenizer: Tokenizer, text: str) -> None:
    assert tokenizer.decode(tokenizer.encode(text).ids) == text


def test_each_of_the_256_bytes_has_a_token_of_its_own(tokenizer: Tokenizer) -> None:
    assert bytes_without_token(tokenizer) == []
    # Every byte that UTF-8 can hold (all but C0, C1 and F5 to FF), through texts that hold it.
    texts = [
        chr(c) for c in (*range(0x800), *range(0x800, 0xD800, 61), *range(0xE000, 0x110000, 997))
    ]
    assert {byte for text in texts for byte in text.encode()} == (
        set(range(256)) - {0xC0, 0xC1} - set(range(0xF5, 0x100))
    )
    for text, found in zip(texts, tokenizer.encode_batch(texts), strict=True):
        assert tokenizer.decode(found.ids) == text


def test_a_tokenizer_that_lacks_a_byte_is_named() -> None:
    from tokenizers.models import BPE

    lacking = Tokenizer(BPE(vocab={"a": 0}, merges=[]))
    assert len(bytes_without_token(lacking)) == 255


def test_fertility_counts_characters_bytes_and_tokens(tokenizer: Tokenizer) -> None:
    found = measure("x", tokenizer, ["車速", "ab"])
    assert found is not None
    assert (found.characters, found.bytes) == (4, 8)
    tokens = sum(len(tokenizer.encode(text).ids) for text in ("車速", "ab"))
    assert found.tokens_per_character == tokens / 4
    assert found.tokens_per_byte == tokens / 8
    assert found.characters_per_token == 4 / tokens
    assert measure("x", tokenizer, []) is None


def test_only_sentences_that_are_almost_all_japanese_are_compared() -> None:
    texts = [
        "この装置は車速を測定し、記録する。\nThe quick brown fox jumps. 短い。",
        "ls -l は長い形式で一覧を表示する。利用者は設定を変更できるはずです。",
    ]
    assert japanese_sentences(texts) == [
        "この装置は車速を測定し、記録する。",
        "利用者は設定を変更できるはずです。",
    ]


def test_published_figures_name_their_source() -> None:
    assert all(figure.source and 0 < figure.low <= figure.high for figure in PUBLISHED)
