"""teach_video (Liu et al., 2020): a small segmenter learns from CamVid's video what stays the same, and is judged later in it.

The validation part of CamVid is 101 consecutive frames. The first 60 are learned from without their masks, 6 are left out, and
the last 35 are judged: they come from the same drive, later. The student (bench/segmenter.py) has learned 8 epochs from the
367 training frames. It goes on for 2 epochs, on the labels and besides on nothing else, on ESPNet's answers to the video, on
motion (predictions carried along DIS flow), or on both. Consistency is the mean IoU, pooled over all pairs of judged frames,
between the prediction of a frame, carried along, and that of the next; true masks show what the flow can reach. The test
frames, every 4th, are of other drives. Means over seeds; no variant is chosen by what is judged.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from bench import segmenter
from bench.result import row, spread
from cortado.tasks import camvid
from cortado.training.loop import train
from cortado.training.objectives.logits import Logits
from cortado.training.objectives.motion import Motion
from cortado.training.objectives.objective import Objective
from cortado.training.objectives.task import TaskLoss
from cortado.video.clips import clips
from cortado.video.consistency import Consistency, flows_in_order, label_consistency, predicted_labels
from cortado.video.flow import Dis

SEEDS = [0, 1, 2]
EPOCHS_BEFORE = 8
EPOCHS = 2
LR = 1e-3
LEARNED = range(60)
JUDGED = range(66, 101)
ALL = range(101)
TEACHER = Logits(1.0, 1.0, data="unlabelled")
MOTION = Motion(20.0, data="unlabelled")
VARIANTS: dict[str, tuple[Objective, ...]] = {
    "labels alone": (),
    "labels + the teacher on the video": (TEACHER,),
    "labels + motion": (MOTION,),
    "labels + the teacher on the video + motion": (TEACHER, MOTION),
}
PLAIN, TAUGHT, *_ = VARIANTS
LEAST_GAIN = 5.0
MASKS_FOUND = 88.99
MASKS_APART = 0.05


def linear(progress: float) -> float:
    """Return the factor of the learning rate."""
    return 1 - progress


@cache
def flows(numbers: range) -> Tensor:
    """Return the flow from each of these frames but the first to the one before."""
    return flows_in_order(segmenter.stills("val", numbers), Dis())


def consistency_of(network: nn.Module, numbers: range = JUDGED) -> Consistency:
    """Return how consistent a network is on these frames."""
    labels = predicted_labels(network, segmenter.stills("val", numbers))
    return label_consistency(labels, flows(numbers), camvid.CLASSES)


def figures(network: nn.Module) -> dict[str, float]:
    """Return what is judged of a network."""
    found = consistency_of(network)
    return {
        "consistency": found.iou,
        "pixel agreement": found.agreement,
        "mean IoU on the later video": segmenter.score(network, segmenter.stills("val", JUDGED)),
        "mean IoU on the test frames": segmenter.score(network, segmenter.task().test),
    }


def tuned(seed: int, objectives: Sequence[Objective], teacher: nn.Module) -> nn.Module:
    """Return the student of a seed after two more epochs on its labels and on these objectives."""
    network = segmenter.trained(EPOCHS_BEFORE, seed)
    video = clips(segmenter.stills("val", LEARNED), Dis())
    task = replace(segmenter.task(seed), unlabelled=video)
    training = segmenter.training(EPOCHS, LR, schedule=linear, warmup=0.0)
    teachers = (teacher,) if any(one.taught for one in objectives) else ()
    train(network, task, training, objectives=(TaskLoss(), *objectives), teachers=teachers, seed=seed)
    return network.eval()


def run(seeds: list[int]) -> list[dict[str, Any]]:
    """Return what the flow, the teacher and the student before reach, and each variant."""
    torch.set_num_threads(1)
    teacher = segmenter.teacher()
    before = [figures(segmenter.trained(EPOCHS_BEFORE, seed)) for seed in seeds]
    found = {name: [figures(tuned(seed, added, teacher)) for seed in seeds] for name, added in VARIANTS.items()}
    rows = reference_rows(teacher) + figure_rows(f"{EPOCHS_BEFORE} epochs of labels", before)
    for name, values in found.items():
        rows += figure_rows(f"{EPOCHS} more epochs, {name}", values)
    return rows + gain_rows(found[PLAIN], found[TAUGHT])


def reference_rows(teacher: nn.Module) -> list[dict[str, Any]]:
    """Return the consistency of the true masks and of the teacher."""
    masks = segmenter.memory("val")[1]
    whole = label_consistency(masks, flows(ALL), camvid.CLASSES)
    late = label_consistency(masks[JUDGED.start :], flows(JUDGED), camvid.CLASSES)
    return [
        row("true masks, all 101 frames: consistency", whole.iou, "%"),
        row("true masks, all 101 frames: pixel agreement", whole.agreement, "%"),
        row("true masks, all 101 frames: distance of the consistency from the first measurement", abs(whole.iou - MASKS_FOUND),
            "points", MASKS_APART),
        row("true masks: consistency", late.iou, "%"),
        *(row(f"teacher (ESPNet): {what}", value, "%") for what, value in figures(teacher).items()),
    ]  # fmt: skip


def figure_rows(name: str, found: list[dict[str, float]]) -> list[dict[str, Any]]:
    """Return a row of the mean over seeds for each figure."""
    return [spread(f"{name}: {what}", [one[what] for one in found], better="higher") for what in found[0]]


def gain_rows(plain: list[dict[str, float]], taught: list[dict[str, float]]) -> list[dict[str, Any]]:
    """Return what the teacher's answers to the video are worth."""
    bars = {"consistency": LEAST_GAIN, "mean IoU on the later video": 0.0}
    return [
        spread(f"gain by the teacher on the video: {what}", [b[what] - a[what] for a, b in zip(plain, taught, strict=True)],
               "points", bars.get(what), "higher")
        for what in plain[0]
    ]  # fmt: skip
