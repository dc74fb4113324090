"""Compared recipes: every seed of every recipe is a run of its own, differences are seed by seed, and charts have all of them."""

from dataclasses import replace
from statistics import mean, stdev
from xml.etree import ElementTree

import pytest
import torch

import cortado
from cortado.errors import BadValue
from tests.laws.tiny_nets import BY_NAME

NET = BY_NAME["mlp"]
TRAINED = "finetune epochs=1 lr=3e-3 | quantize/weights bits=4"
RECIPES = {"baseline": "quantize/weights bits=2", "mine": TRAINED}


@pytest.fixture(scope="module")
def found():
    return cortado.compare_recipes(NET.make(), NET.task(), RECIPES, seeds=(0, 3), limits=["score >= -100 %"])


def test_each_run_is_the_run_of_its_seed(found):
    assert list(found.reports) == ["baseline", "mine"] and found.base == "baseline"
    _, alone = cortado.compress(NET.make(), replace(NET.task(), seed=3), TRAINED)
    assert found.reports["mine"][1].test == alone.test and found.reports["mine"][1].size_bytes == alone.size_bytes
    assert [report.seed for report in found.reports["mine"]] == [0, 3]


def test_table_has_means_deviations_and_differences_seed_by_seed(found):
    lines = found.text().splitlines()
    mine, other = found.scores("mine"), found.scores("baseline")
    gaps = [a - b for a, b in zip(mine, other, strict=True)]
    row = next(line for line in lines if line.startswith("mine"))
    assert f"{mean(mine):.2f} % ± {stdev(mine):.2f}" in row and f"± {stdev(gaps):.2f}" in row and "2 of 2" in row
    assert f"{abs(mean(gaps)):.2f}" in row and "latency" not in lines[0] and "Means over 2 seeds" in lines[-1]
    assert str(found) == found.text() and found.text() in found._repr_html_().replace("&gt;", ">")


def test_chart_has_a_point_for_each_run_and_the_original(found):
    drawn = ElementTree.fromstring(found.svg())
    titles = [one.text for one in drawn.iter("{http://www.w3.org/2000/svg}title")]
    assert len(titles) == 5 and sum(one.startswith("mine: ") for one in titles) == 2
    wanted = f"baseline: {found.scores('baseline')[0]:.4g} at {found.reports['baseline'][0].size_bytes:.4g}"
    assert wanted in titles and any(one.startswith("original network: ") for one in titles)


def test_times_are_a_column_and_a_chart_where_they_were_taken(found):
    timed = cortado.compare_recipes(
        NET.make(), NET.task(), {"8 bits": "quantize/weights"}, seeds=[0], runtimes=["torch_eager"]
    )
    assert "latency" in timed.text() and "One seed" in timed.text() and "±" not in timed.text().splitlines()[2]
    assert "milliseconds of one sample" in timed.svg("latency") and timed._repr_html_().count("<svg") == 2
    with pytest.raises(BadValue, match="nothing was timed. Name a runtime"):
        found.svg("latency")
    with pytest.raises(BadValue, match="a chart has size or latency across, got 'energy'"):
        found.svg("energy")


def test_network_may_be_made_for_each_seed_and_runs_are_resumed(tmp_path):
    asked = []

    def make(seed):
        asked.append(seed)
        torch.manual_seed(seed)
        return NET.make()

    options = {"seeds": (1, 2), "folder": tmp_path, "base": "mine"}
    first = cortado.compare_recipes(make, NET.task(), RECIPES, **options)
    assert asked == [1, 2] and first.base == "mine" and (tmp_path / "mine" / "2" / "stages").is_dir()
    again = cortado.compare_recipes(make, NET.task(), RECIPES, **options, resume=True)
    # The seconds of a stage that was read are those of the run that made it.
    assert [one.stages for one in again.reports["mine"]] == [one.stages for one in first.reports["mine"]]


@pytest.mark.parametrize(
    ("recipes", "options", "says"),
    [
        (["quantize/weights"], {}, "must be a dict of names and recipes, got list"),
        ({}, {}, "must be a dict of names"),
        ({"a/b": "quantize/weights"}, {}, "'a/b' is no name of a folder"),
        ({"a": "quantize/weights"}, {"seeds": ()}, "seeds must be different whole numbers"),
        ({"a": "quantize/weights"}, {"seeds": (1, 1)}, "seeds must be different whole numbers"),
        ({"a": "quantize/weights"}, {"base": "b"}, "there is no recipe 'b'. Given: a"),
    ],
)
def test_what_cannot_be_compared_is_refused(recipes, options, says):
    with pytest.raises(BadValue, match=says):
        cortado.compare_recipes(NET.make(), NET.task(), recipes, **options)
