"""Four processes: plain training, a teacher and codistillation end as one process does with the same batches."""

import multiprocessing
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import distributed, nn

from cortado.methods.distill.peers import DistillPeers
from cortado.methods.finetune import Finetune
from cortado.methods.method import Method
from cortado.network.view import View
from cortado.task.data import Data
from cortado.task.task import Task

PROCESSES, SAMPLES = 4, 45
"""Batches of 16, 16 and 13: the last one leaves four samples to one process and three to the others."""
KNOBS = {"epochs": 2, "lr": 0.05, "optimizer": "sgd", "precision": "float32"}


def network(seed: int) -> nn.Module:
    """No batch norm, which would see a process's share alone."""
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(6, 12), nn.ReLU(), nn.Linear(12, 3))


CASES: dict[str, Method] = {
    "task": Finetune(**KNOBS),
    "teacher": Finetune(teacher=network(1), objectives=["task", "logits"], **KNOBS),
    "peers": DistillPeers(peers=PROCESSES, every=2, burn_in=0.3, **KNOBS),
}


def after(method: Method) -> dict[str, object]:
    """The values of a network after a method, and the curves of the training."""
    inputs = torch.randn(SAMPLES, 6, generator=torch.Generator().manual_seed(0))
    data = Data(inputs, (inputs[:, 0] > 0).long() + (inputs[:, 1] > 0.5))
    task = Task(data, data, data, batch=16, device="cpu", trial=True)
    trained = network(0)
    view = View(trained, network(0), task.example)
    method.apply(view, task)
    return {"values": torch.cat([one.detach().flatten() for one in trained.parameters()]), "curves": view.curves}


@pytest.fixture(scope="module")
def in_four(tmp_path_factory) -> list[dict]:
    """What each of four processes has after every case."""
    folder = tmp_path_factory.mktemp("four")
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2]), "OMP_NUM_THREADS": "1"}
    all_four = subprocess.run(
        [sys.executable, __file__, str(folder)], env=environment, capture_output=True, text=True, timeout=200
    )
    assert all_four.returncode == 0, all_four.stderr[-3000:]
    return [torch.load(folder / f"{rank}.pt") for rank in range(PROCESSES)]


@pytest.mark.parametrize("case", list(CASES))
def test_four_processes_equal_one(case, in_four):
    one = after(CASES[case])
    start = torch.cat([each.detach().flatten() for each in network(0).parameters()])
    assert float((one["values"] - start).abs().max()) > 0.01
    for found in in_four:
        assert torch.equal(found[case]["values"], in_four[0][case]["values"])
        torch.testing.assert_close(found[case]["values"], one["values"], rtol=1e-4, atol=1e-5)
        assert found[case]["curves"].keys() == one["curves"].keys()
        for name, curve in one["curves"].items():
            assert found[case]["curves"][name] == pytest.approx(curve, rel=1e-3)


def child(rank: int, folder: str) -> None:
    """Train every case as one of four processes."""
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(PROCESSES), "MASTER_ADDR": "localhost", "MASTER_PORT": "0"}
    torch.set_num_threads(1)
    store = distributed.FileStore(f"{folder}/store", PROCESSES)
    distributed.init_process_group("gloo", store=store, rank=rank, world_size=PROCESSES)
    found = {case: after(method) for case, method in CASES.items()}
    torch.save(found, Path(folder) / f"{rank}.pt")
    distributed.destroy_process_group()


if __name__ == "__main__":
    # Forked, so that torch is loaded once.
    forked = multiprocessing.get_context("fork")
    children = [forked.Process(target=child, args=(rank, sys.argv[1])) for rank in range(PROCESSES)]
    for one in children:
        one.start()
    for one in children:
        one.join()
    sys.exit(max(abs(one.exitcode or 0) for one in children))
