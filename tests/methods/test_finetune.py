"""finetune and its relatives: how objectives, teachers and training are written, and that all spellings are one."""

import pytest
import torch
from safetensors.torch import save_file

from cortado.engine.compress import compress
from cortado.engine.recipe import make_stage, read_recipe
from cortado.engine.stage import apply_stage, start
from cortado.errors import BadRecipe, BadValue
from cortado.methods.distill.logits import DistillLogits
from cortado.methods.finetune import Finetune
from cortado.methods.prune.rate_distortion import PruneRateDistortion
from cortado.planner.search.front import stage_line
from cortado.planner.search.ranges import read_ranged
from cortado.training.objectives.features import Features
from cortado.training.objectives.logits import Logits
from cortado.training.objectives.nuclear_norm import NuclearNorm
from cortado.training.objectives.task import TaskLoss
from cortado.training.training import Training
from tests.laws.tiny_nets import BY_NAME

NET = BY_NAME["mlp"]
WANTED = Finetune(
    Training(epochs=20, lr=1e-5),
    "tests.methods.test_finetune:big",
    (TaskLoss(), Logits(temperature=2.0), Features(at="0")),
)
KNOBS = {"teacher": WANTED.teacher, "objectives": ["task", {"logits": {"temperature": 2.0}}, {"features": {"at": 0}}]}
BEFORE = {
    ("mlp", "finetune epochs=2 lr=0.01"): 40.842658874,
    ("mlp", "finetune epochs=1.5 lr=0.05 optimizer=sgd average=0.5 warmup=0.2 statistics=kept"): 40.128912155,
    ("mlp", "finetune epochs=1 batch=7 clip=0.5 optimizer=adamw decay=0.01"): 39.905411384,
    ("mlp", "factorize/svd keep=0.5 | finetune epochs=1 lr=0.01"): 24.441146439,
    ("mlp", "finetune epochs=2 lr=0.01 teacher=0.5"): 40.829721147,
    ("mlp", "prune/rate_distortion epochs=2 finish=1"): 501.307617188,
    ("residual", "finetune epochs=2 lr=0.01"): 131.714809895,
    ("residual", "finetune epochs=1.5 lr=0.05 optimizer=sgd average=0.5 warmup=0.2 statistics=kept"): 113.342028654,
    ("residual", "finetune epochs=1 batch=7 clip=0.5 optimizer=adamw decay=0.01"): 131.656771367,
    ("residual", "factorize/svd keep=0.5 | finetune epochs=1 lr=0.01"): 100.076419693,
    ("residual", "finetune epochs=2 lr=0.01 teacher=0.5"): 131.416280726,
    ("residual", "prune/rate_distortion epochs=2 finish=1"): 1408.049021987,
}
"""The sum of all magnitudes after trainings by the loop that had no objectives."""


def big():
    return NET.make()


@pytest.mark.parametrize(
    "written",
    [
        {"epochs": 20, "lr": 1e-5, **KNOBS},
        {"epochs": 20, "training": {"lr": "1e-5"}, **KNOBS},
        {"training": {"epochs": 20, "lr": 1e-5}, **KNOBS},
        "finetune epochs=20 lr=1e-5 teacher=tests.methods.test_finetune:big "
        "objectives=[task, logits: {temperature: 2}, features: {at: 0}]",
    ],
)
def test_every_spelling_is_the_same(written):
    recipe = read_recipe(written if isinstance(written, str) else [{"finetune": written}])
    assert recipe.stages == (WANTED,)
    assert read_recipe(recipe.as_data()).stages == recipe.stages
    assert read_recipe(stage_line(WANTED)).stages == (WANTED,)


def test_inner_names_are_arguments_too():
    assert Finetune(epochs=2, lr=0.1) == Finetune(Training(epochs=2, lr=0.1)) == Finetune(training=Training(2, 0.1))
    assert Finetune(Training(epochs=2), lr=0.1).training == Training(epochs=2, lr=0.1)
    assert Finetune(epochs=2).epochs == 2 and PruneRateDistortion(epochs=4).training.average == 0.2
    assert DistillLogits(epochs=3, temperature=2.0).training == Training(epochs=3)


@pytest.mark.parametrize(
    ("knobs", "wrong", "message"),
    [
        ({"training": {"epochs": 1}, "epochs": 2}, BadRecipe, "epochs is given twice"),
        ({"training": 3}, BadRecipe, "training must be keys with values, got 3"),
        ({"training": {"epoch": 3}}, BadRecipe, "no knob 'epoch'; did you mean 'epochs'"),
        ({"epochs": -1}, BadValue, "recipe: finetune: epochs must lie in 0.., got -1"),
        ({"cache": "no"}, BadValue, "cache must be one of auto, memory, file, kept, live"),
    ],
)
def test_wrong_knobs_are_refused_in_words(knobs, wrong, message):
    with pytest.raises(wrong, match=message):
        make_stage("finetune", knobs)


