"""Recipes: Python, YAML and one line of text are the same thing."""

from pathlib import Path

import pytest
import yaml

from bench.house_counts import ROOT
from cortado.engine.recipe import (
    ELSEWHERE,
    Recipe,
    known_methods,
    make_stage,
    method_class,
    method_class_name,
    read_recipe,
)
from cortado.errors import BadRecipe, BadValue
from cortado.methods.finetune import Finetune
from cortado.methods.method import Method
from cortado.methods.prune.second_order import PruneSecondOrder
from cortado.methods.prune.weights import PruneWeights
from cortado.methods.quantize.weights import QuantizeWeights
from tests.laws.small_methods import ALL_METHODS, small

STAGES = (
    PruneWeights(keep=0.3, by="taylor", where="not fc3"),
    Finetune(epochs=0.5, lr=1e-5, batch=8),
    QuantizeWeights(),
)


def test_numbers_with_a_colon_are_texts_as_in_yaml_1_2(tmp_path):
    """To YAML 1.1, 2:4 is 124: two minutes and four seconds."""
    stages = (PruneSecondOrder(pattern="2:4"),)
    (tmp_path / "one.yaml").write_text("- prune/second_order: {pattern: 2:4, damp: 1.0e-2, images: 0x80}\n")
    assert read_recipe("prune/second_order pattern=2:4").stages == stages
    assert read_recipe(tmp_path / "one.yaml").stages == stages


def test_python_yaml_data_and_one_line_are_the_same(tmp_path):
    data = [
        {"prune/weights": {"keep": 0.3, "by": "taylor", "where": "not fc3"}},
        {"finetune": {"epochs": 0.5, "lr": 1e-5, "batch": 8}},
        "quantize/weights",
    ]
    path = tmp_path / "small.yaml"
    path.write_text(yaml.safe_dump({"stages": data}))
    line = "finetune epochs=0.5 lr=1e-5 batch=8 | quantize/weights"
    assert (
        read_recipe(STAGES).stages
        == read_recipe(data).stages
        == read_recipe(path).stages
        == read_recipe(str(path)).stages
        == STAGES
    )
    assert read_recipe(line).stages == STAGES[1:]
    assert read_recipe(path).name == "small"


@pytest.mark.parametrize(
    "where",
    ["conv*, not conv1", "not fc3", "*, not *.bias, not 0", "*.bias, fc.*", "body.[02], not 1", "0, 2", "not 0"],
)
@pytest.mark.parametrize(
    "line", ["where={} keep=0.3", "keep=0.3 where={}", 'where="{}" keep=0.3', "keep=0.3 where='{}'"]
)
def test_pattern_of_several_words_is_one_value_of_a_line(where, line):
    (pruned, tuned) = read_recipe(f"prune/weights {line.format(where)} | finetune epochs=2").stages
    assert (pruned, tuned) == (PruneWeights(where=where, keep=0.3), Finetune(epochs=2))
    data = {"prune/weights": {"where": where, "keep": 0.3}}
    assert read_recipe([data]).stages == (pruned,)


def test_word_that_belongs_to_no_value_is_refused():
    with pytest.raises(BadRecipe, match=r"stage 1 \(prune/weights\): 'not' is not key=value"):
        read_recipe("prune/weights not fc3")
    with pytest.raises(BadRecipe, match="keep is given twice"):
        read_recipe("prune/weights keep=0.3 where=conv*, not conv1 keep=0.5")
    with pytest.raises(BadValue, match="keep must be a number, got '0.3 where'"):
        read_recipe("prune/weights keep=0.3 where")


@pytest.mark.parametrize("number", ["1e-5", "1E-5", "+1e-5", "0.00001", "1.0e-5", ".1e-4"])
def test_small_numbers_are_numbers_however_they_are_written(number, tmp_path):
    """YAML takes 1e-5 for a word."""
    assert read_recipe(f"finetune lr={number}").stages[0].lr == 1e-5
    (tmp_path / "one.yaml").write_text(f"- finetune: {{lr: {number}}}\n")
    assert read_recipe(tmp_path / "one.yaml").stages[0].lr == 1e-5


@pytest.mark.parametrize("name", ALL_METHODS)
def test_recipe_comes_back_from_its_own_data(name):
    method = small(name)
    stages = (*STAGES, method) if method.ends else (method, *STAGES)
    recipe = Recipe(stages, match_moments=False, name="mine", paper="Somebody, 2020")
    again = read_recipe(yaml.safe_load(yaml.safe_dump(recipe.as_data())))
    assert again == recipe


@pytest.mark.parametrize("name", known_methods())
def test_method_is_found_by_its_path_and_its_class(name):
    kind = method_class(name)
    assert method_class(f"{kind.__module__}:{kind.__name__}") is kind and kind.name() == name
    assert name in ELSEWHERE or kind.__name__ == method_class_name(name)


def test_known_methods_are_the_files_that_define_one():
    files = {
        path.relative_to(ROOT / "cortado/methods").with_suffix("").as_posix()
        for path in (ROOT / "cortado/methods").rglob("*.py")
    }
    assert set(known_methods()) - set(ELSEWHERE) <= files and set(ELSEWHERE) <= set(known_methods())
    assert {"prune/weights", "quantize/weights", "share/kmeans", "finetune", "match_moments"} <= set(known_methods())


def test_method_and_recipe_pass_through():
    recipe = Recipe(STAGES)
    assert read_recipe(recipe) is recipe
    assert read_recipe(STAGES[0]).stages == (STAGES[0],)


@pytest.mark.parametrize("text", ["tune: [", "{{", "a: b: c"])
def test_file_that_is_not_yaml_is_refused(text, tmp_path):
    (tmp_path / "broken.yaml").write_text(text)
    with pytest.raises(BadRecipe):
        read_recipe(tmp_path / "broken.yaml")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "3",
        "just words",
        "null",
        "[]",
        "stages: 3",
        "stages: {finetune: 1}",
        "- [finetune]",
        "- finetune: 3",
        "- 3: {}",
    ],
)
def test_file_that_is_no_recipe_is_refused(text, tmp_path):
    (tmp_path / "odd.yaml").write_text(text)
    with pytest.raises(BadRecipe):
        read_recipe(tmp_path / "odd.yaml")


def test_knob_given_to_a_method_that_lacks_it_lists_what_it_has():
    with pytest.raises(BadRecipe, match=r"recipe \(release\): no knob 'zzz'; it has where\."):
        make_stage("release", {"zzz": 1})


@pytest.mark.parametrize("path", sorted((ROOT / "recipes").glob("*.yaml")), ids=lambda path: Path(path).stem)
def test_recipe_in_the_folder_can_be_read(path):
    recipe = read_recipe(path)
    assert recipe.stages and all(isinstance(stage, Method) for stage in recipe.stages)
    assert read_recipe(recipe.as_data()).stages == recipe.stages
