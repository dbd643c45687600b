from contextlib import suppress
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from tokenizers import Tokenizer

from base_model import series
from base_model import tokenizer as tokenizing
from base_model.series import (
    ABOVE,
    BELOW,
    GAP,
    Channel,
    Header,
    Origin,
    Quantised,
    Vocabulary,
    fitted,
    from_tokens,
    on_grid,
    parse_header,
    quantise,
    to_tokens,
)
from fedproto.errors import LocalFault

SPEED = Channel(name="SPEED", unit="km/h", low=0.0, high=250.0)
ANGLE = Channel(name="STEER_ANGLE", unit="deg", low=-500.0, high=500.0)
TEMPERATURE = Channel(name="COOLANT", unit="°C", low=90.0, high=90.0)
HEADER = Header(origin=Origin.SYNTHETIC, step_us=20_000, channels=(SPEED, ANGLE, TEMPERATURE))


@pytest.fixture(scope="module")
def words(tokenizer: Tokenizer) -> Tokenizer:
    own = Tokenizer.from_str(tokenizer.to_str())
    own.encode_special_tokens = True
    tokenizing.with_series(own)
    return own


@pytest.fixture(scope="module")
def vocabulary(words: Tokenizer) -> Vocabulary:
    found = tokenizing.series_vocabulary(words)
    assert found is not None
    return found


@pytest.fixture(scope="module")
def text(words: Tokenizer) -> tokenizing.HeaderText:
    return tokenizing.HeaderText(words)


def some_values(rows: int = 50) -> np.ndarray:
    at = np.arange(rows)
    return np.stack([100 + 50 * np.sin(at / 9), 300 * np.cos(at / 5), np.full(rows, 90.0)], axis=1)


channels = st.builds(
    lambda low, span: (low, low + span),
    st.floats(-1e9, 1e9),
    st.floats(1e-3, 1e9) | st.just(0.0),
)


@given(channels, st.integers(1, 60), st.data())
def test_a_value_comes_back_within_half_a_bin_or_is_marked(
    words: Tokenizer,
    vocabulary: Vocabulary,
    text: tokenizing.HeaderText,
    scale: tuple[float, float],
    rows: int,
    data: st.DataObject,
) -> None:
    low, high = scale
    channel = Channel(name="X", unit="m", low=low, high=high)
    header = Header(origin=Origin.RECORDED, step_us=1, channels=(channel,))
    span = (high - low) or 1.0
    values = data.draw(
        hnp.arrays(np.float64, (rows, 1), elements=st.floats(low - span / 4, high + span / 4))
        | hnp.arrays(np.float64, (rows, 1), elements=st.floats(allow_nan=True))
    )
    made = quantise(values, header)
    tokens = to_tokens(made, vocabulary, text)
    read = from_tokens(tokens, vocabulary, text)
    assert read.header == header
    back = read.values
    gap, off = np.isnan(values), (values < low) | (values > high)
    assert read.gaps == {"X": int(gap.sum())}
    assert read.clipped == {"X": int(off.sum())}
    assert np.array_equal(np.isnan(back), gap)
    inside = ~gap & ~off
    slack = 4 * np.spacing(max(abs(low), abs(high)))
    assert np.all(np.abs(back - values)[inside] <= channel.width(vocabulary.bins) / 2 + slack)
    assert np.all(np.isin(back[off], (low, high)))
    # What is accepted is written again as it was.
    assert to_tokens(read, vocabulary, text) == tokens


@given(st.data())
def test_tokens_that_are_accepted_have_one_form(
    vocabulary: Vocabulary, text: tokenizing.HeaderText, data: st.DataObject
) -> None:
    tokens = to_tokens(quantise(some_values(6), HEADER), vocabulary, text)
    top = vocabulary.first + vocabulary.size
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, len(tokens) - 1))
        kind = data.draw(st.sampled_from(["change", "drop", "insert"]))
        new = [data.draw(st.integers(0, top + 3))]
        tokens[place : place + (kind != "insert")] = [] if kind == "drop" else new
    # Anything but a named refusal fails here.
    with suppress(LocalFault):
        assert to_tokens(from_tokens(tokens, vocabulary, text), vocabulary, text) == tokens


def test_a_constant_comes_back_exactly_and_anything_else_is_off_its_scale() -> None:
    header = replace(HEADER, channels=(TEMPERATURE,))
    made = quantise(np.array([[90.0], [90.5], [89.0], [np.nan]]), header)
    assert made.levels.ravel().tolist() == [0, ABOVE, BELOW, GAP]
    assert made.values[0, 0] == 90.0


def test_clipped_values_are_counted_by_channel_and_infinity_is_one() -> None:
    values = some_values(4)
    values[0, 0], values[1, 0], values[2, 1] = 400.0, np.inf, -np.inf
    made = quantise(values, HEADER)
    assert made.clipped == {"SPEED": 2, "STEER_ANGLE": 1, "COOLANT": 0}
    assert made.values[1, 0] == 250.0


def test_the_end_of_a_scale_belongs_to_it() -> None:
    header = replace(HEADER, channels=(SPEED,))
    made = quantise(np.array([[0.0], [250.0]]), header)
    assert made.levels.ravel().tolist() == [0, series.BINS - 1]