def test_objectives_are_the_same_in_every_round_of_a_repeat():
    inner = {"finetune": {"epochs": [1, 2, 3], "objectives": ["task", "nuclear_norm"]}}
    stages = read_recipe([{"repeat": {"times": 3, "do": [inner]}}]).stages
    assert [one.epochs for one in stages] == [1, 2, 3]
    assert {one.objectives for one in stages} == {(TaskLoss(), NuclearNorm())}


def test_ranges_reach_inner_names_in_both_spellings():
    spans = [
        read_ranged([{"finetune": knobs}]).ranges
        for knobs in (
            {"lr": "1e-4..1e-2", "teacher": "0.2..0.8"},
            {"training": {"lr": "1e-4..1e-2"}, "teacher": "0.2..0.8"},
        )
    ]
    assert spans[0] == spans[1] and [(one.low, one.high) for one in spans[0]] == [(1e-4, 1e-2), (0.2, 0.8)]


@pytest.mark.parametrize(("net", "line"), list(BEFORE))
def test_training_gives_what_it_gave_before_there_were_objectives(net, line):
    tiny = BY_NAME[net]
    state = start(tiny.make(), tiny.make(), tiny.example)
    for stage in read_recipe(line).stages:
        state = apply_stage(stage, state, tiny.task(), match_moments=False)
    found = sum(value.detach().double().abs().sum() for value in state.network.state_dict().values())
    assert float(found) == pytest.approx(BEFORE[net, line], rel=1e-6)


def test_teacher_that_is_named_teaches_and_one_that_cannot_be_made_is_refused():
    made, report = compress(NET.make(), NET.task(), [WANTED.__class__(Training(1), WANTED.teacher, WANTED.objectives)])
    assert set(report.stages[0].curves) == {"task", "logits", "features"}
    with pytest.raises(BadRecipe, match="teacher: 'nowhere:at_all' cannot be loaded"):
        compress(NET.make(), NET.task(), "finetune teacher=nowhere:at_all objectives=[logits]")


def test_distillation_is_a_fine_tuning_on_both_objectives():
    found = []
    for stage in (DistillLogits(lr=0.01), Finetune(lr=0.01, objectives=(TaskLoss(0.3), Logits(0.7, 4.0)))):
        network, _ = compress(NET.make(), NET.task(), [stage])
        found.append(torch.cat([one.detach().flatten() for one in network.parameters()]))
    assert torch.equal(*found)


def test_a_knob_given_by_place_and_by_name_is_refused():
    with pytest.raises(TypeError, match="Finetune: training is given twice, by place and by name"):
        Finetune(Training(epochs=2), training=Training(epochs=3))
    assert Finetune(Training(epochs=2), lr=0.5).training == Training(epochs=2, lr=0.5)


@pytest.mark.parametrize("method", ["finetune", "distill/logits"])
def test_teacher_with_weights_beside_the_recipe_teaches_and_is_noted(method, tmp_path):
    """Without labels, what is learned are the outputs of the network in the file, not of its maker's fresh one."""
    task, teacher = NET.task(), NET.maker()
    with torch.no_grad():
        teacher[2].bias.copy_(torch.tensor([9.0, 0.0, 0.0, 0.0]))
    save_file(teacher.state_dict(), tmp_path / "big.safetensors")
    knobs = {"finetune": "objectives: [logits]", "distill/logits": "hard: 0.0, temperature: 1.0"}[method]
    (tmp_path / "recipe.yaml").write_text(
        f"- {method}: {{epochs: 30, lr: 0.05, {knobs}, "
        "teacher: {network: 'tests.laws.tiny_nets:mlp', weights: big.safetensors}}\n"
    )
    made, report = compress(NET.make(), task, tmp_path / "recipe.yaml")
    assert bool((made(task.test.inputs).argmax(1) == 0).all())
    (note,) = [note for note in report.stages[0].notes if "weights of big.safetensors" in note]
    assert note.startswith("teacher tests.laws.tiny_nets:mlp with")
    assert report.recipe["stages"][0][method]["teacher"]["weights"] == str(tmp_path / "big.safetensors")


def test_other_weights_of_a_teacher_are_noticed_on_resume(tmp_path):
    teacher = {"network": "tests.laws.tiny_nets:mlp", "weights": str(tmp_path / "big.safetensors")}
    recipe = [Finetune(Training(0.25), teacher, ("logits",))]
    warned = []
    for _ in range(3):
        if len(warned) != 1:
            save_file(NET.maker().state_dict(), tmp_path / "big.safetensors")
        _, report = compress(NET.make(), NET.task(), recipe, folder=tmp_path, resume=True)
        warned.append(any("is from another run" in warning for warning in report.warnings))
    assert warned == [False, False, True]
