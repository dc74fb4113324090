"""Renamed: every name of version 0.1 means what its new name means, warns, and is refused beside it."""

import json
import re

import pytest
import torch

import cortado
from bench.house_counts import ROOT
from cortado import renamed
from cortado.engine.compress import compress
from cortado.engine.recipe import known_methods, make_stage, method_class, read_recipe
from cortado.errors import BadRecipe, BadValue
from cortado.methods.finetune import Finetune
from cortado.methods.prune.weights import PruneWeights
from cortado.methods.quantize.weights import QuantizeWeights
from cortado.report.report import read_report
from cortado.task.task import Data, Metric, Task
from cortado.training.objectives.nuclear_norm import NuclearNorm
from tests.laws.tiny_nets import BY_NAME

OLD_METHODS = {
    "tune": "finetune", "match": "match_moments", "settle": "finalize", "prune/rate": "prune/rate_distortion",
    "quantize/signals": "quantize/activations", "quantize/ladder": "quantize/ptq_search",
}  # fmt: skip
PART = Data(torch.zeros(4, 2), torch.zeros(4, dtype=torch.long))
OTHER = Data(torch.ones(4, 2), torch.zeros(4, dtype=torch.long))


@pytest.mark.parametrize("old", list(OLD_METHODS))
def test_old_method_is_the_new_one(old):
    with pytest.warns(FutureWarning, match=f"'{old}' is now called '{OLD_METHODS[old]}'.*next version"):
        assert method_class(old) is method_class(OLD_METHODS[old])


def test_every_new_name_of_a_method_is_a_method():
    assert set(OLD_METHODS.items()) <= set(renamed.METHODS.items())
    assert not set(renamed.METHODS.values()) - set(known_methods())


def test_old_recipe_text_reads_as_the_new_text():
    with pytest.warns(FutureWarning):
        old = read_recipe("prune/weights keep=0.5 | tune epochs=2 rate=1e-3 teacher=0.5 | match | settle")
    assert old == read_recipe(
        "prune/weights keep=0.5 | finetune epochs=2 lr=1e-3 teacher=0.5 | match_moments | finalize"
    )


def test_old_recipe_keys_and_values_read_as_the_new_ones():
    stages = [{"prune/weights": {"keep": 0.5}}]
    with pytest.warns(FutureWarning):
        old = read_recipe({"says": "for people", "match": False, "stages": stages})
    assert (
        old == read_recipe({"notes": "for people", "match_moments": False, "stages": stages})
        and old.notes == "for people"
    )
    with pytest.warns(FutureWarning, match="'plain' is now called 'original'"):
        assert make_stage("distill/logits", {"teacher": "plain"}).teacher == "original"
    with pytest.warns(FutureWarning, match="'signals' is now called 'activations'"):
        assert make_stage("quantize/equalize", {"by": "signals"}).by == "activations"


def test_old_values_belong_to_knobs_that_take_the_new_ones():
    for place, values in renamed.VALUES.items():
        method, knob = place.split()
        for new in values.values():
            assert getattr(make_stage(method, {knob: new}), knob) == new


@pytest.mark.parametrize("old", ["low_rank", "nuclear_norm"])
def test_old_penalty_is_an_objective_beside_the_task(old):
    wanted = Finetune(epochs=2, objectives=("task", NuclearNorm(0.01, growing=True)))
    knobs = {"epochs": 2, "penalty": old, "strength": 0.01, "growing": True}
    with pytest.warns(FutureWarning, match=r"'penalty' is now called 'objectives: \[task, .*nuclear_norm"):
        assert make_stage("finetune", knobs) == wanted
    with pytest.warns(FutureWarning):
        assert Finetune(**knobs) == wanted
    with pytest.raises(BadRecipe, match="objectives and the old penalty are both given"):
        make_stage("finetune", {"penalty": old, "objectives": ["task"]})


def test_a_new_name_warns_of_nothing():
    stage = make_stage("finetune", {"lr": 1e-3})
    assert isinstance(stage, Finetune) and stage.lr == 1e-3


@pytest.mark.parametrize("knobs", [{"rate": 1e-3, "lr": 1e-4}, {"lr": 1e-4, "rate": 1e-3}])
def test_both_names_of_a_knob_are_refused(knobs):
    with pytest.warns(FutureWarning), pytest.raises(BadRecipe, match="rate is the old name of lr, and both are given"):
        make_stage("finetune", knobs)


