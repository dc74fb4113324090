"""Learning from unlabelled data: equal to what it means, apart from the labelled batch, and refused where it cannot be."""

import dataclasses
from dataclasses import dataclass

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.utils.data import Dataset

from cortado.errors import BadNetwork, BadTask, BadValue
from cortado.network.view import View
from cortado.task.task import Data, Task
from cortado.training.batches import BESIDE
from cortado.training.loop import train
from cortado.training.objectives.contrastive import Contrastive
from cortado.training.objectives.decoupled import Decoupled
from cortado.training.objectives.features import Features
from cortado.training.objectives.logits import Logits, distillation
from cortado.training.objectives.nuclear_norm import NuclearNorm
from cortado.training.objectives.objective import Objective
from cortado.training.objectives.task import TaskLoss
from cortado.training.training import Training
from tests.laws.tiny_nets import BY_NAME

NET = BY_NAME["residual"]
HOW = Training(epochs=2, lr=0.05, optimizer="sgd", momentum=0.5, schedule="constant", precision="float32")
EXTRA = torch.randn(40, 1, 8, 8, generator=torch.Generator().manual_seed(5))


@dataclass(frozen=True)
class Seen(Objective):
    """Keeps every step that it sees."""

    steps: object = None

    def terms(self, step):
        self.steps.append(step)
        return {"size": step.outputs.square().mean()}


def given(unlabelled=EXTRA, **changes) -> Task:
    return dataclasses.replace(NET.task(), unlabelled=unlabelled, **changes)


class Uneven(Dataset):
    """Pictures of two sizes."""

    def __len__(self) -> int:
        return 40

    def __getitem__(self, number: int):
        return torch.zeros(1, 8 + number % 2, 8)


@pytest.mark.parametrize(
    ("unlabelled", "kind", "says"),
    [
        (
            EXTRA.repeat(1, 2, 1, 1),
            BadTask,
            r"unlabelled data: the teacher, on inputs of shape \(\d+, 2, 8, 8\), torch.float32, raised",
        ),
        (EXTRA.double(), BadTask, r"unlabelled data: the teacher, on inputs of .*, torch.float64, raised"),
        (Uneven(), BadTask, r"task: unlabelled data: items cannot be stacked into a batch"),
        (
            Data(EXTRA, prepare=lambda one: one / None),
            BadTask,
            "task: unlabelled data: prepare, augment or vary, on batch 1",
        ),
        (torch.zeros(0, 1, 8, 8), BadTask, "task: unlabelled data: the data are empty"),
    ],
    ids=["shape", "dtype", "collate", "prepare", "empty"],
)
@pytest.mark.parametrize("cache", ["memory", "live"])
def test_errors_about_unlabelled_inputs_say_so(unlabelled, kind, says, cache):
    how = dataclasses.replace(HOW, cache=cache)
    with pytest.raises(kind, match=says):
        train(NET.make(), given(unlabelled), how, objectives=(Logits(data="unlabelled"),), teachers=(teacher(),))


def test_a_network_that_cannot_take_unlabelled_inputs_says_so():
    with pytest.raises(
        BadNetwork, match=r"finetune: the network, on unlabelled inputs of shape \(\d+, 2, 8, 8\), torch.float32, "
    ):
        train(
            NET.make(), given(EXTRA.repeat(1, 2, 1, 1)), HOW, objectives=(TaskLoss(), Seen(data="unlabelled", steps=[]))
        )


def teacher() -> nn.Module:
    network = NET.make()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(1.3)
    return network


def trained(task, objectives, how=HOW, **more):
    network = NET.make()
    made = train(network, task, how, objectives=objectives, teachers=(teacher(),), **more)
    return network, made


def same(one: nn.Module, other: nn.Module) -> bool:
    pairs = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    return all(torch.equal(mine, theirs) for mine, theirs in pairs)


@pytest.mark.parametrize("cache", ["memory", "live"])
def test_training_inputs_as_unlabelled_ones_teach_the_same(cache):
    how = dataclasses.replace(HOW, cache=cache)
    plain, wanted = trained(NET.task(), (Logits(), Features(0.1, at="first")), how)
    both = (Logits(data="unlabelled"), Features(0.1, at="first", data="unlabelled"))
    network, found = trained(given(NET.task().train.inputs), both, how)
    assert same(network, plain) and found.loss == wanted.loss
    assert found.curves == {f"{name}, unlabelled": curve for name, curve in wanted.curves.items()}


