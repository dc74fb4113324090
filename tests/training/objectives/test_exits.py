"""Exits: each answer that enters a FirstSure has its share of the loss, and none moves what it does not depend on."""

import pytest
import torch
from torch import nn
from torch.nn import functional

import cortado
from cortado.errors import BadNetwork, BadValue
from cortado.methods.finetune import Finetune
from cortado.nets.msdnet import msdnet
from cortado.network.view import View
from cortado.parts.blocks.rows import FirstSure
from cortado.task.task import Data, Task
from cortado.training.loop import train
from cortado.training.objectives.exits import Exits
from cortado.training.objectives.task import TaskLoss
from cortado.training.training import Training
from tests.laws.tiny_nets import BY_NAME
from tests.training.objectives.given import given_step, random_numbers

LABELS = torch.arange(7) % 5
ANSWERS = [random_numbers(7, 5, seed=seed) for seed in range(3)]


class Chain(nn.Module):
    """Three answers, each from the layer before."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(6, 6) for _ in range(3))
        self.heads = nn.ModuleList(nn.Linear(6, 5) for _ in range(3))
        self.choose = FirstSure(3)

    def answers(self, inputs):
        found = []
        for layer, head in zip(self.layers, self.heads, strict=True):
            inputs = torch.tanh(layer(inputs))
            found.append(head(inputs))
        return found

    def forward(self, inputs):
        return self.choose(*self.answers(inputs))


@pytest.fixture
def network():
    torch.manual_seed(0)
    return Chain()


@pytest.fixture
def task():
    data = Data(random_numbers(7, 6).float(), LABELS)
    return Task(data, data, data, batch=7, device="cpu", trial=True)


def bound(objective, network, task):
    return objective.on(View(network, network, task.example), [], task)


def terms(objective, network, task, answers=ANSWERS):
    """The terms of a step whose answers are these."""
    ready = bound(objective, network, task)
    return ready.terms(
        given_step(answers[-1], taps=dict(zip(ready.taps().network, answers, strict=True)), targets=LABELS)
    )


def test_each_answer_has_the_loss_of_the_task_times_its_weight(network, task):
    found = terms(Exits(weights=(0.5, 1.0, 2.0)), network, task)
    wanted = [weight * functional.cross_entropy(one, LABELS) for weight, one in zip((0.5, 1, 2), ANSWERS, strict=True)]
    assert list(found) == ["exit 1", "exit 2", "exit 3"]
    torch.testing.assert_close(list(found.values()), wanted)
    torch.testing.assert_close(terms(Exits(), network, task)["exit 3"], functional.cross_entropy(ANSWERS[2], LABELS))


def test_share_of_distillation_is_its_formula_and_leaves_the_last_answer_alone(network, task):
    answers = [one.clone().requires_grad_() for one in ANSWERS]
    found = terms(Exits(distill=0.25, temperature=2.0), network, task, answers)
    soft = ANSWERS[2].div(2).softmax(1)
    for place, name in enumerate(["exit 1", "exit 2"]):
        apart = 4 * (soft * (soft.log() - ANSWERS[place].div(2).log_softmax(1))).sum(1).mean()
        wanted = 0.75 * functional.cross_entropy(ANSWERS[place], LABELS) + 0.25 * apart
        torch.testing.assert_close(found[name].detach(), wanted)
        assert torch.autograd.grad(found[name], answers[2], allow_unused=True, retain_graph=True)[0] is None
    torch.testing.assert_close(found["exit 3"].detach(), functional.cross_entropy(ANSWERS[2], LABELS))


def test_earlier_answers_that_equal_the_last_learn_nothing_from_it(network, task):
    found = terms(Exits(distill=1.0), network, task, [ANSWERS[2].clone(), ANSWERS[2].clone(), ANSWERS[2]])
    assert abs(float(found["exit 1"])) < 1e-9 and abs(float(found["exit 2"])) < 1e-9


def test_training_moves_as_the_sum_of_all_losses_would(network, task):
    """One step of plain gradient descent, against the gradient of the written sum."""
    wanted = {}
    sum(functional.cross_entropy(one, LABELS) for one in network.answers(task.train.inputs)).backward()
    for name, one in network.named_parameters():
        wanted[name] = one.detach() - 0.1 * one.grad
    network.zero_grad()
    training = Training(epochs=1, lr=0.1, optimizer="sgd", momentum=0.0, schedule="constant", precision="float32")
    trained = train(network, task, training, objectives=(bound(Exits(), network, task),))
    torch.testing.assert_close(dict(network.named_parameters()), wanted, rtol=1e-5, atol=1e-6)
    assert list(trained.curves) == ["exit 1", "exit 2", "exit 3"]
    assert not any(one._forward_hooks for one in network.modules())


def test_answers_learn_though_none_of_them_is_returned(network, task):
    """With thresholds that all pass, the task's loss sees the first answer alone."""
    network.choose.thresholds.fill_(-1.0)
    moved = {}
    for objective in (TaskLoss(), bound(Exits(), network, task)):
        before = {name: one.detach().clone() for name, one in network.named_parameters()}
        train(network, task, Training(epochs=1, lr=0.1, optimizer="sgd", precision="float32"), objectives=(objective,))
        moved[type(objective)] = {
            name for name, one in network.named_parameters() if not torch.equal(one.detach(), before[name])
        }
    assert moved[TaskLoss] == {"layers.0.weight", "layers.0.bias", "heads.0.weight", "heads.0.bias"}
    assert len(moved[Exits]) == 12


def test_recipe_trains_all_classifiers_of_an_msdnet():
    data = Data(torch.randn(16, 3, 16, 16), torch.arange(16) % 10)
    task = Task(data, data, data, calibration=data, batch=8, trial=True)
    network = msdnet(exits=3, even=True, width=2, growth=2, head=4).eval()
    small, report = cortado.compress(network, task, "finetune epochs=1 objectives=[exits: {distill: 0.3}]")
    for before, after in zip(network.classifiers, small.classifiers, strict=True):
        assert not torch.equal(before[-1].weight, after[-1].weight)
    assert list(report.stages[0].curves) == ["exit 1", "exit 2", "exit 3"]


def test_network_without_answers_and_wrong_weights_are_refused(network, task):
    plain = BY_NAME["residual"]
    with pytest.raises(BadNetwork, match="has no answers to choose from"):
        Finetune(objectives=["exits"]).apply(View(plain.make(), plain.make(), plain.example), plain.task())
    with pytest.raises(BadValue, match="weights must be as many as choose has answers, 3, got 2"):
        bound(Exits(weights=(1.0, 1.0)), network, task)
    with pytest.raises(BadValue, match="it knows no answers yet"):
        Exits().terms(given_step(ANSWERS[0], targets=LABELS))
    with pytest.raises(BadValue, match="it learns from labels"):
        Exits(data="unlabelled")
