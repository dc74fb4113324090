"""Several processes: their training is that of one process with the same batches, whatever is learned from."""

import copy
import dataclasses
import math
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.distributed.tensor import DTensor

from cortado.nets.lenet import lenet_5
from cortado.task.task import Data, Task
from cortado.training.loop import train
from cortado.training.objectives.features import Features
from cortado.training.objectives.logits import Logits
from cortado.training.objectives.nuclear_norm import nuclear_norm
from cortado.training.objectives.objective import Added
from cortado.training.objectives.task import TaskLoss
from cortado.training.training import Training
from tests.fresh import forked

TRAINING = Training(epochs=1, lr=0.05, optimizer="sgd", precision="float32", cache="memory")
SAMPLES = 45
"""With batches of 16 the last one has 13: seven for the first process, six for the second."""


def lenet_task() -> Task:
    generator = torch.Generator().manual_seed(0)
    data = Data(torch.randn(SAMPLES, 1, 28, 28, generator=generator), torch.arange(SAMPLES) % 10)
    return Task(data, data, data, batch=16, device="cpu", trial=True)


def made(name: str) -> tuple[nn.Module, Task, dict]:
    """A network, its task, and what it learns from: the task alone, unlabelled data beside it, or everything at once."""
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(0)
        network, teacher = lenet_5(), lenet_5()
    if name == "beside":
        # Passes of 5, of which the second process has 2, beside batches of 16, 16 and 13.
        unlabelled = torch.randn(5, 1, 28, 28, generator=torch.Generator().manual_seed(1))
        objectives = (TaskLoss(), Logits(data="unlabelled"))
        return (
            network,
            dataclasses.replace(lenet_task(), unlabelled=unlabelled),
            {"objectives": objectives, "teachers": (teacher,)},
        )
    if name != "everything":
        return network, lenet_task(), {}
    path, layer = next((path, one) for path, one in network.named_modules() if isinstance(one, nn.Linear))
    last = [path for path, one in network.named_modules() if isinstance(one, nn.Linear)][-1]
    objectives = (
        TaskLoss(0.5), Logits(0.5), Features(0.1, at=path, of=last),
        Added(1e-3, "rank", lambda step: nuclear_norm(layer.weight)),
    )  # fmt: skip
    return network, lenet_task(), {"objectives": objectives, "teachers": (teacher,)}


def values(network: nn.Module) -> torch.Tensor:
    return torch.cat([one.detach().flatten() for one in network.state_dict().values()])


CASES: dict[str, tuple[str, dict[str, object]]] = {
    "task": ("task", {}), "everything": ("everything", {}), "beside": ("beside", {}), "fp16": ("task", {"hook": "fp16"}),
    "powersgd": ("task", {"hook": "powersgd"}), "ternary": ("task", {"hook": "ternary"}), "shard": ("task", {"shard": True, "average": 0.5}),
}  # fmt: skip
"""What is trained, and with which knobs besides."""


@pytest.fixture(scope="module")
def in_two(tmp_path_factory) -> dict[str, list[dict]]:
    """What each of two processes has after each training: one start of both for all."""
    folder = tmp_path_factory.mktemp("two")
    both = forked("tests.training.test_distributed:child", 2, folder, group="environment")
    assert both.returncode == 0, both.stderr[-3000:]
    found = [torch.load(folder / f"{rank}.pt") for rank in range(2)]
    return {case: [one[case] for one in found] for case in CASES}


@pytest.mark.parametrize("name", ["task", "everything", "beside"])
def test_two_processes_equal_one(name, in_two):
    network, task, given = made(name)
    trained = train(network, task, TRAINING, **given)
    first, second = in_two[name]
    assert torch.equal(first["values"], second["values"]) and first["curves"] == second["curves"]
    torch.testing.assert_close(first["values"], values(network), rtol=0, atol=1e-5)
    for term, curve in trained.curves.items():
        assert first["curves"][term] == pytest.approx(curve, rel=1e-4), term


@pytest.mark.parametrize(("hook", "share"), [("fp16", 0.01), ("powersgd", 0.9)])
def test_compressed_gradients_come_near(hook, share, in_two):
    network, task, _ = made("task")
    start = values(network).clone()
    train(network, task, TRAINING)
    first, second = in_two[hook]
    assert torch.equal(first["values"], second["values"])
    off = float((first["values"] - values(network)).norm()) / float((values(network) - start).norm())
    assert 0 < off < share


@pytest.mark.parametrize(("name", "sent"), [("task", "5.17 MB"), ("fp16", "2.59 MB"), ("ternary", "323 KB")])
def test_bytes_of_gradients_are_counted(name, sent, in_two):
    # Three steps of 431,080 values.
    for one in in_two[name]:
        assert one["notes"] == [f"{sent} of gradients sent by each process, 5.17 MB as float32"]


def test_one_process_and_split_parameters_send_no_gradients_of_ours(in_two):
    network, task, _ = made("task")
    assert train(network, task, TRAINING).traffic.notes() == [] == in_two["shard"][0]["notes"]


def test_ternary_gradients_leave_equal_weights_that_move_with_those_of_one_process(in_two):
    network, task, _ = made("task")
    start = values(network).clone()
    train(network, task, TRAINING)
    first, second = in_two["ternary"]
    assert torch.equal(first["values"], second["values"])
    moves = [first["values"] - start, values(network) - start]
    assert float(torch.cosine_similarity(moves[0], moves[1], 0)) > 0.1


def test_split_parameters_are_whole_afterwards(in_two):
    network, task, _ = made("task")
    train(network, task, dataclasses.replace(TRAINING, average=0.5))
    first, second = in_two["shard"]
    assert torch.equal(first["values"], second["values"]) and first["keys"] == list(network.state_dict())
    torch.testing.assert_close(first["values"], values(network), rtol=0, atol=1e-5)
    sizes = [sum(one["seen"] for one in (first, second)), sum(one.numel() for one in network.parameters())]
    assert sizes[0] == sizes[1] and first["seen"] < 0.6 * sizes[1]


def child(rank: int, folder: str) -> None:
    """Train every case as one of two processes, and keep what it has afterwards."""
    found = {}
    for case, (name, changed) in CASES.items():
        network, task, given = made(name)
        if rank:
            with torch.no_grad():
                next(network.parameters()).add_(math.pi)  # the first process's values count
        optimizers = []

        def sgd(groups, optimizers=optimizers):
            optimizers.append(torch.optim.SGD(groups, 0.05, 0.9, nesterov=True))
            return optimizers[0]

        trained = train(network, task, dataclasses.replace(TRAINING, optimizer=sgd, **changed), **given)
        moved = [one for group in optimizers[0].param_groups for one in group["params"]]
        seen = sum(one.to_local().numel() if isinstance(one, DTensor) else one.numel() for one in moved)
        again = copy.deepcopy(network)  # nothing of the processes is left in it
        found[case] = {
            "values": values(again),
            "curves": trained.curves,
            "notes": trained.traffic.notes(),
            "keys": list(again.state_dict()),
            "seen": seen,
        }
    torch.save(found, Path(folder) / f"{rank}.pt")
    torch.distributed.destroy_process_group()
