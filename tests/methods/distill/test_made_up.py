"""distill/made_up: the teacher's answers to made-up inputs, and no labels."""

import copy
import dataclasses

import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

from cortado.errors import BadTask
from cortado.methods.distill.logits import DistillLogits
from cortado.methods.distill.made_up import DistillMadeUp, made_up
from cortado.network.view import View
from cortado.task.data import Data
from cortado.task.task import Task


def data(count: int = 40) -> Data:
    pixels = torch.randint(0, 256, (count, 4), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    return Data(pixels, torch.arange(count) % 3, prepare=lambda one: one.float() / 255)


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(1)


def test_first_come_the_inputs_and_then_their_copies():
    source, made = data(), made_up(data(), 3, 0.5, 1.0, generator())
    assert len(made) == 160
    inputs, targets = next(made.batches(160, generator()))
    order = torch.randperm(160, generator=generator())
    original = source.prepare(source.inputs)[order % 40]
    assert torch.equal(targets, source.targets[order % 40])
    kept = (inputs == original).all(1)
    assert bool(kept[order < 40].all()) and float(kept[order >= 40].float().mean()) < 0.3
    assert torch.equal(next(made.original().batches(160))[0][:40], source.prepare(source.inputs))


def test_items_and_trees_are_made_up_too():
    pairs = TensorDataset(torch.randn(10, 4, generator=generator()), torch.arange(10))
    assert next(made_up(Data(pairs), 2, 0.5, 1.0, generator()).batches(30, generator()))[0].shape == (30, 4)
    tree = Data({"ids": torch.arange(12).view(6, 2), "size": torch.randn(6, generator=generator())}, torch.arange(6))
    inputs, _ = next(made_up(tree, 1, 0.5, 1.0, generator()).batches(12, generator()))
    assert inputs["ids"].dtype == torch.int64 and inputs["size"].shape == (12,)


def networks() -> tuple[nn.Module, nn.Module]:
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(4, 3)), nn.Sequential(nn.Linear(4, 16), nn.Tanh(), nn.Linear(16, 3))


def task() -> Task:
    return Task(data(), data(), data(), device="cpu", batch=16, trial=True)


def test_labels_are_not_read():
    def no_loss(outputs, targets):
        raise AssertionError("the task's loss was asked for")

    network, teacher = networks()
    view = View(network, copy.deepcopy(network), task().example)
    DistillMadeUp(epochs=1, copies=2, teacher=teacher).apply(view, dataclasses.replace(task(), loss=no_loss))
    assert list(view.curves) == ["logits"] and "80 inputs made up from 40" in view.notes


def test_without_copies_it_is_distillation_from_logits():
    own, found = task(), []
    for method in (
        DistillMadeUp(epochs=2, copies=0, teacher=networks()[1], temperature=2.0, cache="live"),
        DistillLogits(epochs=2, teacher=networks()[1], temperature=2.0, hard=0.0, soft=1.0, cache="live"),
    ):
        network, _ = networks()
        method.apply(View(network, copy.deepcopy(network), own.example), own)
        found.append(network[0].weight.detach())
    assert torch.equal(found[0], found[1])


def test_made_up_inputs_teach_what_lies_between_few_inputs():
    """After as many steps, a network taught on made-up inputs as well is nearer to its teacher there."""
    few, teacher, apart = data(16), networks()[1], {}
    own = Task(few, few, few, device="cpu", batch=16, trial=True)
    with torch.no_grad():
        teacher[0].weight *= 2
        teacher[2].weight *= 8
    between = next(made_up(few, 20, 0.5, 1.0, generator()).batches(400, generator()))[0]
    for copies, epochs in ((0, 420), (20, 20)):
        with torch.random.fork_rng(devices=()):
            torch.manual_seed(2)
            network = nn.Sequential(nn.Linear(4, 32), nn.ReLU(), nn.Linear(32, 3))
        method = DistillMadeUp(epochs=epochs, copies=copies, teacher=teacher, lr=0.02)
        method.apply(View(network, copy.deepcopy(network), own.example), own)
        with torch.no_grad():
            apart[copies] = float((network(between).softmax(1) - teacher(between).softmax(1)).abs().mean())
    assert apart[20] < 0.7 * apart[0]


def test_lists_are_refused():
    listed = Data([torch.zeros(2), torch.zeros(3)], torch.arange(2))
    with pytest.raises(BadTask, match="distill/logits"):
        made_up(listed, 1, 0.5, 1.0, generator())
