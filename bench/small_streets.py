"""CamVid at half its size, for benches that train many small segmenters: its parts, coarse and wrong masks, and training.

Frames are averaged to 176 x 240; the network (bench/segmenter.py) has 80,000 parameters and gives logits of 44 x 60, which are
scored against masks of 176 x 240. Its exact masks, at logits' size, are those of every ninth training frame: 40 or 41.
"""

from collections.abc import Sequence
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from bench.kept import kept
from bench.result import PIECES
from bench.segmenter import SCORE, WARMUP_STEPS, flipped, full_size, memory, poly, student
from cortado.task.data import Data
from cortado.task.measure import mean_score
from cortado.task.metric import Metric
from cortado.task.overlap import mean_of_classes
from cortado.task.task import Task
from cortado.task.taxonomy import IGNORED, Taxonomy
from cortado.tasks import camvid
from cortado.training.loop import train
from cortado.training.training import Training

EXACT, STEP, VALIDATION_STEP, TEST_STEP = 40, 9, 6, 2
BATCH, STEPS = 8, 300
EDGE = 4
"""Rows that are left out above and below, so that the size halves four times."""
VOID = camvid.CLASSES
LABELS = ("sky", "building", "pole", "road", "pavement", "tree", "sign", "fence", "car", "pedestrian", "bicyclist")
GROUPS = {
    "sky": "sky", "built": ("building", "pole", "sign", "fence"), "ground": ("road", "pavement"), "tree": "tree",
    "moving": ("car", "pedestrian", "bicyclist"),
}  # fmt: skip
TAXONOMY = Taxonomy(LABELS, {"fine": LABELS, "coarse": GROUPS})
exact_loss = partial(functional.cross_entropy, ignore_index=VOID)


def in_set(name: str, masks: Tensor) -> Tensor:
    """Return masks of classes and void as labels of a set."""
    of_class = torch.cat([TAXONOMY.members[name].int().argmax(0), torch.tensor([IGNORED])])
    return of_class[masks]


def coarse_overlaps(outputs: Tensor, masks: Tensor) -> Tensor:
    """Return each frame's rows of the mean IoU of coarse labels, from masks of classes."""
    return TAXONOMY.mean_iou("coarse").rows(full_size(outputs, masks), in_set("coarse", masks))


COARSE_SCORE = Metric("mean IoU of coarse labels", "%", coarse_overlaps, whole=mean_of_classes)


@cache
def part(name: str) -> tuple[Tensor, Tensor, Tensor]:
    """Return frames uint8 (N, 3, 176, 240), masks (N, 176, 240), and masks int64 (N, 44, 60) of a part."""
    frames, masks = (one[..., EDGE:-EDGE, :] for one in memory(name))
    small = torch.cat([functional.avg_pool2d(some.float(), 2).round().byte() for some in frames.split(32)])
    return small, masks[:, ::2, ::2].long(), masks[:, 4::8, 4::8].long().contiguous()


@cache
def order() -> tuple[Tensor, Tensor]:
    """Return the training frames with exact masks, evenly over the videos, and all others, in a random order."""
    count = len(part("train")[0])
    exact = torch.arange(0, count, STEP)[:EXACT]
    others = torch.tensor(sorted(set(range(count)) - set(exact.tolist())))
    return exact, others[torch.randperm(len(others), generator=torch.Generator().manual_seed(0))]


def frames_with(numbers: Tensor, masks: Tensor) -> Data:
    """Return training frames with masks (of all training frames, at logits' size), mirrored at random."""
    return Data(part("train")[0][numbers], masks[numbers], camvid.prepared, vary=flipped)


def exact_data() -> Data:
    """Return the frames with exact masks."""
    return frames_with(order()[0], part("train")[2])


def scored(name: str, step: int) -> Data:
    """Return every `step`-th frame of a part with its mask."""
    frames, masks, _ = part(name)
    return Data(frames[::step], masks[::step], camvid.prepared)


