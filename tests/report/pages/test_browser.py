"""The page in a real browser: no complaint in its console, every mark inside its axes, texts on pointing, nothing too wide."""

import dataclasses
import shutil

import pytest

from cortado.report.candidate import Tried
from cortado.report.pages.html import report_html
from cortado.report.report import Clock, Line, Ratio, Stage, Time
from tests.report.pages.chromium import NAMES, Chromium, browser_path
from tests.report.pages.conftest import make_report

pytestmark = pytest.mark.skipif(browser_path() is None, reason=f"no browser is installed: none of {', '.join(NAMES)}")
LINE = " | ".join(f"share/kmeans where=features.{at}.conv.weight bits=2" for at in range(30))
FRONT = tuple(
    Tried(f"{LINE} | finetune epochs=2", 9_000 + 7_000 * at * at, 95.0 + 0.7 * at - (60 if at == 1 else 0), 2 <= at < 4, at == 2, 2.0)
    for at in range(6)
)  # fmt: skip
ONE = Ratio(1.0, 0.9, 1.1)
TIMES = tuple(
    Time(name, "torch_eager_with_a_long_name", 2.0, 1.9, 2.1, ONE, ONE, ONE) for name in ("original", "compressed")
)
WIDE = """
[...document.querySelectorAll('body *')].filter(one => {
  const box = one.getBoundingClientRect();
  return box.width && (box.right > innerWidth + 0.5 || box.left < -0.5) && !one.closest('.scroll, pre, .tip');
}).map(one => one.outerHTML.slice(0, 80))
"""
MARKS = """
(() => {
  const plot = document.querySelector('.plot').getBoundingClientRect();
  return [...document.querySelectorAll('.mark')].map(one => {
    const box = one.getBoundingClientRect();
    return {kind: one.className, x: box.x + box.width / 2 - plot.x, y: box.y + box.height / 2 - plot.y,
            wide: plot.width, tall: plot.height, said: one.getAttribute('aria-label')};
  });
})()
"""
SHOWN = """
[...document.querySelectorAll('.tip')].filter(one => getComputedStyle(one).visibility == 'visible').map(one => {
  const box = one.getBoundingClientRect();
  return {text: one.innerText, left: box.left, right: box.right, inside: innerWidth};
})
"""
CENTRE = """
(at => {
  const one = document.querySelectorAll('.mark')[at];
  one.scrollIntoView({block: 'center'});
  const box = one.getBoundingClientRect();
  return [box.x + box.width / 2, box.y + box.height / 2];
})(%d)
"""


@pytest.fixture(scope="module")
def browser():
    """One browser for all pages."""
    made = Chromium(browser_path())
    yield made
    made.close()


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """A report of a search, with much in it."""
    stages = tuple(
        Stage("share/kmeans", {"where": f"features.{at}.conv.weight"}, 98.3 - at / 20, 900_000 // (at + 1), 0.5, 2.0)
        for at in range(20)
    )
    last = dataclasses.replace(stages[-1], size_bytes=27_321)
    lines = (
        Line("size of the file", "B", 1_066_440, 27_321, "size <= 50 KB", True),
        Line("accuracy", "%", 98.36, 98.24, "score >= -2 %", True),
        Line("latency in torch_eager_with_a_long_name, batch 1, threads 1", "ms", 0.5, None),
    )
    clock = Clock(1, 1, 9, TIMES, "torch_eager_with_a_long_name", "torch_eager_with_a_long_name", ONE, True)
    report = make_report(front=FRONT, lines=lines, stages=(*stages[:-1], last), clocks=(clock,))
    path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_text(report_html(report), encoding="utf8")
    return path


@pytest.mark.parametrize("width", [1280, 400])
def test_page_fits_and_its_console_is_silent(browser, page, width):
    browser.open(page, width)
    assert browser.complaints == []
    assert browser.run("document.documentElement.scrollWidth") <= width
    assert browser.run(WIDE) == []


@pytest.mark.parametrize("width", [1280, 400])
def test_marks_lie_inside_the_axes_small_ones_on_the_left(browser, page, width):
    browser.open(page, width)
    marks = browser.run(MARKS)
    assert len(marks) == len(FRONT) + 1
    for one in marks:
        assert -0.5 <= one["x"] <= one["wide"] + 0.5 and -0.5 <= one["y"] <= one["tall"] + 0.5, one
    places = [one["x"] for one in marks[1:]]
    assert places == sorted(places) and places[0] < places[-1] < marks[0]["x"]


@pytest.mark.parametrize("width", [1280, 400])
def test_pointing_at_a_mark_shows_what_it_is(browser, page, width):
    browser.open(page, width)
    assert browser.run(SHOWN) == []
    for at in (0, 1, len(FRONT)):
        browser.point(*browser.run(CENTRE % at))
        (tip,) = browser.run(SHOWN)
        said = browser.run(MARKS)[at]["said"]
        assert tip["text"].replace("\n", ". ") == said and ("KB" in said or "MB" in said)
        assert tip["left"] >= 0 and tip["right"] <= tip["inside"]


def test_a_mark_can_be_reached_by_keys(browser, page):
    browser.open(page, 1280)
    browser.run("document.querySelectorAll('.mark')[0].focus()")
    assert [one["text"].split("\n")[0] for one in browser.run(SHOWN)] == ["original network"]
    browser.press("Tab")
    assert browser.run("document.activeElement == document.querySelectorAll('.mark')[1]")
    (tip,) = browser.run(SHOWN)
    assert tip["text"].startswith("1: missed a limit")


def test_labels_do_not_lie_on_one_another(browser, page):
    """The numbers of one axis, and the bars of a stage beside its numbers."""
    script = """
    (() => {
      const wrong = [];
      for (const group of ['.tick.down', '.scale', '.tick.side']) {
        const sets = group == '.scale' ? [...document.querySelectorAll('.scale')].map(one => [...one.children])
                                       : [[...document.querySelectorAll(group)]];
        for (const set of sets) for (let i = 1; i < set.length; i++) {
          const a = set[i - 1].getBoundingClientRect(), b = set[i].getBoundingClientRect();
          if (a.left < b.right && b.left < a.right && a.top < b.bottom && b.top < a.bottom) wrong.push(set[i].innerText);
        }
      }
      return wrong;
    })()
    """
    for width in (1280, 400):
        browser.open(page, width)
        assert browser.run(script) == []


def test_the_check_can_fail(browser, page, tmp_path):
    """A page that is too wide, and one whose script fails, are found."""
    bad = tmp_path / "bad.html"
    shutil.copy(page, bad)
    bad.write_text(
        bad.read_text().replace("</main>", "<p style='width:2000px'>x</p><script>nothing.here()</script></main>")
    )
    browser.open(bad, 400)
    assert browser.complaints and browser.run("document.documentElement.scrollWidth") > 400 and browser.run(WIDE)
