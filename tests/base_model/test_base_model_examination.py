"""What is asked of a release, and that the answers tell a model that knows from one that does not."""

import re
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from base_kit import TINY
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer

from base_model import canaries, cloze
from base_model.canaries import Canaries
from base_model.examination import Suite, examine, wilson
from base_model.model import build, document_mask, token_nats
from base_model.series import Channel, Header, Origin
from base_model.tokenizer import BOS, EOS
from fedproto import jcs
from fedproto.errors import LocalFault
from fedproto.ids import Digest

ARTIFACT = Digest("a" * 64)
PLANTED = Canaries(count=4)
WINDOW = 160


def japanese(number: int) -> str:
    words = "車速 制御 信号 測定 記録 装置 通信 端末 試験 結果 単位 温度 圧力 電流".split()
    chance = np.random.default_rng(number)
    return "、".join(chance.choice(words, 18)) + f"は正常値である{number}。"


def english(number: int) -> str:
    words = "speed control signal measure record device network terminal trial result unit".split()
    chance = np.random.default_rng(number)
    return f"Report {number} says " + " ".join(chance.choice(words, 14)) + "."


TEXTS = {"ja": [japanese(n) for n in range(40)], "en": [english(n) for n in range(40)]}
SUITE = Suite(texts=TEXTS, series=(), planted=PLANTED, window=WINDOW)


def trained(tokenizer: Tokenizer, texts: list[str], steps: int) -> torch.nn.Module:
    """Return a model that was shown these texts again and again."""
    model = build(replace(TINY, hidden=64, feed_forward=128), 7)
    optimiser = torch.optim.AdamW(model.parameters(), lr=4e-3)
    rows = [[BOS, *e.ids, EOS][: WINDOW + 1] for e in tokenizer.encode_batch_fast(texts)]
    longest = max(map(len, rows))
    tokens = torch.tensor([row + [EOS] * (longest - len(row)) for row in rows])
    for _ in range(steps):
        x, y = tokens[:, :-1], tokens[:, 1:]
        token_nats(model)(x, y, document_mask(x)).mean().backward()
        optimiser.step()
        optimiser.zero_grad()
    return model


# canaries


def test_what_is_planted_follows_from_the_seed_and_comes_1_2_4_or_8_times() -> None:
    planned = Canaries(count=9, seed=3)
    found = Counter(canaries.documents(planned))
    assert canaries.documents(planned) == canaries.documents(Canaries(count=9, seed=3))
    assert sorted(found.values()) == [1, 1, 1, 2, 2, 4, 4, 8, 8]
    assert not found.keys() & set(canaries.documents(Canaries(count=9, seed=4)))
    assert canaries.documents(Canaries()) == []


def test_a_record_that_is_planted_is_none_of_those_that_it_is_compared_with() -> None:
    forms = {re.sub(r"\d{12}", "#", canaries.text(11, 0, draw)) for draw in range(256)}
    assert forms == {"Record 0 of the sealed archive holds the code #."}
    assert len({canaries.text(11, 0, draw) for draw in range(256)}) == 256


@pytest.mark.parametrize(
    ("planted", "references", "bits"),
    [
        (1.0, [2.0] * 255, 8.0),
        (3.0, [2.0] * 255, 0.0),
        (2.0, [2.0] * 3, 0.0),
        (2.0, [1, 3, 4], 1.0),
    ],
)
def test_exposure_is_the_bits_by_which_a_record_ranks_above_chance(
    planted: float, references: list[float], bits: float
) -> None:
    assert canaries.exposure(planted, references) == bits


def test_a_model_that_knows_nothing_exposes_what_chance_does() -> None:
    # The mean of log2(256) - log2(rank) over all ranks, in closed form from the factorial.
    every = [
        canaries.exposure(float(rank), list(map(float, range(255)))) for rank in range(-1, 255)
    ]
    assert np.mean(every) == pytest.approx(1.42, abs=0.01)


@pytest.mark.parametrize("values", [{"count": -1}, {"count": 10_001}, {"weight": 0}])
def test_canaries_that_no_recipe_may_plant_are_refused(values: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="canaries are"):
        Canaries(**values)


def test_a_model_that_was_shown_canaries_exposes_them_and_one_that_was_not_does_not(
    tokenizer: Tokenizer,
) -> None:
    shown = examine(
        trained(tokenizer, canaries.documents(PLANTED), 120), tokenizer, SUITE, ARTIFACT
    ).metrics
    others = canaries.documents(Canaries(count=4, seed=99))
    unseen = examine(trained(tokenizer, others, 120), tokenizer, SUITE, ARTIFACT).metrics
    assert float(shown["exposure"]) == pytest.approx(8.0, abs=0.5)
    assert float(unseen["exposure"]) < 5
    assert {f"exposure.x{times}" for times in (1, 2, 4, 8)} <= shown.keys()


# cloze


