"""codistillation (Anil et al., 2018): two processes, each with its own half of 4,000 MNIST images, against peers apart.

Each of the 784-100-10 networks makes 400 steps of 64 images. From the middle on, peers exchange their weights every 50
steps and learn from each other's stale answers. The pair's gain is what the mean of the two apart networks' probabilities
gains over one of them; the share that is kept is what one codistilled network gains, of that. All accuracies are on the
10,000 test images, means over both peers, by which nothing is chosen. Means over seeds, each with its own 4,000 images.
"""

import dataclasses
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import mean
from typing import Any

import torch
from torch import Tensor, distributed, nn

from bench.house_counts import ROOT
from bench.networks import mnist
from bench.result import row, spread

SEEDS = [0, 1, 2]
IMAGES, STEPS, BATCH = 4000, 400, 64
EVERY = 50
LEAST_SHARE = 50


def few(seed: int) -> Any:
    """Return MNIST with 4,000 training images, scored on the test images: nothing is chosen by their score."""
    task = mnist(seed)
    numbers = torch.randperm(len(task.train), generator=torch.Generator().manual_seed(seed))[:IMAGES]
    return dataclasses.replace(task, train=task.train.pick(numbers), validation=task.test, batch=BATCH, trial=True)


def small(seed: int) -> nn.Module:
    """Return the network with fresh weights."""
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(seed)
        return nn.Sequential(nn.Flatten(), nn.Linear(784, 100), nn.ReLU(), nn.Linear(100, 10))


def training() -> Any:
    """Return how all networks train."""
    from cortado.training.training import Training

    return Training(epochs=STEPS / -(-IMAGES // 2 // BATCH), lr=1e-3, precision="float32")


def apart(seed: int) -> tuple[float, float]:
    """Return the mean accuracy of two networks trained apart, each on its half, and that of the two together."""
    from cortado.task.measure import mean_score
    from cortado.training.loop import train
    from cortado.training.peers import SEED_STEP, strided

    task, outputs, alone = few(seed), [], []
    for number in range(2):
        network = small(seed)
        own = dataclasses.replace(task, train=strided(task.train, number, 2))
        train(network, own, training(), seed=seed + SEED_STEP * number)
        alone.append(mean_score(network, task.test, task.metric))
        outputs.append(probabilities(network, task.test))
    (labels,) = [targets for _, targets in task.test.batches(len(task.test))]
    right = (torch.stack(outputs).mean(0).argmax(1) == labels).double().mean()
    return mean(alone), 100 * float(right)


def probabilities(network: nn.Module, data: Any) -> Tensor:
    """Return a network's probabilities of all samples (N, 10)."""
    with torch.no_grad():
        return torch.cat([network.eval()(inputs).softmax(1) for inputs, _ in data.batches(1000)])


def codistilled(seeds: list[int]) -> list[float]:
    """Return the mean accuracy of two codistilled networks for each seed, trained in two processes."""
    start = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", __file__]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    with tempfile.TemporaryDirectory() as name:
        out = Path(name) / "found.pt"
        words = [sys.executable, *start, str(out), *map(str, seeds)]
        subprocess.run(words, env=environment, check=True, capture_output=True, cwd=ROOT)
        found: list[float] = torch.load(out)
        return found


def train_here(out: Path, seeds: list[int]) -> None:
    """Train as one of two processes; the first one writes what came out."""
    from cortado.training.peers import Codistillation, train_peers

    torch.set_num_threads(1)
    how = Codistillation(2, 0.5, EVERY, 1.0, 2.0, own_data=True, exchange="weights", wait=120.0)
    scores = [
        mean(train_peers(small(seed), few(seed), training(), how, label="codistillation").scores) for seed in seeds
    ]
    if os.environ["RANK"] == "0":
        torch.save(scores, out)
    distributed.destroy_process_group()


def run(seeds: list[int]) -> list[dict[str, Any]]:
    """Return the accuracies apart, together and codistilled, and the share of the pair's gain that one network keeps."""
    torch.set_num_threads(1)
    singles, pairs = zip(*(apart(seed) for seed in seeds), strict=True)
    learned = codistilled(seeds)
    gains = [a - b for a, b in zip(learned, singles, strict=True)]
    whole = [a - b for a, b in zip(pairs, singles, strict=True)]
    return [
        spread("accuracy of a network apart", singles),
        spread("accuracy of the two apart networks together", pairs),
        spread(f"accuracy of a codistilled network, exchange every {EVERY} steps", learned),
        spread("gain of a codistilled network over one apart, points", gains, ""),
        row(
            "share of the pair's gain that a codistilled network keeps", 100 * sum(gains) / sum(whole), "%", LEAST_SHARE,
            "higher", values=[100 * gain / most for gain, most in zip(gains, whole, strict=True)],
        ),
    ]  # fmt: skip


if __name__ == "__main__":
    train_here(Path(sys.argv[1]), [int(part) for part in sys.argv[2:]])
