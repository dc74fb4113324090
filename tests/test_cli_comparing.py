"""The command compare: recipes by name, several seeds, a table, reports and charts."""

import json
from xml.etree import ElementTree

import pytest

from tests.test_cli import cortado, here

__all__ = ["here"]
TWO = (
    "--recipe",
    "baseline=quantize/weights bits=2",
    "--recipe",
    "mine=prune/weights keep=0.5 | quantize/weights bits=4",
)


def test_recipes_are_compared_over_seeds(here):
    done = cortado("compare", "tiny_job:make", *TWO, "--seeds", "0,1", "--out", "out", "--measure-in", "torch_eager")
    assert done.exit_code == 0, done.output
    assert "minus baseline" in done.stdout and "Means over 2 seeds" in done.stdout and "latency" in done.stdout
    for name in ("baseline", "mine"):
        reports = [json.loads((here / "out" / name / str(seed) / "report.json").read_text()) for seed in (0, 1)]
        assert [one["seed"] for one in reports] == [0, 1]
    for chart in ("size", "latency"):
        assert f"out/{chart}.svg" in done.stdout
        ElementTree.parse(here / "out" / f"{chart}.svg")
    assert len([line for line in done.stderr.splitlines() if line.startswith("stage ")]) == 6
    again = cortado("compare", "tiny_job:make", *TWO, "--seeds", "0,1", "--out", "out", "--resume")
    assert again.exit_code == 0 and not [line for line in again.stderr.splitlines() if line.startswith("stage ")]


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (("--recipe", "quantize/weights"), "has no name. Write NAME=RECIPE"),
        (("--recipe", "prune/weights keep=0.3"), "has no name. Write NAME=RECIPE"),
        (("--recipe", "a=quantize/weights", "--recipe", "a=share/kmeans"), "two recipes are called 'a'"),
        (("--recipe", "a=quantize/weights", "--seeds", "one"), "--seeds is a list of whole numbers"),
        (("--recipe", "a=quantize/weights", "--seeds", "1,1"), "seeds must be different whole numbers"),
    ],
)
def test_what_cannot_be_compared_is_a_sentence(here, given, says):
    done = cortado("compare", "tiny_job:make", *given, "--out", "out")
    assert done.exit_code == 1 and says in done.stderr, done.output
