"""teacher_cost: what a teacher's logits add to a step of fine-tuning, against the teacher's forward pass alone.

ResNet-8 learns from labels, and from labels and the logits of ResNet-20, which answers anew at every step. Random pictures of
CIFAR's size in batches of 128, float32. Seconds of the processor for each step as the training loop makes it, reading its batch
included; plain steps, taught steps and the teacher's own pass over one batch take turns, and each round is compared with itself.
"""

import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import nn

from bench.result import row
from cortado.nets.resnet import CifarResNet
from cortado.progress import quiet
from cortado.task.task import Data, Task
from cortado.training.distributed import Processes
from cortado.training.loop import TASK_ALONE, Calls, Loop
from cortado.training.objectives.logits import Logits
from cortado.training.training import Training

BATCH, SAMPLES, ROUNDS, WARM = 128, 512, 25, 3
MOST = 10
"""% of a plain step that the loop may add to the teacher's forward pass."""


def pictures() -> Task:
    """Return random pictures with random labels."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(SAMPLES, 3, 32, 32, generator=generator)
    data = Data(images, torch.randint(0, 10, (SAMPLES,), generator=generator))
    return Task(data, data, data, batch=BATCH, device="cpu", trial=True)


def steps(teachers: tuple[nn.Module, ...]) -> Iterator[int]:
    """Yield after each step of a training of a fresh ResNet-8."""
    torch.manual_seed(0)
    objectives = (*TASK_ALONE, Logits()) if teachers else TASK_ALONE
    epochs = (ROUNDS + WARM + 1) * BATCH / SAMPLES
    training = Training(epochs=epochs, lr=0.01, optimizer="sgd", precision="float32", cache="live")
    loop = Loop(CifarResNet(1), pictures(), training, Processes(torch.device("cpu")), Calls(0, "bench", quiet()))
    loop.prepare(objectives, teachers)
    return loop.steps()


def rounds() -> dict[str, np.ndarray]:
    """Return the processor's seconds of each kind of step in every round."""
    torch.manual_seed(1)
    teacher = CifarResNet(3).eval()
    inputs = torch.randn(BATCH, 3, 32, 32)
    plain, taught = steps(()), steps((teacher,))

    @torch.no_grad()
    def forward() -> Any:
        return teacher(inputs)

    calls = {"plain": lambda: next(plain), "taught": lambda: next(taught), "forward": forward}
    taken: dict[str, list[float]] = {name: [] for name in calls}
    for number in range(WARM + ROUNDS):
        for name, call in calls.items():
            start = time.process_time()
            call()
            if number >= WARM:
                taken[name].append(time.process_time() - start)
    return {name: np.array(seconds) for name, seconds in taken.items()}


def run() -> list[dict[str, Any]]:
    """Return the three times, and what the loop adds."""
    taken = rounds()
    added = 100 * (taken["taught"] - taken["plain"] - taken["forward"]) / taken["plain"]
    low, middle, high = np.quantile(added, (0.25, 0.5, 0.75))
    return [
        row("a step from labels, ResNet-8", milliseconds(taken["plain"]), "ms"),
        row("a step from labels and the logits of ResNet-20", milliseconds(taken["taught"]), "ms"),
        row("the teacher's forward pass alone", milliseconds(taken["forward"]), "ms"),
        row(
            "what a taught step takes beyond a plain step and the teacher's pass, of a plain step", float(middle), "%", MOST,
            quartiles=[float(low), float(high)],
        ),
    ]  # fmt: skip


def milliseconds(seconds: np.ndarray) -> float:
    """Return the median in ms."""
    return 1000 * float(np.median(seconds))
