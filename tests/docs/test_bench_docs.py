"""The pages that bench/docs.py writes, from results made up here and from the real code."""

from typing import Any

import pytest

from bench import docs
from bench.result import row
from tests.docs.blocks import ROOT


def stored(name: str, rows: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "id": name, "command": f"python -m bench {name} --seeds 0,1", "seeds": [0, 1], "date": "2026-01-02",
        "machine": {"processor": "Abacus", "cores": 2, "threads": 1}, "versions": {"torch": "9.9"},
        "minutes": 1.5, "rows": rows,
    }  # fmt: skip


GOOD = stored("good", [row("size", 1234567, "B", 2e6, source_value="2 MB (Han, 2016)"), row("time", 3.25, "min")])
BAD = stored("bad", [row("first", 10, "B", 20), row("score | a", 91.234, "%", 92, "higher"), row("lost", None, "B", 1)])


def test_results_begin_with_the_missed_bars() -> None:
    page = docs.results_page([GOOD, BAD])
    head, _, rest = page.partition("## good")
    assert "| bad | score \\| a | 91.23 % | `>= 92` | MISSED |  |" in head
    assert "| bad | lost | unknown B | `<= 1` | MISSED |  |" in head
    assert "first" not in head
    assert "| size | 1,234,567 B | `<= 2,000,000` | met | 2 MB (Han, 2016) |" in rest
    assert "| time | 3.25 min |  |  |  |" in rest


def test_results_say_how_to_measure_again() -> None:
    page = docs.results_page([BAD])
    assert "`python -m bench bad --seeds 0,1`, seeds 0, 1, 2026-01-02, 1.5 minutes on Abacus, " in page
    assert "2 cores, 1 threads; torch 9.9." in page
    assert "3 bars, 2 missed." in page


def test_results_say_none_when_no_bar_is_missed() -> None:
    assert "## Missed bars\n\nNone." in docs.results_page([GOOD])


def test_figures_list_benches_that_miss_a_bar_and_those_that_miss_none() -> None:
    text = docs.figures([BAD, GOOD])
    assert text.startswith("4 bars, 2 met.") and "All bars met: [good](docs/results.md#good) (1)." in text
    assert "Missed bars: [bad](docs/results.md#bad) (2 of 3)." in text
    assert "Missed bars: none." in docs.figures([GOOD])


def test_benches_without_bars_are_not_figures() -> None:
    many = stored("many", [row(f"row {number}", 2, "B", 1) for number in range(5)])
    text = docs.figures([many, stored("none", [row("size", 2, "B")])])
    assert "(5 of 5)" in text and "#none" not in text


def test_figures_stand_between_their_marks() -> None:
    page = f"before\n{docs.BEGIN}\nold\n{docs.END}\nafter"
    made = docs.with_figures(page, [GOOD])
    assert made.startswith("before\n") and made.endswith("\nafter") and "old" not in made and "#good) (1)" in made
    assert docs.with_figures(made, [GOOD]) == made


def test_figures_are_refused_without_marks() -> None:
    with pytest.raises(ValueError, match="must hold"):
        docs.with_figures("no marks", [GOOD])


def test_readme_holds_the_marks_in_order() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf8")
    assert 0 < text.index(docs.BEGIN) < text.index(docs.END)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "unknown"),
        (0, "0"),
        (521325, "521,325"),
        (0.9935, "0.9935"),
        (21.0113, "21.01"),
        (1683671.4, "1,683,671"),
    ],
)
def test_number_has_no_exponent(value: float | None, text: str) -> None:
    assert docs.number(value) == text


def test_committed_page_of_methods_is_what_the_code_says() -> None:
    assert (ROOT / "docs" / "methods.md").read_text(encoding="utf8") == docs.methods_page(), "run: make docs"
