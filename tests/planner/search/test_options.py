"""Options of makers as ranges: read from text, lists and annotations, refused with near names, and searched under limits."""

import json

import pytest
from torch import nn

from cortado.engine.job import read_job
from cortado.errors import BadRecipe
from cortado.planner.search.ranges import Range, read_ranged, shape_recipe
from cortado.planner.search.trial_search import search
from tests.laws.tiny_nets import BY_NAME

HERE = "tests.planner.search.test_options:shaped"
NET = BY_NAME["mlp"]


def shaped(width: int = 16, depth: int = 1, drop: float = 0.0, bias=True) -> nn.Module:
    """A chain of linear layers for the tiny task."""
    layers: list[nn.Module] = []
    for number in range(depth):
        layers += [nn.Linear(width if number else 12, width, bias), nn.ReLU(), nn.Dropout(drop)]
    return nn.Sequential(*layers, nn.Linear(width, 4))


def ranges_of(options):
    return {
        one.name.rpartition(" ")[2]: one
        for one in read_ranged([{"student": {"network": HERE, "options": options}}]).ranges
    }


def test_options_have_the_types_of_the_maker():
    found = ranges_of({"width": "4..24", "depth": [1, 2], "drop": "0.1..0.5", "bias": ".."})
    assert found["width"] == Range("1 student width", 4, 24, whole=True)
    assert found["depth"].one_of == (1, 2) and found["bias"].one_of == (False, True)
    assert not found["drop"].whole and (found["drop"].low, found["drop"].high) == (0.1, 0.5)
    assert list(ranges_of({"width": "4, 8, 16", "depth": 2})) == ["width"]


def test_recipe_at_a_point_makes_the_network():
    ranged = read_ranged([{"student": {"network": HERE, "options": {"width": "4..24", "depth": 2}}}])
    (student,) = ranged.at({"1 student width": 7}).stages
    assert student.options == {"width": 7, "depth": 2} and student.made(0)[0].out_features == 7


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"widht": "1..2"}, "has no option 'widht'. Did you mean width"),
        ({2: None}, r"several values between braces are a list"),
        ({"width": ".."}, "has no least value of its own"),
        ({"width": "24..4"}, "the lower one first"),
        ({"depth": [1]}, "has one value"),
    ],
)
def test_options_that_cannot_be_are_refused_in_words(options, words):
    with pytest.raises(BadRecipe, match=words):
        ranges_of(options)


def test_unknown_network_is_refused_with_a_near_name():
    with pytest.raises(BadRecipe, match="Did you mean mobilenet_v2"):
        read_ranged([{"student": {"network": "mobilenet_v3", "options": {"width": "0.5..1.0"}}}])


def test_networks_over_the_limit_are_not_trained_and_all_others_meet_it(tmp_path):
    pytest.importorskip("optuna", reason="trials are drawn by optuna: pip install -e '.[search]'")
    recipe = [
        {"student": {"network": HERE, "options": {"width": "4..24", "depth": [1, 2]}}},
        {"finetune": {"epochs": 1}},
    ]
    found = search(NET.make(), NET.task(), recipe, ["multiply-adds <= 300"], trials=5, folder=tmp_path)
    made = {one.number: one for one in found.trials}
    for one in made.values():
        width, depth = one.point["1 student width"], one.point["1 student depth"]
        cost = 12 * width + (depth - 1) * width**2 + 4 * width
        assert one.done == (cost <= 300)
        if one.done:
            assert one.multiply_adds == cost
        else:
            assert "misses multiply-adds <= 300 before it is trained" in one.failed
            assert one.over["multiply-adds <= 300"] == pytest.approx(cost / 300 - 1)
            assert not list((tmp_path / f"trials/{one.number:03}").glob("*.cortado"))
    assert {one.done for one in made.values()} == {True, False}
    line = next(line for line in found.report.lines if line.what == "multiply-adds")
    assert line.met and line.compressed == found.best.multiply_adds and line.original == 12 * 16 + 16 * 4


JOB = """
network: {{maker: "{maker}", options: {{width: 4..24, drop: 0.1, depth: [1, 2]}}}}
task: digits
train: {{epochs: 1}}
"""


def test_job_with_open_options_becomes_a_recipe(tmp_path):
    (tmp_path / "job.yaml").write_text(JOB.format(maker=HERE))
    job = read_job(str(tmp_path / "job.yaml"))
    assert job.open_options == {"width": "4..24", "depth": [1, 2]} and job.make()[2].p == 0.1
    recipe = shape_recipe(job, "quantize/weights bits=4..8", taught=False)
    ranged = read_ranged(recipe)
    assert [one.name for one in ranged.ranges] == ["1 student width", "1 student depth", "3 quantize/weights bits"]
    assert [next(iter(stage)) for stage in recipe["stages"]] == ["student", "finetune", "quantize/weights"]
    assert "distill/logits" in json.dumps(shape_recipe(job, None, taught=True))


def test_open_job_is_refused_by_everything_but_a_search(tmp_path):
    (tmp_path / "job.yaml").write_text(JOB.format(maker=HERE))
    job = read_job(str(tmp_path / "job.yaml"))
    with pytest.raises(BadRecipe, match="options width, depth are open. cortado search chooses them"):
        job.original(NET.task())
    (tmp_path / "job.yaml").write_text(JOB.format(maker=HERE).replace("train: {epochs: 1}", ""))
    with pytest.raises(BadRecipe, match="does not say how"):
        shape_recipe(read_job(str(tmp_path / "job.yaml")), None, taught=False)


def test_options_in_two_places_are_refused(tmp_path):
    (tmp_path / "job.yaml").write_text(JOB.format(maker=HERE) + "options: {width: 3}\n")
    with pytest.raises(BadRecipe, match="options stands in network and beside it"):
        read_job(str(tmp_path / "job.yaml"))