def test_both_data_are_a_plain_loop_of_torch():
    task, network, wanted = given(), NET.make().train(), teacher().eval()
    got, _ = trained(task, (TaskLoss(), Logits(0.5, data="unlabelled")))
    optimizer = torch.optim.SGD(network.parameters(), HOW.lr, HOW.momentum, nesterov=True)
    beside = (
        inputs
        for number in range(9)
        for inputs, _ in task.unlabelled.batches(task.batch, task.generator(BESIDE + number + 1))
    )
    for epoch in range(2):
        for inputs, targets in task.train.batches(task.batch, task.generator(epoch + 1)):
            loss, more = functional.cross_entropy(network(inputs), targets), next(beside)
            with torch.no_grad():
                soft = wanted(more).div(4).softmax(1)
            optimizer.zero_grad()
            (loss + 0.5 * distillation(network(more), soft, 4.0)).backward()
            optimizer.step()
    for mine, theirs in zip(network.state_dict().values(), got.state_dict().values(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-6)


def test_weight_0_is_plain_training_to_the_last_bit():
    plain, wanted = trained(NET.task(), (TaskLoss(),))
    network, found = trained(given(), (TaskLoss(), Logits(0.0, data="unlabelled")))
    assert same(network, plain) and found.curves == wanted.curves


def test_two_trainings_are_the_same():
    objectives = (TaskLoss(), Logits(data="unlabelled"))
    assert same(trained(given(), objectives)[0], trained(given(), objectives)[0])
    assert not same(trained(given(), objectives)[0], trained(given(), objectives, seed=1)[0])


def test_a_step_has_the_batch_and_what_the_data_carry():
    steps: dict[str, list] = {"train": [], "unlabelled": []}
    carried = Data(EXTRA, {"earlier": -EXTRA})
    trained(given(carried), [Seen(data=name, steps=found) for name, found in steps.items()])
    count, batch = len(NET.task().train), NET.task().batch
    assert len(steps["train"]) == len(steps["unlabelled"]) == 2 * -(-count // batch)
    for one in steps["unlabelled"]:
        assert torch.equal(one.targets["earlier"], -one.inputs) and len(one.outputs) == len(one.inputs) <= batch
    passes = torch.cat([one.inputs for one in steps["unlabelled"]])
    for first in range(0, len(passes) - len(EXTRA) + 1, len(EXTRA)):
        once = passes[first : first + len(EXTRA)].flatten(1)
        assert torch.equal(once[once[:, 0].argsort()], EXTRA.flatten(1)[EXTRA.flatten(1)[:, 0].argsort()])


def test_the_network_runs_once_for_each_data_and_not_on_data_that_no_one_reads():
    for names, sizes in ((("unlabelled",) * 2, {40}), (("train", "unlabelled", "unlabelled"), {40, 64})):
        runs: list[int] = []

        class Counted(type(NET.make())):
            def forward(self, images, runs=runs):
                runs.append(len(images))
                return super().forward(images)

        network = NET.make()
        network.__class__ = Counted
        task = given(batch=64)
        objectives = [Seen(data=name, steps=[]) for name in names]
        train(network, task, dataclasses.replace(HOW, epochs=1), objectives=objectives)
        steps = -(-len(task.train) // 64) if "train" in names else 1
        assert len(runs) == steps * len(sizes) and sizes >= set(runs)


def test_a_penalty_reads_no_data():
    view, steps = View(NET.make(), NET.make(), NET.example), []
    penalty = NuclearNorm(1e-3).on(view, view.weights("first"), NET.task())
    trained(given(), [Seen(data="unlabelled", steps=steps), penalty])
    assert len(steps) == 2 * -(-len(EXTRA) // NET.task().batch)


def test_teachers_are_asked_only_where_one_is_needed():
    steps: dict[str, list] = {"train": [], "unlabelled": []}
    trained(
        given(),
        [Seen(steps=steps["train"]), Seen(data="unlabelled", steps=steps["unlabelled"]), Logits(data="unlabelled")],
    )
    assert not any(one.teachers for one in steps["train"]) and all(one.teachers for one in steps["unlabelled"])


@pytest.mark.parametrize("negatives", ["batch", "queue"])
def test_contrast_needs_no_labels(negatives):
    _, made = trained(
        given(), (TaskLoss(), Contrastive(at="first", width=4, negatives=negatives, size=8, data="unlabelled"))
    )
    assert all(value > 0 for value in made.curves["contrastive, unlabelled"])


def test_a_task_without_unlabelled_data_is_refused():
    with pytest.raises(
        BadTask, match=r"finetune: the task has no unlabelled data, which logits learns from. Pass Task\(unl"
    ):
        trained(NET.task(), (TaskLoss(), Logits(data="unlabelled")))


@pytest.mark.parametrize("kind", [TaskLoss, Decoupled])
def test_what_needs_labels_is_refused(kind):
    with pytest.raises(BadValue, match="it learns from labels, which unlabelled data do not have. Leave out data"):
        kind(data="unlabelled")


def test_figures_are_drawn_and_not_learned_from():
    @dataclass(frozen=True)
    class Drawn(Objective):
        def terms(self, step):
            step.figures["share"] = step.outputs.mean() * 0 + 0.25
            return {"task": step.loss(step.outputs, step.targets)}

    network, made = trained(NET.task(), (Drawn(),))
    plain, wanted = trained(NET.task(), (TaskLoss(),))
    assert same(network, plain) and made.loss == wanted.loss
    assert made.curves == wanted.curves | {"share": [0.25, 0.25]}
