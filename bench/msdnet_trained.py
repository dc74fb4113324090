"""MSDNet trained: the small MSDNet of bench/msdnet.py, the same backbone without exits, and ResNets, from scratch.

All see the same 35,000 pictures of CIFAR-10, varied in the same way and in the same order, for as many epochs
(bench/held_out.py has the split). Their logits for the 5,000 validation and the 10,000 held-out pictures are kept.
"""

import time
from collections.abc import Callable
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from bench.held_out import half, task
from bench.result import PIECES
from cortado.nets.msdnet import MSDNet, UpTo, msdnet
from cortado.nets.resnet import CifarResNet
from cortado.network.view import View
from cortado.running.eval_mode import eval_mode
from cortado.task.data import Data
from cortado.training.loop import train
from cortado.training.objectives.exits import Exits
from cortado.training.objectives.objective import Objective
from cortado.training.objectives.task import TaskLoss
from cortado.training.training import Training

EPOCHS = 10.0
OPTIONS: dict[str, Any] = {"exits": 4, "even": True, "width": 16, "growth": 16, "head": 64, "bottleneck": False}
"""Sixteen channels are what the runtime multiplies at once."""
EXITS, ALONE = "MSDNet", "MSDNet, last classifier alone"
NETS: dict[str, Callable[[], nn.Module]] = {
    EXITS: lambda: msdnet(**OPTIONS),
    "ResNet-8": lambda: CifarResNet(1),
    "ResNet-14": lambda: CifarResNet(2),
    "ResNet-8, half as wide": lambda: CifarResNet(1, width=8),
    ALONE: lambda: UpTo(msdnet(**OPTIONS), OPTIONS["exits"] - 1),
    "ResNet-20": lambda: CifarResNet(3),
}
"""In the order in which they are trained."""


def how() -> Training:
    """Return how all train."""
    return Training(epochs=EPOCHS, lr=0.1, optimizer="sgd", decay=5e-4, warmup=0.05, precision="bfloat16")


def untaught(name: str, seed: int) -> nn.Module:
    """Return a network with the fresh weights of its seed."""
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(seed)
        return NETS[name]()


def path_of(name: str, seed: int, ending: str) -> Any:
    """Return where a network's piece is kept."""
    return PIECES / f"msdnet_{name.lower().replace(', ', '_').replace(' ', '_')}_{seed}_{EPOCHS:g}.{ending}"


def learned(name: str, seed: int) -> nn.Module:
    """Return the network, trained; its weights, rounded to float16, are kept beside the results."""
    network, path = untaught(name, seed), path_of(name, seed, "safetensors")
    if not path.exists():
        data, objective = task(), TaskLoss()
        view = View(network, network, data.example)
        used: Objective = Exits().on(view, [], data) if isinstance(network, MSDNet) else objective
        start = time.process_time()
        train(network, data, how(), objectives=(used,), seed=seed, label=f"{name}, seed {seed}")
        minutes = f"{(time.process_time() - start) / 60:.1f}"
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file({key: half(value) for key, value in network.state_dict().items()}, path, {"minutes": minutes})
    network.load_state_dict({key: value.float() if value.dtype == torch.float16 else value
                             for key, value in load_file(path).items()})  # fmt: skip
    return network.eval()


def answers_of(network: nn.Module, data: Data) -> Tensor:
    """Return the logits of all answers of a network for some data, (answers, N, classes)."""
    run = network.answers if isinstance(network, MSDNet) else lambda images: (network(images),)
    with torch.no_grad(), eval_mode(network):
        return torch.cat([torch.stack(run(images)) for images, _ in data.batches(500)], 1)


def train_all(seeds: list[int]) -> None:
    """Train all that is not kept yet, and say how each does on the validation pictures."""
    torch.set_num_threads(1)
    for seed in seeds:
        for name in NETS:
            logits, labels = answers_of(learned(name, seed), task().validation), task().validation.targets
            right = (logits.argmax(2) == labels).double().mean(1)
            print(name, seed, [round(100 * float(one), 2) for one in right], flush=True)


if __name__ == "__main__":
    train_all([0])