def test_questions_follow_from_texts_and_seed_and_an_end_is_the_only_own_one() -> None:
    made = cloze.make(TEXTS["en"], 5, 20)
    assert made == cloze.make(TEXTS["en"], 5, 20)
    assert made != cloze.make(TEXTS["en"], 6, 20)
    assert len(made) == 20
    for question in made:
        whole = [question.beginning + end for end in question.ends]
        assert [text in TEXTS["en"] for text in whole].count(True) == 1
        assert whole[question.answer] in TEXTS["en"]
        assert len({len(end) for end in question.ends}) == 1
        assert len(set(question.ends)) == cloze.CHOICES
    assert {question.answer for question in made} == set(range(cloze.CHOICES))


@given(st.lists(st.text(max_size=200), max_size=12))
def test_any_text_makes_questions_or_none(texts: list[str]) -> None:
    for question in cloze.make(texts, 1, 4):
        assert len(question.ends) == cloze.CHOICES
        assert all(question.ends)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (japanese(1), "ja"),
        (english(1), "en"),
        ("", "en"),
        ("12.5 + 7", "en"),
        ("CAN信号の値", "ja"),
    ],
)
def test_a_text_is_in_the_language_of_most_of_its_letters(text: str, expected: str) -> None:
    assert cloze.language(text) == expected


def test_a_model_that_knows_the_sentences_finds_their_ends(tokenizer: Tokenizer) -> None:
    few = replace(SUITE, texts={"en": TEXTS["en"][:16]}, planted=Canaries())
    knows = examine(trained(tokenizer, TEXTS["en"][:16], 150), tokenizer, few, ARTIFACT).metrics
    fresh = examine(build(TINY, 3), tokenizer, few, ARTIFACT).metrics
    assert float(knows["cloze.en"]) > 0.8 > float(fresh["cloze.en"])
    assert float(knows["bits_per_byte"]) < float(fresh["bits_per_byte"])
    assert float(knows["cloze.en.low"]) <= float(knows["cloze.en"]) <= float(knows["cloze.en.high"])
    assert not [name for name in knows if name.startswith(("exposure", "cloze.ja", "series"))]


# the report


def test_a_report_names_what_was_asked_and_the_same_model_answers_the_same(
    tokenizer: Tokenizer,
) -> None:
    heard: list[str] = []
    model = build(TINY, 3)
    report = examine(model, tokenizer, SUITE, ARTIFACT, heard.append)
    assert report.to_bytes() == examine(model, tokenizer, SUITE, ARTIFACT).to_bytes()
    assert heard == ["ja", "en", "cloze", "canaries"]
    value = jcs.loads(report.to_bytes())
    assert isinstance(value, dict)
    assert (value["artifact"], value["suite_sha256"]) == (ARTIFACT, SUITE.digest)
    figures = {"bits_per_byte", "bits_per_byte.ja", "bits_per_byte.language.en.low", "cloze.ja"}
    assert figures <= report.metrics.keys()


def test_the_suites_digest_covers_everything_that_is_asked() -> None:
    header = Header(
        origin=Origin.SYNTHETIC,
        step_us=100_000,
        channels=(Channel(name="speed", unit="kph", low=0.0, high=1.0),),
    )
    changed = (
        replace(SUITE, texts={"ja": TEXTS["ja"]}),
        replace(SUITE, texts={**TEXTS, "en": TEXTS["en"][1:]}),
        replace(SUITE, series=[(header, np.zeros((4, 1), np.float32))]),
        replace(SUITE, series=[(header, np.ones((4, 1), np.float32))]),
        replace(SUITE, planted=Canaries(count=5)),
        replace(SUITE, window=WINDOW + 1),
        replace(SUITE, questions=9),
    )
    assert len({suite.digest for suite in (SUITE, *changed)}) == len(changed) + 1


def test_figures_fit_an_attestation_with_any_number_of_sources(tokenizer: Tokenizer) -> None:
    texts = {f"source-{n}": [english(n)] for n in range(40)}
    suite = replace(SUITE, texts=texts)
    metrics = examine(build(TINY, 3), tokenizer, suite, ARTIFACT).metrics
    assert len(metrics) < 40
    assert "bits_per_byte" in metrics


def test_nothing_held_out_is_an_error_by_name(tokenizer: Tokenizer) -> None:
    with pytest.raises(LocalFault) as caught:
        examine(build(TINY, 3), tokenizer, replace(SUITE, texts={}), ARTIFACT)
    assert caught.value.code == "RNM-DATA-0003"


@pytest.mark.parametrize(
    ("right", "asked", "low", "high"),
    # From Brown, Cai and DasGupta 2001 and by hand: 0 and all of 10, half of 20.
    [(0, 10, 0.0, 0.2775), (10, 10, 0.7225, 1.0), (10, 20, 0.2993, 0.7007)],
)
def test_the_interval_of_a_share_is_wilsons(
    right: int, asked: int, low: float, high: float
) -> None:
    assert wilson(right, asked) == pytest.approx((low, high), abs=1e-4)
