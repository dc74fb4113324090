"""teach_camvid: a segmenter of 80,000 parameters learns street scenes alone, or is taught by ESPNet, for 100 epochs.

All learn from the same 367 frames, stored with 7 mirrored and zoomed copies each, in the same order; an epoch is as many
frames as the training set has. The teacher's answers are computed once, and kept. Scores are the mean IoU over 11 classes on
every fourth test frame; the validation frames are those of the built-in task. Few labels: 31 of the frames have theirs, and
the teacher speaks on all others. The teacher was trained on all of them.
"""

import dataclasses
import time
from functools import cache
from statistics import mean
from typing import Any

import torch
from torch import Tensor, nn

from bench import segmenter
from bench.codistillation import spread
from bench.kept import kept
from bench.result import PIECES, row
from cortado.methods.finetune import Finetune
from cortado.network.view import View
from cortado.task.data import Data
from cortado.task.move import Move
from cortado.task.task import Task
from cortado.tasks import camvid

SEEDS = [0, 1]
EPOCHS, COPIES, FEW = 100.0, 7, 31
MOVE = Move(zoom=(0.75, 1.5), void=camvid.CLASSES)
LEAST, BAR, FEW_BAR = 48.0, 1.0, 2.0
BODY = {"at": "body", "of": "network.encoder.b3"}
NONE = "none"
WAYS: dict[str, list[Any]] = {
    NONE: ["task"],
    "pixel-wise": ["task", {"logits": {"temperature": 1.0}}],
    "channel-wise": ["task", {"channelwise": {"temperature": 4.0}}],
    "pair-wise": ["task", {"pairwise": {**BODY, "weight": 5.0}}],
    "attention": ["task", {"attention": {**BODY, "weight": 1.0}}],
    "mimic": ["task", {"features": {**BODY, "weight": 0.5}}],
    "holistic": ["task", {"logits": {"temperature": 1.0}}, {"holistic": {"weight": 0.1}}],
}


@cache
def copies() -> tuple[Tensor, Tensor]:
    """Return all training frames and their moved copies, uint8, with masks at a quarter of their size."""
    frames, masks = segmenter.memory("train")
    generator = torch.Generator().manual_seed(0)
    found = [(frames, segmenter.quarter(masks).contiguous())]
    for _ in range(COPIES):
        moved = [
            MOVE.drawn(len(part), generator) for part in frames.split(8)
        ]  # fmt: skip
        pairs = [
            (moved_frames(part, maps), MOVE.moved(segmenter.quarter(mask).contiguous(), maps))
            for part, mask, maps in zip(frames.split(8), masks.split(8), moved, strict=True)
        ]
        found.append((torch.cat([one for one, _ in pairs]), torch.cat([one for _, one in pairs])))
    return torch.cat([one for one, _ in found]), torch.cat([one for _, one in found])


def moved_frames(frames: Tensor, maps: Tensor) -> Tensor:
    """Return frames (N, 3, H, W), uint8, moved, with grey where nothing comes from."""
    return (MOVE.moved(frames.float() - 107, maps) + 107).round().clamp(0, 255).to(torch.uint8)


@cache
def task() -> Task:
    """Return the task on the stored copies."""
    frames, masks = copies()
    plain = segmenter.task()
    return dataclasses.replace(plain, train=Data(frames, masks.long(), camvid.prepared))


def few() -> Task:
    """Return the task with labels of 31 frames and their copies; all frames are unlabelled data."""
    count = len(segmenter.memory("train")[0])
    chosen = torch.arange(0, count, -(-count // FEW))
    numbers = torch.cat([chosen + count * copy for copy in range(1 + COPIES)])
    whole = task()
    unlabelled = Data(whole.train.inputs, None, camvid.prepared)
    return dataclasses.replace(whole, train=whole.train.pick(numbers), unlabelled=unlabelled)


def trained(name: str, data: Task, seed: int, objectives: list[Any]) -> dict[str, Any]:
    """Return the kept run of these settings, or train and score the student now."""

    def make() -> dict[str, Any]:
        start = time.process_time()
        network = learned(data, seed, objectives)
        minutes = (time.process_time() - start) / 60
        found = {
            "settings": settings,
            "validation": segmenter.score(network, data.validation),
            "test": segmenter.score(network, data.test),
            "minutes": round(minutes, 2),
        }
        print(found, flush=True)
        return found

    settings = [name, seed, EPOCHS, objectives]
    return kept("teach_camvid", settings, make, PIECES)


def learned(data: Task, seed: int, objectives: list[Any]) -> nn.Module:
    """Return the student trained on these objectives, for as many steps whatever the data are."""
    network, data = segmenter.student(seed), dataclasses.replace(data, seed=seed)
    steps = EPOCHS * -(-len(segmenter.memory("train")[0]) // data.batch)
    how = segmenter.training(EPOCHS, precision="bfloat16", cache="kept")
    how = dataclasses.replace(how, epochs=steps * data.batch / len(data.train))
    taught = {} if objectives == WAYS[NONE] else {"teacher": segmenter.teacher()}
    Finetune(how, objectives=objectives, **taught).apply(View(network, network, data.example), data)
    return network


def run(seeds: list[int]) -> list[dict[str, Any]]:
    """Return the table of all ways to learn, and what 31 labels and the teacher give."""
    torch.set_num_threads(1)
    whole = task()
    runs = {way: [trained(way, whole, seed, objectives) for seed in seeds] for way, objectives in WAYS.items()}
    none = runs[NONE]
    table = [
        spread(f"{way}: test mIoU", [one["test"] for one in found])
        | {"validation": mean(one["validation"] for one in found)}
        for way, found in runs.items()
    ]
    gains = {
        way: mean(a["test"] - b["test"] for a, b in zip(found, none, strict=True))
        for way, found in runs.items() if way != NONE
    }  # fmt: skip
    best = max(gains, key=lambda way: mean(one["validation"] for one in runs[way]))
    own = [trained("few: labels", few(), seed, ["task"]) for seed in seeds]
    spoken = [trained("few: teacher", few(), seed, ["task", UNLABELLED]) for seed in seeds]
    return [
        row("teacher: test mIoU", segmenter.score(segmenter.teacher(), whole.test), "%"),
        *table,
        row("labels alone: test mIoU", mean(one["test"] for one in none), "%", LEAST, "higher"),
        row(f"best on validation ({best}) over none, test mIoU", gains[best], "points", BAR, "higher", gains=gains),
        spread(f"{FEW} labels: test mIoU", [one["test"] for one in own]),
        row(
            f"{FEW} labels, and the teacher on all frames, over {FEW} labels",
            mean(a["test"] - b["test"] for a, b in zip(spoken, own, strict=True)), "points", FEW_BAR, "higher",
        ),
    ]  # fmt: skip


UNLABELLED = {"logits": {"data": "unlabelled", "temperature": 1.0}}
