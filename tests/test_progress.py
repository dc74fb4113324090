"""Progress: times in words, bars on a terminal, lines of a log elsewhere."""

import io
import logging
import re

import pytest
from rich.console import Console

from cortado.progress import PAUSE, Lines, Terminal, times_text


@pytest.mark.parametrize(
    ("elapsed", "left", "wanted"),
    [
        (122.4, 40.0, "left 0:00:40, elapsed 0:02:02"),
        (3661.0, None, "left -:--:--, elapsed 1:01:01"),
        (None, None, "left -:--:--, elapsed -:--:--"),
    ],
)
def test_times_are_named_and_in_order(elapsed, left, wanted):
    assert times_text(elapsed, left) == wanted


def test_a_long_piece_of_work_says_how_far_it_is(caplog):
    now = [0.0]
    with caplog.at_level(logging.INFO, "cortado"), Lines(lambda: now[0]).bar("finetune", 100) as bar:
        for second in range(1, 51):
            now[0] = float(second)
            bar.advance()
    # Of 50 steps, one a second: a line every PAUSE seconds, half as much is left as was done of two thirds, and so on.
    assert PAUSE == 20.0
    assert caplog.messages == [
        "finetune: 20 of 100, left 0:01:20, elapsed 0:00:20",
        "finetune: 40 of 100, left 0:01:00, elapsed 0:00:40",
    ]


def test_work_of_unknown_length_says_what_is_done(caplog):
    now = [0.0]
    with caplog.at_level(logging.INFO, "cortado"), Lines(lambda: now[0]).bar("trials", 0) as bar:
        now[0] = 90.0
        bar.advance(3)
    assert caplog.messages == ["trials: 3, left -:--:--, elapsed 0:01:30"]


def test_short_work_says_nothing(caplog):
    with caplog.at_level(logging.DEBUG, "cortado"), Lines().bar("finetune", 2) as bar:
        bar.advance(2)
    assert caplog.messages == []


def test_bar_of_a_terminal_names_its_times():
    shown = Terminal().shown
    shown.live.console = console = Console(file=io.StringIO(), width=80, force_terminal=False)
    number = shown.add_task("finetune", total=4)
    shown.advance(number, 2)
    console.print(shown.get_renderable())
    line = console.file.getvalue()
    assert (
        re.search(r"finetune .* 50% left [-0-9:]{7}, elapsed 0:00:00$", line.rstrip()) and len(line.splitlines()) == 1
    )
