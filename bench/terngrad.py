"""terngrad: ternary gradients (Wen et al., 2017): LeNet-5 on MNIST, four processes, against full gradients.

Both trainings have the same batches, rate and start; each process has a quarter of every batch. Accuracies are on the 10,000
test images; nothing was chosen by them. Bytes are those of one process's messages, counted by the hooks. What a ring of four
puts on its wires is another figure: a sum passes each wire 2 x 3/4 times, a ternary message 3 times.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import mean
from typing import Any

import torch
from torch import distributed

from bench.house_counts import ROOT
from bench.networks import mnist, untrained
from bench.result import row

SEEDS = [0, 1, 2]
PROCESSES = 4
EPOCHS = 2
LR = 0.02
MOST_LOST = 0.3
LEAST_RATIO = 14


def trained(hook: str, seed: int) -> list[dict[str, Any]]:
    """Train in four processes; return what each found."""
    start = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(PROCESSES), __file__]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(
            [sys.executable, *start, hook, str(seed), folder],
            env=environment,
            check=True,
            capture_output=True,
            cwd=ROOT,
        )
        return [torch.load(Path(folder) / f"{rank}.pt") for rank in range(PROCESSES)]


def train_here(hook: str, seed: int, folder: Path) -> None:
    """Train as one of four processes, and write what it found."""
    from cortado.task.measure import mean_score
    from cortado.training.loop import train
    from cortado.training.training import Training

    torch.set_num_threads(1)
    task, network = mnist(seed), untrained("LeNet-5", seed)
    training = Training(epochs=EPOCHS, lr=LR, optimizer="sgd", precision="float32", hook=hook)
    traffic = train(network, task, training, seed=seed).traffic
    values = torch.cat([one.detach().flatten() for one in network.state_dict().values()])
    rank = int(os.environ["RANK"])
    accuracy = mean_score(network, task.test, task.metric) if rank == 0 else None
    found = {"accuracy": accuracy, "sent": traffic.sent, "as_float32": traffic.as_float32, "values": values}
    torch.save(found, folder / f"{rank}.pt")
    distributed.destroy_process_group()


def run(seeds: list[int]) -> list[dict[str, Any]]:
    """Return accuracies with both kinds of gradients, and the ratio of bytes."""
    full = [trained("none", seed) for seed in seeds]
    ternary = [trained("ternary", seed) for seed in seeds]
    lost = [a[0]["accuracy"] - b[0]["accuracy"] for a, b in zip(full, ternary, strict=True)]
    equal = all(torch.equal(one["values"], found[0]["values"]) for found in ternary for one in found)
    one = ternary[0][0]
    ratio = one["as_float32"] / one["sent"]
    return [
        row("accuracy with full gradients", mean(each[0]["accuracy"] for each in full), "%"),
        row("accuracy with ternary gradients", mean(each[0]["accuracy"] for each in ternary), "%"),
        row("accuracy lost by ternary gradients, points", mean(lost), "", MOST_LOST, values=lost),
        row("bytes of float32 gradients over those sent", ratio, "x", LEAST_RATIO, "higher", sent=one["sent"]),
        row("the same on the wires of a ring of four", ratio * 2 / PROCESSES, "x"),
        row("runs after which all processes have equal weights", float(equal) * len(seeds), "", len(seeds), "higher"),
    ]


if __name__ == "__main__":
    train_here(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]))
