from math import log

import pytest
import torch
from base_kit import TINY, some_documents
from tokenizers import Tokenizer

from base_model.evaluate import (
    DocumentScore,
    bits_per_byte,
    bootstrap_difference,
    bootstrap_interval,
    score,
)
from base_model.model import build
from base_model.tokenizer import BOS, EOS
from fedproto.errors import LocalFault

TEXTS = [document.text for document in some_documents()[:12]] + ["x", "長い文書です。" * 30]


def test_a_score_is_the_sum_of_each_tokens_nats(tokenizer: Tokenizer) -> None:
    model = build(TINY, 0).eval()
    ids = torch.tensor([[BOS, *tokenizer.encode("BO_ 12").ids, EOS]])
    with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16):
        logits = model(input_ids=ids).logits.float()
    expected = torch.nn.functional.cross_entropy(logits[0, :-1], ids[0, 1:], reduction="sum")
    (got,) = score(model, tokenizer, ["BO_ 12"], window=64)
    assert got.bytes == 6
    assert got.nats == pytest.approx(expected.item(), rel=2e-3)
    assert bits_per_byte([got]) == pytest.approx(got.nats / 6 / log(2))


def test_a_score_does_not_depend_on_its_neighbours(tokenizer: Tokenizer) -> None:
    model = build(TINY, 0)
    together = score(model, tokenizer, TEXTS, window=32, batch=5)
    alone = [score(model, tokenizer, [text], window=32, batch=1)[0] for text in TEXTS]
    assert [s.bytes for s in together] == [len(text.encode()) for text in TEXTS]
    assert [s.nats for s in together] == pytest.approx([s.nats for s in alone], rel=2e-3)


def test_scoring_leaves_the_model_in_its_mode(tokenizer: Tokenizer) -> None:
    model = build(TINY, 0).train()
    score(model, tokenizer, ["x"], window=8)
    assert model.training


@pytest.mark.parametrize("scores", [[], [DocumentScore(0.0, 0)]])
def test_nothing_to_evaluate_is_named(scores: list[DocumentScore]) -> None:
    with pytest.raises(LocalFault) as caught:
        bits_per_byte(scores)
    assert caught.value.code == "RNM-DATA-0003"


def arms() -> tuple[list[DocumentScore], list[DocumentScore]]:
    """Documents of very different difficulty; the second arm is 5 % better on each."""
    first = [DocumentScore(100.0 * (1 + n % 9), 200) for n in range(60)]
    return first, [DocumentScore(s.nats * 0.95, s.bytes) for s in first]


def test_an_interval_repeats_with_its_seed_and_holds_the_value() -> None:
    first, _ = arms()
    low, high = bootstrap_interval([first], 7)
    assert (low, high) == bootstrap_interval([first], 7)
    assert (low, high) != bootstrap_interval([first], 8)
    assert low < bits_per_byte(first) < high


def test_an_interval_narrows_with_a_lower_level_and_more_documents() -> None:
    first, _ = arms()

    def width(scores: list[DocumentScore], level: float = 0.95) -> float:
        low, high = bootstrap_interval([scores], 7, level=level)
        return high - low

    assert width(first, 0.5) < width(first)
    assert width(first * 9) < width(first) / 2


def test_a_paired_difference_sees_what_two_intervals_hide() -> None:
    first, second = arms()
    assert bootstrap_interval([second], 7)[1] > bootstrap_interval([first], 7)[0]
    low, high = bootstrap_difference([first], [second], 7)
    assert 0 < low < high


def test_a_paired_difference_of_other_documents_is_refused() -> None:
    first, second = arms()
    with pytest.raises(ValueError, match="same documents"):
        bootstrap_difference([first], [second[1:]], 7)