MALFORMED = {
    "begin": (lambda t, v: t[1:], "begin with <series>"),
    "empty": (lambda t, v: [], "begin with <series>"),
    "cut": (lambda t, v: t[:-1], "end with </series>"),
    "follow": (lambda t, v: [*t, 5], "end with </series>"),
    "no values mark": (lambda t, v: [x for x in t if x != v.mark("<values>")], "no <values>"),
    "half a row": (lambda t, v: [*t[:-2], t[-1]], "not whole rows of 3"),
    "no row": (lambda t, v: [*t[: t.index(v.mark("<values>")) + 1], t[-1]], "0 values"),
    "text among values": (lambda t, v: [*t[:-2], 5, t[-1]], "stands for no value"),
    "mark among values": (lambda t, v: [*t[:-2], t[0], t[-1]], "stands for no value"),
    "past the last bin": (lambda t, v: [*t[:-2], v.first + v.size, t[-1]], "stands for no value"),
    "value in header": (lambda t, v: [t[0], t[-2], *t[1:]], "a token that is not text"),
    "header cut": (lambda t, v: [t[0], *t[3:]], "header"),
    "a mark of documents in the header": (lambda t, v: [t[0], 0, *t[1:]], "header"),
    "constant moves": (lambda t, v: [*t[:-2], t[-2] + 1, t[-1]], "constant COOLANT"),
}


@pytest.mark.parametrize("case", MALFORMED)
def test_a_malformed_sequence_is_refused_by_name(
    vocabulary: Vocabulary, text: tokenizing.HeaderText, case: str
) -> None:
    damage, why = MALFORMED[case]
    tokens = to_tokens(quantise(some_values(6), HEADER), vocabulary, text)
    with pytest.raises(LocalFault) as caught:
        from_tokens(damage(tokens, vocabulary), vocabulary, text)
    assert caught.value.code == "RNM-DATA-0004"
    assert why in caught.value.why


@pytest.mark.parametrize(
    "said",
    [
        "synthetic 20000 us",
        "guessed 20000 us\nX\tm\t0.0\t1.0",
        "recorded 0 us\nX\tm\t0.0\t1.0",
        "recorded 20_000 us\nX\tm\t0.0\t1.0",
        "recorded 20000 us\nX\tm\t0\t1.0",
        "recorded 20000 us\nX\tm\t1.0\t0.0",
        "recorded 20000 us\nX\tm\tnan\t1.0",
        "recorded 20000 us\nX\tm\t0.0\tinf",
        "recorded 20000 us\nX\tm\t0.0\t1.0\nX\tm\t0.0\t1.0",
        "recorded 20000 us\nX\tm\t0.0\t1.0\n",
        "recorded 20000 us\nX m\t0.0\t1.0",
        "",
    ],
)
def test_a_header_has_one_form(said: str) -> None:
    with pytest.raises(LocalFault) as caught:
        parse_header(said)
    assert caught.value.code == "RNM-DATA-0004"
    assert parse_header(HEADER.to_text()) == HEADER


def test_values_of_another_shape_and_scales_without_room_are_refused() -> None:
    narrow = Channel(name="X", unit="", low=1e16, high=1e16 + 4)
    thin = Header(origin=Origin.RECORDED, step_us=1, channels=(narrow,))
    for values, header in (
        (np.zeros((3, 2)), HEADER),
        (np.zeros((0, 3)), HEADER),
        (np.zeros((3, 1)), thin),
    ):
        with pytest.raises(LocalFault) as caught:
            quantise(values, header)
        assert caught.value.code == "RNM-DATA-0004"


def test_a_vocabulary_of_other_bins_is_refused(
    vocabulary: Vocabulary, text: tokenizing.HeaderText
) -> None:
    with pytest.raises(LocalFault):
        to_tokens(quantise(some_values(), HEADER, bins=16), vocabulary, text)


def test_samples_of_any_time_fall_on_a_grid_and_gaps_stay_gaps() -> None:
    times = np.array([100, 105, 109, 131, 132])
    values = np.array([[1.0, np.nan], [2.0, 7.0], [np.nan, 8.0], [4.0, 9.0], [5.0, np.nan]])
    grid = on_grid(times, values, 10)
    assert np.array_equal(
        grid, [[2, 8], [np.nan, np.nan], [np.nan, np.nan], [5, 9]], equal_nan=True
    )
    for bad in (times[::-1], times[:0], times * 10**9):
        with pytest.raises(LocalFault) as caught:
            on_grid(bad, values, 10)
        assert caught.value.code == "RNM-DATA-0004"


def test_a_scale_fits_what_was_seen_and_outliers_lie_beyond_it() -> None:
    values = np.append(np.linspace(0, 1, 999), [1e6, np.nan])
    channel = fitted("X", "m", values, tail=0.01)
    assert 0 < channel.low < 0.02
    assert 0.9 < channel.high < 1.0
    assert fitted("X", "m", values).high == 1e6
    with pytest.raises(LocalFault):
        fitted("X", "m", np.array([np.nan]))


def test_a_text_that_spells_a_token_of_series_makes_none(
    words: Tokenizer, vocabulary: Vocabulary
) -> None:
    ids = words.encode("<series> <bin 3> </series>").ids
    assert max(ids) < vocabulary.first
    assert words.token_to_id("<bin 255>") == vocabulary.first + vocabulary.size - 1


def test_a_series_survives_the_files_of_a_release(
    words: Tokenizer, vocabulary: Vocabulary, text: tokenizing.HeaderText, tmp_path
) -> None:
    tokens = to_tokens(quantise(some_values(), HEADER), vocabulary, text)
    tokenizing.save(words, tmp_path)
    again = tokenizing.load(tmp_path)
    assert tokenizing.series_vocabulary(again) == vocabulary
    read = from_tokens(tokens, vocabulary, tokenizing.HeaderText(again))
    assert isinstance(read, Quantised)
    assert np.array_equal(read.levels, quantise(some_values(), HEADER).levels)
    assert (
        tokenizing.series_vocabulary(Tokenizer.from_str(tokenizing.train(["a"], 300).to_str()))
        is None
    )
