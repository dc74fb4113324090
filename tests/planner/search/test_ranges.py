"""Ranges: what knobs may be, read from one line, YAML and Python; refused in words where it cannot be."""

import pytest

from cortado.errors import BadRecipe, BadValue
from cortado.methods.prune.weights import PruneWeights
from cortado.planner.search.ranges import read_ranged

LINE = "prune/channels keep=0.4..0.8 multiple=1..64 | quantize/weights bits=3,4,6 symmetric=.. | finetune lr=1e-4..1e-2"


def test_one_line_names_each_range():
    ranged = read_ranged(LINE)
    keep, multiple, bits, symmetric, lr = ranged.ranges
    assert keep.name == "1 prune/channels keep" and (keep.low, keep.high, keep.whole) == (0.4, 0.8, False)
    assert multiple.whole and multiple.even_ratios and lr.even_ratios and not keep.even_ratios
    assert bits.one_of == (3, 4, 6) and symmetric.one_of == (False, True)


def test_recipe_at_a_point_has_its_values_and_nothing_else():
    ranged = read_ranged(LINE)
    values = dict(zip((one.name for one in ranged.ranges), (0.512345678, 8, 6, True, 1.23456789e-3), strict=True))
    channels, weights, finetune = ranged.at(values).stages
    assert (channels.keep, channels.multiple, weights.bits, weights.symmetric) == (0.5123, 8, 6, True)
    assert finetune.lr == 1.235e-3 and finetune.epochs == 1.0


def test_rounding_stays_within_the_ends():
    (keep,) = read_ranged("prune/weights keep=0.12345..0.123456").ranges
    assert keep.value(0.12345) == 0.12345 and keep.value(0.1234559999) == 0.123456
    assert 0.123453 < keep.value(0.1234531234) < 0.123454


def test_ends_left_out_are_the_knobs_own():
    low, high, all_of_it, names = read_ranged(
        "prune/weights keep=..0.5 | prune/weights keep=0.5.. | quantize/weights bits=.. per=.."
    ).ranges
    assert (low.low, low.high, high.low, high.high) == (0.0, 0.5, 0.5, 1.0)
    assert (all_of_it.low, all_of_it.high, all_of_it.whole) == (1, 8, True)
    assert names.one_of == ("tensor", "channel", "group")


def test_yaml_and_python_say_the_same_as_one_line(tmp_path):
    path = tmp_path / "wide.yaml"
    path.write_text(
        "match_moments: false\nstages:\n- prune/weights: {keep: 0.4..0.8, by: [magnitude, taylor]}\n- finetune\n"
    )
    ranged = read_ranged(str(path))
    line = read_ranged("prune/weights keep=0.4..0.8 by=[magnitude, taylor] | finetune")
    assert (
        ranged.ranges
        == line.ranges
        == read_ranged([{"prune/weights": {"keep": "0.4..0.8", "by": ["magnitude", "taylor"]}}, "finetune"]).ranges
    )
    made = ranged.at({one.name: one.one_of[1] if one.one_of else 0.5 for one in ranged.ranges})
    assert made.match_moments is False and made.name == "wide" and made.stages[0].by == "taylor"


def test_ranges_in_a_repeat_are_drawn_once_for_all_rounds():
    stages = [
        {"repeat": {"times": 2, "do": [{"prune/weights": {"keep": [0.8, 0.5]}}, {"finetune": {"lr": "1e-4..1e-2"}}]}}
    ]
    ranged = read_ranged(stages)
    assert [one.name for one in ranged.ranges] == ["1.2 finetune lr"]
    found = ranged.at({"1.2 finetune lr": 1e-3}).stages
    assert [stage.keep for stage in found[::2]] == [0.8, 0.5] and [stage.lr for stage in found[1::2]] == [1e-3, 1e-3]


def test_patterns_with_commas_are_no_ranges():
    ranged = read_ranged("prune/weights keep=0.2..0.4 where=conv*, not conv1")
    assert len(ranged.ranges) == 1 and ranged.at({"1 prune/weights keep": 0.3}).stages[0].where == "conv*, not conv1"


@pytest.mark.parametrize(
    ("source", "error", "says"),
    [
        ("prune/weights keep=0.3", BadRecipe, "has no ranges"),
        ([PruneWeights(keep=0.3)], BadRecipe, "has no ranges"),
        ("prune/weights keep=0.4..1.8", BadValue, r"1 prune/weights keep must be in 0..1, got 0.4..1.8"),
        ("prune/weights keep=0.8..0.4", BadRecipe, "Write the lower one first"),
        ("quantize/weights bits=2.5..4", BadRecipe, "Write whole numbers"),
        ("quantize/weights bits=3,9", BadValue, "must be in 1..8, got 9"),
        ("quantize/weights bits=3,3", BadRecipe, "has one value"),
        ("quantize/weights per=tensor,row", BadValue, "cannot be 'row'"),
        ("quantize/weights per=1..2", BadRecipe, "one of a few values"),
        ("finetune lr=..", BadRecipe, "has no largest value of its own"),
        ("finetune lrr=1e-4..1e-2", BadRecipe, "did you mean 'lr'"),
        (7, BadRecipe, "a recipe is a file"),
    ],
)  # fmt: skip
def test_ranges_that_cannot_be_are_refused(source, error, says):
    with pytest.raises(error, match=says):
        read_ranged(source)
