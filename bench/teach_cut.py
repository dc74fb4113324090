"""teach_cut: networks of which 80 % of the weights are gone learn again for 120 steps: from labels, or from the original.

ResNet-8 and ResNet-20 were trained here (bench/held_out.py), so that neither has seen the 10,000 pictures on which all are
scored. Cut at once, by magnitude; Adam, batches of 128, the same batches in the same order for each way to learn. Seeds:
three trained ResNet-8, one ResNet-20 with three orders of batches. No weight was tuned: the first choice of each is shown.
"""

import copy
from statistics import mean
from typing import Any

import torch
from torch import nn

from bench.held_out import task, trained
from bench.result import row
from bench.taught import gain_row, run_of
from cortado.engine.compress import compress
from cortado.methods.finetune import Finetune
from cortado.methods.prune.weights import PruneWeights
from cortado.task.measure import mean_score
from cortado.training.training import Training

SEEDS = [0, 1, 2]
KEEP, STEPS, BATCH = 0.2, 120, 128
BAR = 0.7
LAYERS = "layer1, layer2, layer3"
LOGITS = {"logits": {"weight": 0.9, "temperature": 4.0}}
WAYS: dict[str, list[Any]] = {
    "labels": ["task"],
    "logits": [{"task": {"weight": 0.1}}, LOGITS],
    "logits and features": [{"task": {"weight": 0.1}}, LOGITS, {"features": {"weight": 1.0, "at": LAYERS}}],
    "features": [{"features": {"weight": 1.0, "at": LAYERS}}],
    "DIST": ["task", {"dist": {}}],
}
NETS = {"ResNet-8": SEEDS, "ResNet-20": [0, 0, 0]}
"""Which of the trained networks each seed cuts."""


def learned(name: str, number: int, seed: int, objectives: list[Any]) -> nn.Module:
    """Return a cut network after it has learned again."""
    from dataclasses import replace

    data = replace(task(), seed=seed).for_trial()
    how = Training(epochs=STEPS * BATCH / len(data.train), batch=BATCH, precision="bfloat16")
    recipe = [PruneWeights(keep=KEEP), Finetune(how, objectives=objectives, teacher="original")]
    return compress(copy.deepcopy(trained(name, number)), data, recipe)[0]


def run(seeds: list[int]) -> list[dict[str, Any]]:
    """Return accuracies of each way to learn, and what each is worth over labels."""
    torch.set_num_threads(1)
    rows, count = [], len(task().test)
    for name, numbers in NETS.items():
        whole = [mean_score(trained(name, numbers[seed]), task().test, task().metric) for seed in seeds]
        rows.append(row(f"{name}: accuracy before the cut", mean(whole), "%", values=whole))
        runs = {
            way: [
                run_of(
                    "teach_cut", [name, numbers[seed], seed, KEEP, STEPS, objectives], task(),
                    lambda n=numbers[seed], s=seed, o=objectives, name=name: learned(name, n, s, o),
                )
                for seed in seeds
            ]
            for way, objectives in WAYS.items()
        }  # fmt: skip
        alone = runs["labels"]
        rows += [row(f"{name}: {way}", mean(one["test"] for one in found), "%") for way, found in runs.items()]
        rows += [
            gain_row(f"{name}: {way} over labels", found, alone, count, BAR if "logits" in way else None)
            for way, found in runs.items()
            if way != "labels"
        ]
    return rows
