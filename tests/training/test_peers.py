"""Peers: alone they are finetuning, apart until the burn-in, and the same in one process and in two."""

import copy
import dataclasses
import os
import time
from pathlib import Path

import pytest
import torch
from torch import nn

from cortado.errors import BadValue, Failed
from cortado.methods.distill.peers import DistillPeers
from cortado.methods.finetune import Finetune
from cortado.network.view import View
from cortado.task.data import Data
from cortado.task.task import Task
from cortado.training.loop import train
from cortado.training.peers import SEED_STEP, Codistillation, strided
from cortado.training.training import Training
from tests.fresh import forked

SAMPLES = 71
"""Odd: the halves of two peers have 35 samples each, 3 batches of 16."""
KNOBS = {"epochs": 3, "lr": 0.05, "optimizer": "sgd", "precision": "float32"}


class Net(nn.Module):
    """Batch norm and dropout: statistics that move, and random numbers of the training's own."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm, self.drop, self.last = (
            nn.Linear(6, 12),
            nn.BatchNorm1d(12),
            nn.Dropout(0.2),
            nn.Linear(12, 3),
        )

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.last(self.drop(torch.relu(self.norm(self.first(inputs)))))


def start() -> nn.Module:
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(0)
        return Net()


def task(**changed) -> Task:
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(SAMPLES, 6, generator=generator)
    data = Data(inputs, (inputs[:, 0] > 0).long() + (inputs[:, 1] > 0.5), **changed)
    return Task(data, data, data, batch=16, device="cpu", trial=True)


def values(network: nn.Module) -> torch.Tensor:
    return torch.cat([one.detach().flatten().double() for one in network.state_dict().values()])


def after(method, own: Task | None = None) -> tuple[torch.Tensor, View]:
    """The values of a network, and its view, after a method."""
    network, own = start(), own or task()
    view = View(network, copy.deepcopy(network), own.example)
    method.apply(view, own)
    return values(network), view


def test_one_peer_is_finetune():
    alone, view = after(DistillPeers(peers=1, burn_in=0.0, every=1, **KNOBS))
    finetuned, other = after(Finetune(**KNOBS))
    assert torch.equal(alone, finetuned) and view.curves == other.curves
    assert "weights: 0" in view.notes[0]


def trained_apart(number: int) -> torch.Tensor:
    network, own = start(), task()
    own = dataclasses.replace(own, train=strided(own.train, number, 2))
    train(network, own, Training(**KNOBS), seed=SEED_STEP * number)
    return values(network)


@pytest.mark.parametrize("exchange", ["weights", "answers"])
@pytest.mark.parametrize("knobs", [{"every": 9, "burn_in": 0.0}, {"every": 1, "burn_in": 1.0}])
def test_without_exchange_peers_are_as_if_apart(knobs, exchange):
    """Nine steps: an exchange after them, or a burn-in of all of them, is none."""
    kept, view = after(DistillPeers(exchange=exchange, **knobs, **KNOBS))
    best = int(view.notes[0][5]) - 1
    assert torch.equal(kept, trained_apart(best)) and f"{exchange}: 0" in view.notes[0] and "peers" not in view.curves


@pytest.mark.parametrize("exchange", ["weights", "answers"])
def test_peers_differ_from_those_apart_after_an_exchange(exchange):
    kept, view = after(DistillPeers(exchange=exchange, every=4, burn_in=0.2, **KNOBS))
    assert f"{exchange}: 2" in view.notes[0] and len(view.curves["peers"]) == 2  # after steps 4 and 8 of 9
    assert not any(torch.equal(kept, trained_apart(number)) for number in range(2))


def test_answers_to_what_does_not_vary_are_those_of_the_weights():
    weights, answers = (
        after(DistillPeers(exchange=one, every=2, burn_in=0.0, **KNOBS))[0] for one in ("weights", "answers")
    )
    torch.testing.assert_close(answers, weights, rtol=0, atol=1e-5)


def test_three_peers_learn_from_all_data_and_the_best_is_kept():
    network, own = start(), task()
    view = View(network, copy.deepcopy(network), own.example)
    DistillPeers(peers=3, own_data=False, every=2, burn_in=0.0, **KNOBS).apply(view, own)
    number, scores = int(view.notes[0][5]), view.notes[0].partition(": ")[2].partition(")")[0].split(", ")
    assert float(scores[number - 1]) == max(map(float, scores)) and len(scores) == 3
    right = (network.eval()(own.validation.inputs).argmax(1) == own.validation.targets).double().mean()
    assert float(scores[number - 1]) == pytest.approx(100 * float(right), rel=1e-3)


def test_due_is_every_so_many_steps_from_the_burn_in_on():
    how = Codistillation(2, 0.5, 3, 1.0, 2.0, True, "weights", 1.0)
    assert [done for done in range(13) if how.due(done, 12)] == [6, 9]
    assert [done for done in range(13) if dataclasses.replace(how, burn_in=0.6).due(done, 12)] == [9]


def test_parts_of_the_data_are_equal_in_size_and_disjoint():
    data = Data(torch.arange(11.0)[:, None], torch.arange(11))
    parts = [strided(data, number, 3).targets.tolist() for number in range(3)]
    assert parts == [[0, 3, 6], [1, 4, 7], [2, 5, 8]]
    items = Data(torch.utils.data.TensorDataset(torch.arange(11.0)[:, None], torch.arange(11)))
    assert [strided(items, 1, 3).first(9).targets.tolist()] == parts[1:2]
    with pytest.raises(BadValue, match="own_data: false"):
        strided(data, 0, 12)


def test_only_chosen_weights_learn_and_the_callers_random_state_stays():
    before = start().state_dict()
    torch.manual_seed(3)
    wanted = torch.rand(1)
    torch.manual_seed(3)
    network, own = start(), task()
    DistillPeers(where="last", every=2, burn_in=0.0, **KNOBS).apply(View(network, start(), own.example), own)
    assert torch.equal(torch.rand(1), wanted)
    found = network.state_dict()
    assert torch.equal(found["first.weight"], before["first.weight"])
    assert not torch.equal(found["last.weight"], before["last.weight"])
    assert all(one.requires_grad for one in network.parameters())


def test_answers_to_augmented_data_are_refused():
    varied = task(augment=lambda inputs, generator: inputs + 1)
    with pytest.raises(BadValue, match="exchange: weights"):
        after(DistillPeers(exchange="answers", **KNOBS), varied)


CASES = {
    "weights": {"every": 2, "burn_in": 0.3}, "answers": {"every": 2, "burn_in": 0.3, "exchange": "answers"},
    "same data": {"every": 4, "own_data": False, "exchange": "answers", "burn_in": 0.0},
}  # fmt: skip


@pytest.fixture(scope="module")
def in_two(tmp_path_factory) -> list[dict]:
    """What each of two processes found, the second of which ends early in the last case."""
    folder = tmp_path_factory.mktemp("peers")
    both = forked("tests.training.test_peers:child", 2, folder)
    assert (folder / "0.pt").exists() and (folder / "1.pt").exists(), both.stderr[-3000:]
    return [torch.load(folder / f"{rank}.pt") for rank in range(2)]


@pytest.mark.parametrize("case", list(CASES))
def test_two_processes_equal_one(case, in_two):
    one, view = after(DistillPeers(**CASES[case], **KNOBS))
    for found in in_two:
        assert torch.equal(found[case]["values"], one)
        assert found[case]["curves"] == view.curves
        assert found[case]["note"].startswith(view.notes[0]) and "sent by each" in found[case]["note"]


def test_another_number_of_processes_is_refused(in_two):
    assert all("start 3" in found["three"] for found in in_two)


def test_a_peer_that_hangs_is_waited_for_no_longer_than_asked(in_two):
    slow = in_two[0]["slow"]
    assert "gave no answer for 2 s" in slow["message"] and slow["seconds"] < 3.5


def test_a_lost_peer_ends_the_stage_with_its_step_and_a_way_out(in_two):
    lost = in_two[0]["lost"]
    assert "a peer was lost after step 4" in lost["message"] and "continue with resume" in lost["message"]
    assert lost["seconds"] < 30


def child(rank: int, folder: str) -> None:
    """Train every case as one of two processes; the second one ends within the last one."""
    found: dict = {}
    for case, knobs in CASES.items():
        ended, view = after(DistillPeers(**knobs, **KNOBS))
        found[case] = {"values": ended, "curves": view.curves, "note": view.notes[0]}
    try:
        after(DistillPeers(peers=3, **KNOBS))
    except BadValue as error:
        found["three"] = str(error)
    for name, wait, end in (("slow", 2.0, lambda: time.sleep(4.0)), ("lost", 20.0, lambda: os._exit(1))):
        torch.save(found, Path(folder) / f"{rank}.pt")
        began = time.monotonic()
        try:
            after(DistillPeers(every=2, burn_in=0.3, wait=wait, **KNOBS), ending_task(end) if rank else None)
        except Failed as error:
            found[name] = {"message": str(error), "seconds": time.monotonic() - began}
    torch.save(found, Path(folder) / f"{rank}.pt")
    os._exit(0)


def ending_task(end) -> Task:
    """A task that calls `end` in its fourth step."""
    steps = []

    def loss(outputs, targets):
        steps.append(1)
        if len(steps) == 4:
            end()
        return nn.functional.cross_entropy(outputs, targets)

    return dataclasses.replace(task(), loss=loss)