def task(data: Data, loss: Any, seed: int) -> Task:
    """Return the task that trains on these data with this loss."""
    return Task(
        data, scored("val", VALIDATION_STEP), scored("test", TEST_STEP), loss=loss, metric=SCORE, seed=seed, batch=BATCH,
        calibration=exact_data(), name="small streets",
    )  # fmt: skip


def trained(name: str, data: Data, loss: Any, seed: int, settings: Sequence[Any]) -> dict[str, float]:
    """Return the kept scores of a segmenter, mean IoU in %: "validation", "test", "coarse" (test frames, coarse labels)."""

    def make() -> dict[str, float]:
        network, made = student(seed), task(data, loss, seed)
        how = Training(
            epochs=STEPS * BATCH / len(data), lr=3e-3, optimizer="adamw", decay=1e-3, schedule=poly,
            warmup=WARMUP_STEPS / STEPS, precision="bfloat16",
        )  # fmt: skip
        train(network, made, how, seed=seed, label=f"{name}, seed {seed}")
        found = {one: mean_score(network, getattr(made, one), SCORE) for one in ("validation", "test")}
        found["coarse"] = mean_score(network, made.test, COARSE_SCORE)
        print(name, seed, found, flush=True)
        return found

    return kept("small_streets", [name, seed, STEPS, BATCH, EXACT, *settings], make, PIECES)


def boxed(masks: Tensor) -> Tensor:
    """Return masks (N, H, W) in which each connected region fills its bounding box, small ones on top of large ones."""
    return torch.stack([boxed_mask(mask) for mask in masks])


def boxed_mask(mask: Tensor) -> Tensor:
    """Return one mask (H, W) made of boxes; void stays void only where no box lies."""
    regions = connected(mask)
    boxes = []
    for number in regions.unique().tolist():
        rows, columns = (regions == number).nonzero(as_tuple=True)
        label = int(mask[rows[0], columns[0]])
        if label != VOID:
            ends = int(rows.min()), int(rows.max()) + 1, int(columns.min()), int(columns.max()) + 1
            boxes.append((ends, label))
    found = torch.full_like(mask, VOID)
    for (top, bottom, left, right), label in sorted(boxes, key=area, reverse=True):
        found[top:bottom, left:right] = label
    return found


def area(box: tuple[tuple[int, int, int, int], int]) -> int:
    """Return the number of pixels of a box."""
    (top, bottom, left, right), _ = box
    return (bottom - top) * (right - left)


def connected(mask: Tensor) -> Tensor:
    """Return (H, W): a number for each connected region of one label, the largest place in it."""
    numbers = torch.arange(mask.numel(), dtype=torch.float64).view(mask.shape)
    while True:
        spread = numbers.clone()
        for axis in (0, 1):
            for shift in (1, -1):
                other, labels = numbers.roll(shift, axis), mask.roll(shift, axis)
                edge = torch.ones_like(mask, dtype=torch.bool)
                edge.select(axis, 0 if shift == 1 else -1).fill_(False)
                spread = torch.where(edge & (labels == mask), torch.maximum(spread, other), spread)
        if torch.equal(spread, numbers):
            return numbers.long()
        numbers = spread


def wrong(masks: Tensor, share: float, cell: int = 4) -> Tensor:
    """Return masks in which a share of the cells have one random label."""
    generator = torch.Generator().manual_seed(0)
    count, height, width = masks.shape
    cells = (count, 1, -(-height // cell), -(-width // cell))
    chosen = torch.rand(cells, generator=generator) < share
    labels = torch.randint(camvid.CLASSES, cells, generator=generator)

    def grown(values: Tensor) -> Tensor:
        return functional.interpolate(values.float(), scale_factor=float(cell))[:, 0, :height, :width]

    return torch.where(grown(chosen) > 0, grown(labels).long(), masks)