def test_both_names_of_a_recipe_key_are_refused():
    with pytest.warns(FutureWarning), pytest.raises(BadRecipe, match="match is the old name of match_moments"):
        read_recipe({"match": True, "match_moments": True, "stages": ["finetune"]})


def test_a_knob_of_its_own_keeps_its_name():
    assert renamed.current_keys("here", {"rate": 1, 2: 3}, renamed.KNOBS, {"rate"}) == {"rate": 1, 2: 3}


def test_task_takes_and_shows_its_old_fields():
    metric = Metric("hits", "", lambda outputs, targets: targets.float())
    with pytest.warns(FutureWarning) as told:
        task = Task(PART, choice=OTHER, verdict=PART, score=metric)
    assert task.validation is OTHER and task.test is PART and task.metric is metric
    assert [str(one.message).split(".")[0] for one in told] == [
        f"Task: '{old}' is now called '{new}'"
        for old, new in (("choice", "validation"), ("verdict", "test"), ("score", "metric"))
    ]
    for old, new in (("choice", "validation"), ("verdict", "test"), ("score", "metric")):
        with pytest.warns(FutureWarning, match=f"'{old}' is now called '{new}'"):
            assert getattr(task, old) is getattr(task, new)


def test_both_names_of_an_argument_are_refused():
    with pytest.raises(BadValue, match="choice= is the old name of validation=, and both are given"):
        Task(PART, validation=OTHER, choice=OTHER, test=PART)


def test_save_and_load_take_the_original_network_by_its_old_name(tmp_path):
    net = BY_NAME["mlp"].make()
    with pytest.warns(FutureWarning, match="save: 'plain' is now called 'original'"):
        cortado.save(net, tmp_path / "net.cortado", plain=net)
    with pytest.warns(FutureWarning, match="load: 'plain' is now called 'original'"):
        again = cortado.load(tmp_path / "net.cortado", plain=net)
    assert torch.equal(again(BY_NAME["mlp"].example), net(BY_NAME["mlp"].example))


def test_knob_takes_its_help_by_its_old_name():
    with pytest.warns(FutureWarning, match="knob: 'says' is now called 'help'"):
        assert cortado.knob(1, says="how many").metadata["help"] == "how many"


def test_face_gives_its_old_names_and_no_others():
    for old, new in {"Score": "Metric", "WeightScore": "Importance"}.items():
        with pytest.warns(FutureWarning, match=f"cortado: '{old}' is now called '{new}'"):
            assert getattr(cortado, old) is getattr(cortado, new)
    with pytest.raises(AttributeError, match="'Weight'"):
        _ = cortado.Weight


OLD_REPORT_KEYS = {
    "original_bytes": "plain_bytes", "original_validation": "plain_choice", "test": "verdict", "metric_name": "score_name",
    "metric_unit": "score_unit", "original": "plain", "original_entries": "plain_entries", "original_bits": "plain_bits",
    "activations": "signals",
}  # fmt: skip


def as_of_old(data):
    """The same with the keys that version 0.1 wrote."""
    if isinstance(data, list):
        return [as_of_old(one) for one in data]
    if not isinstance(data, dict):
        return data
    return {
        OLD_REPORT_KEYS.get(key, key): value if key == "recipe" else as_of_old(value) for key, value in data.items()
    }


def test_report_of_the_old_version_is_the_same_report(tmp_path):
    tiny = BY_NAME["mlp"]
    stages = [PruneWeights(keep=0.5), QuantizeWeights(bits=4), *read_recipe("quantize/activations").stages]
    _, report = compress(tiny.make(), tiny.task(), stages, limits=["size <= 1 MB"])
    old = as_of_old(json.loads(report.as_json()))
    assert {"plain_bytes", "verdict", "score_name"} <= set(old)
    (tmp_path / "report.json").write_text(json.dumps(old))
    assert read_report(tmp_path / "report.json") == report


def test_the_page_of_old_names_lists_every_one():
    page = (ROOT / "docs" / "old_names.md").read_text(encoding="utf8")
    tables = (renamed.METHODS, renamed.KNOBS, *renamed.VALUES.values(), renamed.KEYS, renamed.FACE, renamed.TASK)
    pairs = [pair for table in (*tables, renamed.FILE, renamed.KNOB) for pair in table.items()]
    pairs += [*renamed.PENALTIES.items(), *((old, "objectives") for old in renamed.PENALTY)]
    pairs += [(old, new) for new, old in renamed.OPTIONS.items()]
    missing = [pair for pair in pairs for name in pair if not re.search(rf"`(cortado\.)?{re.escape(name)}[= `]", page)]
    assert not missing
