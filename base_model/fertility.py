"""What a tokenizer costs a language: tokens a character and a byte, beside published figures.

Decides which text is compared: sentences that are almost all kana and kanji, as the published figures
are of Japanese questions. The texts differ, so the figures place a tokenizer in a band; bits per byte
compare models. Pure.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from tokenizers import Tokenizer, pre_tokenizers

# Nine letters in ten are Japanese, and there are enough of them to be a sentence.
_SENTENCE = re.compile(r"[^。\n]{12,}。")
_SHARE = 0.9


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """A published figure, in characters a token, and where it is from."""

    name: str
    low: float
    high: float
    source: str


_RAKUDA = "a published comparison on the Rakuda questions (zenn.dev), second-hand"
PUBLISHED = (
    Published(name="tokenizers of Japanese models", low=2.0, high=2.6, source=_RAKUDA),
    Published(name="GPT-4", low=0.96, high=0.96, source=_RAKUDA),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fertility:
    """How many tokens some text takes."""

    name: str
    characters: int
    bytes: int
    tokens: int

    @property
    def tokens_per_character(self) -> float:
        """Tokens a character: the usual meaning of fertility for Japanese."""
        return self.tokens / self.characters

    @property
    def tokens_per_byte(self) -> float:
        """Tokens a byte of UTF-8."""
        return self.tokens / self.bytes

    @property
    def characters_per_token(self) -> float:
        """Characters a token, which most published tables give."""
        return self.characters / self.tokens


def measure(name: str, tokenizer: Tokenizer, texts: Sequence[str]) -> Fertility | None:
    """Return the fertility of a tokenizer on texts, or nothing where they hold no text."""
    tokens = sum(len(found.ids) for found in tokenizer.encode_batch_fast(list(texts)))
    if not tokens:
        return None
    return Fertility(
        name=name,
        characters=sum(map(len, texts)),
        bytes=sum(len(text.encode()) for text in texts),
        tokens=tokens,
    )


def japanese_sentences(texts: Iterable[str]) -> list[str]:
    """Return the sentences of texts that are almost all Japanese."""
    found = (sentence.strip() for text in texts for sentence in _SENTENCE.findall(text))
    return [one for one in found if sum(map(_is_japanese, one)) >= _SHARE * len(one)]


def bytes_without_token(tokenizer: Tokenizer) -> list[str]:
    """Return the byte symbols that have no token: none, or some text could not be written."""
    return [
        s for s in sorted(pre_tokenizers.ByteLevel.alphabet()) if tokenizer.token_to_id(s) is None
    ]


def _is_japanese(letter: str) -> bool:
    return "\u3001" <= letter <= "\u30ff" or "\u4e00" <= letter <= "\u9fff"
