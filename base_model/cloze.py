"""A small cloze set made from held-out text: which of four ends belongs to a sentence?

Decides the questions: a sentence cut in the middle, its own end, and the ends of three sentences of other
documents, all as long. Guessing is right one time in four. The ends come from the same kind of text, so
a model needs the sentence to tell. Everything follows from texts and seed. Pure.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

CHOICES = 4
_LEAST, _MOST = 40, 160
_ENDS = re.compile(r"[^。.!?!?\n]+[。.!?!?]")
_JAPANESE = re.compile("[\u3041-\u30ff\u4e00-\u9fff]")
# So large a share of Japanese letters makes a text Japanese.
_SHARE = 0.3


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """The beginning of a sentence, and ends of which `answer` is its own."""

    beginning: str
    ends: tuple[str, ...]
    answer: int


def language(text: str) -> str:
    """Return "ja" or "en": what most of a text is written in."""
    letters = sum(letter.isalpha() for letter in text)
    return "ja" if letters and len(_JAPANESE.findall(text)) > _SHARE * letters else "en"


def make(texts: Sequence[str], seed: int, most: int) -> list[Question]:
    """Return up to `most` questions from documents, one of each document at most."""
    chance = np.random.default_rng(seed)
    order = chance.permutation(len(texts))
    halves = [half for half in (_halves(texts[at]) for at in order) if half is not None]
    questions: list[Question] = []
    for at, (beginning, end) in enumerate(halves):
        others = [e for place, (_, e) in enumerate(halves) if place != at and len(e) >= len(end)]
        if len(others) < CHOICES - 1 or len(questions) == most:
            continue
        picked = chance.choice(len(others), CHOICES - 1, replace=False)
        ends = [others[place][: len(end)] for place in picked]
        if end in ends:
            continue
        answer = int(chance.integers(CHOICES))
        ends.insert(answer, end)
        questions.append(Question(beginning=beginning, ends=tuple(ends), answer=answer))
    return questions


def _halves(text: str) -> tuple[str, str] | None:
    """Return the first sentence of a fair length, cut in the middle, between words where there are any."""
    for sentence in (found.strip() for found in _ENDS.findall(text)):
        if _LEAST <= len(sentence) <= _MOST:
            middle = len(sentence) // 2
            space = sentence.find(" ", middle)
            cut = space if 0 <= space < len(sentence) - 8 else middle
            return sentence[:cut], sentence[cut:]
    return None
