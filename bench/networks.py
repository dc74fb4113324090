"""Plain networks trained here for the benches, once for each seed; kept under bench/cache.

Their pixels are not centred: black is 0, as for the networks of the papers (Caffe's LeNets scale by 1/256). A centred
black is not 0, so that the weights of the empty border act as one more bias, which pruning would have to keep.
"""

import dataclasses
import json
from collections.abc import Callable
from hashlib import blake2b
from typing import Any

import torch
from safetensors.torch import save_file
from torch import nn

from bench.result import CACHE
from cortado.engine.job import own_tensors
from cortado.nets.checkpoint import load_weights
from cortado.nets.lenet import lenet_5, lenet_300_100
from cortado.nets.mlp import mlp_1024
from cortado.task.measure import mean_score
from cortado.task.task import Data, Task
from cortado.tasks.mnist import task as centred_mnist
from cortado.tasks.pixels import Normalise
from cortado.training.loop import Training, train

MAKERS: dict[str, Callable[[], nn.Module]] = {"LeNet-300-100": lenet_300_100, "LeNet-5": lenet_5, "MLP-1024": mlp_1024}
TRAINING: dict[str, dict[str, Any]] = {
    "LeNet-300-100": {"epochs": 20, "lr": 1e-3, "decay": 1e-5, "average": 0.2},
    "LeNet-5": {"epochs": 10, "lr": 1e-3, "decay": 1e-5, "average": 0.2, "precision": "bfloat16"},
    "MLP-1024": {"epochs": 15, "lr": 1e-3, "decay": 1e-5, "average": 0.2},
}


BLACK_IS_ZERO = Normalise(mean=(0.0,), std=(0.3081,))


def mnist(seed: int) -> Task:
    """MNIST with black at 0 and the usual deviation of 1; the same split as the built-in task."""
    task = centred_mnist(seed)
    parts = {part: getattr(task, part) for part in ("train", "validation", "test", "calibration")}
    moved = {part: Data(data.inputs, data.targets, BLACK_IS_ZERO) for part, data in parts.items()}
    return dataclasses.replace(task, **moved)


def untrained(name: str, seed: int) -> nn.Module:
    """A network with the fresh weights of its seed."""
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(seed)
        return MAKERS[name]().eval()


def trained(name: str, seed: int) -> tuple[nn.Module, Task]:
    """The network trained on MNIST's 55,000 training images as TRAINING says, and the task of that seed.

    Trained at the first call, read from the cache afterwards; another TRAINING is another file.
    """
    task, network, plan = mnist(seed), untrained(name, seed), TRAINING[name]
    mark = blake2b(
        json.dumps([plan, task.batch, repr(BLACK_IS_ZERO)], sort_keys=True).encode(), digest_size=4
    ).hexdigest()
    path = CACHE / "original" / f"{name}_{seed}_{mark}.safetensors"
    if path.exists():
        load_weights(network, path)
    else:
        train(network, task, Training(**plan), seed=seed)
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file(own_tensors(network), path)
    return network.eval(), task


def error(network: nn.Module, task: Task, data: Data) -> float:
    """Share of wrong answers, in %."""
    return 100.0 - mean_score(network, data, task.metric)
