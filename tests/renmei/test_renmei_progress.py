"""Progress: rate and ETA from the clock that was passed, one line on a terminal, few lines off it."""

from io import StringIO

import pytest

from renmei.progress import ProgressLine, duration, fit, width


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def line(clock: Clock, stream: StringIO, *, terminal: bool, total: float = 100) -> ProgressLine:
    return ProgressLine(
        "train", total, stream=stream, clock=clock, terminal=terminal, columns=60, unit="steps"
    )


def test_the_eta_is_what_is_left_at_the_mean_rate() -> None:
    clock, stream = Clock(), StringIO()
    progress = line(clock, stream, terminal=False)
    clock.now += 10
    progress.advance(25)
    assert "25%" in stream.getvalue()
    assert "2.5 steps/s" in stream.getvalue()
    assert "ETA 30s" in stream.getvalue()


def test_off_a_terminal_plain_lines_come_every_few_seconds_at_most() -> None:
    clock, stream = Clock(), StringIO()
    progress = line(clock, stream, terminal=False)
    for _ in range(100):
        clock.now += 0.2
        progress.advance()
    progress.close()
    text = stream.getvalue()
    assert "\r" not in text
    assert "\x1b" not in text
    assert text.count("\n") == 1 + 20 // 5 + 1


def test_on_a_terminal_one_line_is_rewritten_and_never_wraps() -> None:
    clock, stream = Clock(), StringIO()
    progress = line(clock, stream, terminal=True)
    for _ in range(50):
        clock.now += 0.2
        progress.advance(1, note="損失" * 40)
    text = stream.getvalue()
    assert "\n" not in text
    for drawn in text.split("\r\x1b[2K")[1:]:
        assert width(drawn) < 60
    progress.close()
    assert stream.getvalue().endswith("\n")


def test_a_step_of_unknown_length_shows_no_percentage_and_no_eta() -> None:
    clock, stream = Clock(), StringIO()
    progress = line(clock, stream, terminal=False, total=0)
    clock.now += 6
    progress.advance(12)
    assert "%" not in stream.getvalue()
    assert "ETA" not in stream.getvalue()


def test_more_than_the_total_never_shows_more_than_all() -> None:
    clock = Clock()
    progress = line(clock, StringIO(), terminal=False, total=10)
    clock.now += 1
    progress.advance(20)
    assert "100%" in progress.render(clock.now)
    assert "ETA" not in progress.render(clock.now)


def test_a_second_close_writes_nothing() -> None:
    clock, stream = Clock(), StringIO()
    progress = line(clock, stream, terminal=False)
    progress.close()
    before = stream.getvalue()
    progress.close()
    assert stream.getvalue() == before


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0s"), (59.4, "59s"), (59.6, "1m00s"), (65, "1m05s"), (7620, "2h07m")],
)
def test_durations_are_short(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize("columns", range(2, 12))
def test_a_cut_text_fits_even_with_wide_characters(columns: int) -> None:
    assert width(fit("学習trainの途中", columns)) <= columns
