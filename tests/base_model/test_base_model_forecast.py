import numpy as np
import pytest
import torch
from tokenizers import Tokenizer

from base_model import tokenizer as tokenizing
from base_model.forecast import ChannelError, compare, next_rows
from base_model.model import Size, build, make_loss
from base_model.series import (
    Channel,
    Header,
    Levels,
    Origin,
    Values,
    Vocabulary,
    cut,
    quantise,
    to_tokens,
)
from base_model.tokenizer import BOS, EOS, PAD, HeaderText

BINS = 32
X = Channel(name="X", unit="m", low=-1.0, high=1.0)
Y = Channel(name="Y", unit="deg", low=-10.0, high=10.0)
HEADER = Header(origin=Origin.SYNTHETIC, step_us=1000, channels=(X,))
TWO = Header(origin=Origin.SYNTHETIC, step_us=1000, channels=(X, Y))


@pytest.fixture(scope="module")
def words(tokenizer: Tokenizer) -> Tokenizer:
    own = Tokenizer.from_str(tokenizer.to_str())
    own.encode_special_tokens = True
    tokenizing.with_series(own, BINS)
    return own


@pytest.fixture(scope="module")
def vocabulary(words: Tokenizer) -> Vocabulary:
    found = tokenizing.series_vocabulary(words)
    assert found is not None
    return found


@pytest.fixture(scope="module")
def text(words: Tokenizer) -> HeaderText:
    return HeaderText(words)


def wave(rows: int, phase: float) -> Values:
    """A quick oscillation: the last value and the line through two are bad guesses of the next."""
    return (0.9 * np.sin(2 * np.pi * np.arange(rows) / 7.3 + phase))[:, None]


def spy(seen: list[Levels], vocabulary: Vocabulary, bin_: int):
    def predict(tokens: Levels):
        seen.append(tokens)
        logits = np.zeros((len(tokens), vocabulary.first + vocabulary.size))
        logits[:, vocabulary.first + vocabulary.size - vocabulary.bins + bin_] = 50.0
        return logits

    return predict


def test_a_model_that_learnt_a_series_beats_persistence_and_the_line(
    vocabulary: Vocabulary, text: HeaderText
) -> None:
    rng = np.random.default_rng(5)
    pieces = [
        piece
        for _ in range(24)
        for piece in cut(quantise(wave(96, rng.uniform(0, 7)), HEADER, bins=BINS), 24)
    ]
    rows = [[BOS, *to_tokens(piece, vocabulary, text), EOS] for piece in pieces]
    longest = max(map(len, rows))
    tokens = torch.tensor([row + [PAD] * (longest - len(row)) for row in rows])
    net = build(
        Size(
            vocabulary=vocabulary.first + vocabulary.size,
            hidden=48,
            layers=2,
            feed_forward=96,
            heads=2,
            key_value_heads=1,
            head_dim=24,
        ),
        seed=1,
    )
    loss_of = make_loss(net, compile_=False)
    stepper = torch.optim.AdamW(net.parameters(), lr=4e-3)
    draw = torch.Generator().manual_seed(2)
    for _ in range(200):
        loss_of(tokens[torch.randint(len(tokens), (16,), generator=draw)]).backward()
        stepper.step()
        stepper.zero_grad()
    net.eval()

    def predict(prompts: Levels):
        begun = np.concatenate([np.full((len(prompts), 1), BOS), prompts], axis=1)
        with torch.inference_mode():
            return net(torch.from_numpy(begun)).logits[:, -1].float().numpy()

    (errors,) = compare(wave(120, 1.234), HEADER, predict, vocabulary, text, context=16)
    print(errors.to_text())
    assert errors.points == 104
    assert errors.best == "model"
    assert errors.model < 0.5 * errors.line
    assert errors.model < 0.5 * errors.persistence
    assert all(figure in errors.to_text() for figure in ("model", "persistence", "line", " m "))


def test_where_persistence_is_best_it_is_said(vocabulary: Vocabulary, text: HeaderText) -> None:
    walk = np.cumsum(np.random.default_rng(0).normal(0, 0.01, 80))[:, None]
    (errors,) = compare(walk, HEADER, spy([], vocabulary, 0), vocabulary, text, context=4)
    assert errors.best == "persistence"
    assert "best: persistence" in errors.to_text()
    assert errors.persistence == pytest.approx(np.abs(np.diff(walk[3:, 0])).mean())
    assert errors.line == pytest.approx(np.abs(np.diff(walk[2:, 0], 2)).mean())


def test_a_draw_is_not_the_models(vocabulary: Vocabulary) -> None:
    figures = {"model": 1.0, "persistence": 1.0, "line": 2.0}
    errors = ChannelError(
        name="X", unit="m", points=1, resolution=0.1, clipped=0, gaps=0, **figures
    )
    assert errors.best == "persistence"


def test_a_forecast_never_sees_its_own_row(vocabulary: Vocabulary, text: HeaderText) -> None:
    values = np.concatenate([wave(9, 0), 9 * wave(9, 1)], axis=1)
    series = quantise(values, TWO, bins=BINS)
    seen: list[Levels] = []
    found = next_rows(series, spy(seen, vocabulary, 5), vocabulary, text, context=4)
    assert found.shape == (5, 2)
    whole = to_tokens(series, vocabulary, text)
    opening = len(whole) - 1 - series.levels.size
    first, second = seen
    for at in range(5):
        # The four rows before it, and for the second channel what the model itself said of the first.
        rows = whole[opening + 2 * at : opening + 2 * (at + 4)]
        assert first[at].tolist() == whole[:opening] + rows
        assert second[at].tolist() == [*first[at], *vocabulary.tokens(np.array([5]))]


def test_points_with_a_gap_count_for_nobody_and_clipping_is_said(
    vocabulary: Vocabulary, text: HeaderText
) -> None:
    values = wave(40, 0)
    values[20], values[30] = np.nan, 5.0
    (errors,) = compare(values, HEADER, spy([], vocabulary, 3), vocabulary, text, context=4)
    # The gap itself, and the two rows whose baselines need it.
    assert errors.points == 36 - 3
    assert (errors.clipped, errors.gaps) == (1, 1)
    # Judged against the value as it was, not as it was clipped.
    assert errors.model > 5 / 36


@pytest.mark.parametrize(("rows", "context"), [(10, 1), (4, 4)])
def test_too_little_to_judge_is_refused(
    vocabulary: Vocabulary, text: HeaderText, rows: int, context: int
) -> None:
    with pytest.raises(ValueError, match="two rows"):
        compare(wave(rows, 0), HEADER, spy([], vocabulary, 0), vocabulary, text, context=context)
