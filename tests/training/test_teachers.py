"""Teachers: which network a name means, what it sees of augmented data, and what it should not know."""

import copy
import dataclasses
import re

import pytest
import torch
from torch import nn
from torch.nn import functional

import cortado
from cortado.engine.recipe import make_stage
from cortado.errors import BadRecipe, BadValue, NothingChanged
from cortado.methods.finetune import Finetune
from cortado.methods.reinit import Reinit
from cortado.network.view import View
from cortado.running.trees import pick
from cortado.task.metric import Metric
from cortado.task.task import Data, Task
from cortado.training.loop import train
from cortado.training.objectives.features import Features
from cortado.training.objectives.logits import Logits
from cortado.training.objectives.objective import Added
from cortado.training.objectives.pseudo_labels import PseudoLabels
from cortado.training.objectives.task import TaskLoss
from cortado.training.teachers import notes_on_teachers, teachers_of
from cortado.training.training import Training
from tests.laws.tiny_nets import BY_NAME

NET = BY_NAME["residual"]
HOW = Training(epochs=2, lr=0.05, precision="float32", teacher_sees="original")


def noisy(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    return images + 5 * torch.rand(len(images), 1, 1, 1, generator=generator)


def moved(network: nn.Module, factor: float) -> nn.Module:
    """The network with other values."""
    other = copy.deepcopy(network)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.mul_(factor)
    return other


@pytest.mark.parametrize("cache", ["memory", "file"])
@pytest.mark.parametrize("data", ["train", "unlabelled"])
def test_a_teacher_may_see_augmented_inputs_as_they_are(data, cache):
    plain = NET.task()
    varied = Data(plain.train.inputs, plain.train.targets if data == "train" else None, augment=noisy)
    task, teacher, seen = dataclasses.replace(plain, **{data: varied}), moved(NET.make(), 1.2).eval(), []

    def note(step):
        seen.append((step.inputs, step.teachers[0].outputs))
        return step.outputs.mean()

    class Noted(Added):
        taught = True

    training = dataclasses.replace(HOW, cache=cache)
    train(NET.make(), task, training, objectives=(Noted(title="x", value=note, data=data),), teachers=(teacher,))
    with torch.no_grad():
        answers = teacher(plain.train.inputs)
    for inputs, outputs in seen:
        # Noise that is constant over a picture: its differences tell which one it was.
        flat, known = (one.flatten(1)[:, 1:] - one.flatten(1)[:, :1] for one in (inputs, plain.train.inputs))
        numbers = torch.cdist(flat, known).argmin(1)
        assert float((inputs - plain.train.inputs[numbers]).abs().max()) > 0.5
        torch.testing.assert_close(outputs, pick(answers, numbers), rtol=2e-3, atol=2e-3 if cache == "file" else 1e-5)
    assert len(seen) > 4


def test_both_of_a_step_see_the_same_by_default():
    varied = dataclasses.replace(
        NET.task(), train=Data(NET.task().train.inputs, NET.task().train.targets, augment=noisy)
    )
    network = NET.make()
    trained = train(
        network, varied, Training(epochs=1e-3, statistics="kept"), objectives=(Logits(),), teachers=(network,)
    )
    assert trained.loss == pytest.approx(0, abs=1e-5)
    apart = train(
        NET.make(), varied, dataclasses.replace(HOW, epochs=1e-3), objectives=(Logits(),), teachers=(NET.make(),)
    )
    assert apart.loss > 1e-2


def test_answers_that_move_with_the_picture_are_refused():
    plain = NET.task()
    task = dataclasses.replace(plain, train=Data(plain.train.inputs, plain.train.targets, augment=noisy))
    with pytest.raises(
        BadValue, match=r"teacher_sees must be same for outputs with places and for vary, got shape \(2, 8, "
    ):
        train(NET.make(), task, HOW, objectives=(Features(at="first"),), teachers=(NET.make(),))
    both = Data(plain.train.inputs, plain.train.targets, vary=lambda inputs, targets, generator: (inputs, targets))
    with pytest.raises(BadValue, match="got data with vary"):
        train(NET.make(), dataclasses.replace(plain, train=both), HOW, objectives=(Logits(),), teachers=(NET.make(),))
    train(NET.make(), plain, HOW, objectives=(Features(at="first"),), teachers=(NET.make(),))


def test_answers_once_and_live_exclude_each_other():
    with pytest.raises(BadValue, match="cache must not be live with teacher_sees: original"):
        Training(cache="live", teacher_sees="original")


def test_before_is_the_network_as_the_stage_found_it():
    original, found = NET.make(), moved(NET.make(), 1.2)
    view = View(copy.deepcopy(found), original, NET.example)
    (teacher,) = teachers_of("before", view)
    moved_on = dict(view.network.named_parameters())
    with torch.no_grad():
        moved_on["head.weight"].zero_()
    assert torch.equal(teacher.head.weight, found.head.weight)
    assert teachers_of(["original", "before"], view, found)[0] is original


@pytest.mark.parametrize("kind", [Finetune, Reinit])
def test_stages_learn_from_what_they_found(kind):
    original, found = NET.make(), moved(NET.make(), 1.2)
    results = []
    for teacher in ("before", copy.deepcopy(found)):
        view = View(copy.deepcopy(found), original, NET.example)
        kind(HOW, teacher=teacher, objectives=(TaskLoss(), Logits())).apply(view, NET.task())
        results.append((view.network.state_dict(), view.curves))
    (one, curves), (other, others) = results
    assert curves == others and all(torch.equal(value, other[name]) for name, value in one.items())
    view = View(copy.deepcopy(found), original, NET.example)
    kind(HOW, objectives=(TaskLoss(), Logits())).apply(view, NET.task())
    assert view.curves["logits"] != curves["logits"]


def test_rounds_of_self_training_are_stages_of_a_recipe():
    task = dataclasses.replace(NET.task(), unlabelled=Data(NET.task().train.inputs, augment=noisy))
    knobs = {"epochs": 1, "teacher": "before", "teacher_sees": "original"}
    student = {**knobs, "objectives": ["task", {"pseudo_labels": {"data": "unlabelled", "confidence": 0.3}}]}
    recipe = [{"repeat": {"times": 2, "do": [{"reinit": student}]}}]
    _, report = cortado.compress(NET.make(), task, recipe)
    assert [one.round for one in report.stages] == ["round 1 of 2", "round 2 of 2"]
    for one in report.stages:
        drawn = {f"{name}, unlabelled" for name in ("pseudo_labels", "confident", "highest")}
        assert set(one.curves) == {"task", *drawn}
        assert 0 <= one.curves["confident, unlabelled"][0] <= 1
    _, again = cortado.compress(NET.make(), task, recipe)
    assert [one.curves for one in again.stages] == [one.curves for one in report.stages]


def known(count: int, wrong: int, **changes) -> tuple[Task, nn.Module]:
    """Points whose class is their larger coordinate, some of them with a wrong label, and the network that knows that."""
    points = torch.randn(count, 2, generator=torch.Generator().manual_seed(0))
    labels = points.argmax(1)
    labels[count - wrong :] = 1 - labels[count - wrong :]
    data = Data(points, labels)
    return Task(data, data, data, trial=True, **changes), nn.Identity()


def notes(task: Task, teacher: nn.Module, original: nn.Module | None = None) -> list[str]:
    return notes_on_teachers([teacher], View(nn.Linear(2, 2), original or nn.Linear(2, 2), torch.zeros(2, 2)), task)


def test_a_teacher_that_is_always_right_is_noted():
    assert notes(*known(600, 0)) == [
        "the teacher answers all 600 validation samples right, so it may have been trained on them: scores on them flatter it "
        "and what learns from it"
    ]
    task, _ = known(499, 0)
    assert notes(task, nn.Identity()) == notes(*known(600, 1)) == []
    error = Metric(
        "error", "%", lambda outputs, targets: (outputs.argmax(1) == targets).float(), higher_is_better=False
    )
    assert notes(*known(600, 0, metric=error)) == []
    task, teacher = known(600, 0)
    assert notes(task, teacher, original=teacher) == []  # a trial of the planner
    assert len(notes(dataclasses.replace(task, trial=False), teacher, original=teacher)) == 1


def test_a_teacher_of_another_task_is_not_asked_and_one_that_errs_only_for_a_moment():
    task, _ = known(600, 0)
    assert notes(task, nn.Linear(7, 3)) == []
    task, seen = known(600, 0)[0], []

    class WrongOnce(nn.Module):
        def forward(self, inputs):
            seen.append(len(inputs))
            return torch.cat([-inputs[:1], inputs[1:]])

    assert notes(task, WrongOnce()) == [] and sum(seen) <= 512


@pytest.mark.parametrize(
    ("classes", "right", "noted"), [(10, 0, True), (10, 35, True), (10, 45, False), (2, 160, False)]
)
def test_a_teacher_that_answers_by_chance_is_noted(classes, right, noted):
    labels = torch.arange(300) % classes
    answers = torch.where(torch.arange(300) < right, labels, (labels + 1) % classes)
    data = Data(functional.one_hot(answers, classes).float(), labels)
    task = Task(data, data, data, trial=True)
    found = notes(task, nn.Identity())
    assert [
        one.startswith(f"the teacher answers {right / 3:.1f} % of the 300 validation samples right") for one in found
    ] == ([True] * noted)
    few = data.first(199)
    assert notes(dataclasses.replace(task, validation=few), nn.Identity()) == []
    assert (
        notes(dataclasses.replace(task, metric=Metric("own", each=lambda out, wanted: out[:, 0] * 0)), nn.Identity())
        == []
    )


@pytest.mark.parametrize(
    ("teacher", "says"),
    [
        ("orignal", "no teacher is called 'orignal'. Did you mean original"),
        ("befor", "Did you mean before"),
        ("resnet20", "Did you mean resnet_20"),
        (["original", "befor"], "no teacher is called 'befor'"),
        ({"network": "resnet20"}, "Write a built-in network or package.module:maker"),
        ({"netwrk": "resnet_20"}, "no key 'netwrk'; did you mean 'network'"),
        ((), "a teacher is a network or its name"),
    ],
)
@pytest.mark.parametrize("method", ["finetune", "reinit", "distill/logits", "distill/hints", "prune/rate_distortion"])
def test_a_misspelt_teacher_is_refused_when_the_recipe_is_read(method, teacher, says):
    with pytest.raises(BadRecipe, match=re.escape(says)):
        make_stage(method, {"teacher": teacher})


@pytest.mark.parametrize("method", ["finetune", "reinit"])
def test_a_teacher_that_nothing_reads_is_refused_when_the_recipe_is_read(method):
    with pytest.raises(BadValue, match=r"no objective learns from it, got objectives: \[task\]. Add one, such as"):
        make_stage(method, {"teacher": "before"})
    make_stage(method, {"teacher": "original"})
    make_stage(method, {"teacher": 0.5})
    make_stage(method, {"teacher": "my_nets:big", "objectives": ["task", "logits"]})


@pytest.mark.parametrize("alone", [True, False])
def test_a_teacher_that_is_never_sure_is_told_with_its_share_and_its_highest_probability(alone):
    plain = BY_NAME["mlp"]
    sure = {"pseudo_labels": {"confidence": 1.0}}
    recipe = [{"finetune": {"epochs": 1, "teacher": "before", "objectives": [sure] if alone else ["task", sure]}}]
    says = r"the teacher was sure of 0 % of the samples.* confidence=1, and the highest of a batch was 0\.\d\d"
    if alone:
        with pytest.raises(NothingChanged, match=rf"it changed nothing. pseudo_labels: {says}.* Lower confidence"):
            cortado.compress(plain.make(), plain.task(), recipe)
        return
    _, report = cortado.compress(plain.make(), plain.task(), recipe)
    (note,) = report.stages[0].notes
    assert re.search(says, note)
    (highest,) = report.stages[0].curves["highest"]
    assert f"was {highest:.2f} on average" in note


def test_the_note_reaches_the_report():
    task, _ = known(600, 0)
    view = View(nn.Linear(2, 2), nn.Linear(2, 2), torch.zeros(2, 2))
    Finetune(Training(epochs=0.2), teacher=nn.Identity(), objectives=(TaskLoss(), PseudoLabels())).apply(view, task)
    assert any("may have been trained on them" in one for one in view.notes)
