"""Front: one line of text stands for a recipe: read again, it is the same recipe."""

import pytest

from cortado.engine.recipe import read
from cortado.planner.search.front import tried
from cortado.planner.search.trials import Trial

LINES = (
    "quantize/weights bits=3 where=conv1.weight | prune/weights keep=0.1 where=conv*, not conv1 | finetune epochs=2.5 teacher=0.5",
    "share/kmeans bits=2 conv_bits=3 | finetune epochs=1 | finetune epochs=0.5 precision=float32",
    "match_moments",
    "prune/channels keep=0.5 | distill/logits epochs=3",
)


def row(recipe):
    return tried(Trial(read(recipe).as_data(), "", 100, 97.5), False)


@pytest.mark.parametrize("line", LINES)
def test_line_is_the_recipe(line):
    data = read(line).as_data()
    assert read(row(line).recipe).as_data() == data


def test_line_leaves_out_what_is_so_anyway():
    assert row("quantize/weights bits=3").recipe == "quantize/weights bits=3"
    assert "keep=0.1" in row("prune/weights keep=0.1").recipe and "by=" not in row("prune/weights keep=0.1").recipe


def test_epochs_are_of_all_stages_that_train():
    assert [row(line).epochs for line in LINES] == [2.5, 1.5, 0.0, 3.0]
    rounds = [{"repeat": {"times": 3, "do": [{"prune/weights": {"keep": 0.5}}, {"finetune": {"epochs": 2}}]}}]
    assert row(rounds).recipe == " | ".join(["prune/weights | finetune epochs=2.0"] * 3)
    assert row(rounds).epochs == 6
