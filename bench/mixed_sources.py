"""mixed_sources: a street segmenter from 40 exact masks, boxes in the place of masks, and masks with wrong labels.

CamVid at half its size (bench/small_streets.py): 40 frames have exact masks, 160 have each region as its bounding box, and the
other 167 have a random label in two fifths of all cells of 4 x 4 labels. Each source has its own loss and weight
(cortado/task/sources.py); half of each batch are exact frames. All networks make 300 steps of 8 frames, from the same random
values. Weights and shares are the first choice. Mean IoU of every second test frame.
"""

from statistics import mean
from typing import Any

import torch

from bench.result import row, spread
from bench.small_streets import VOID, boxed, exact_data, exact_loss, frames_with, order, part, trained, wrong
from cortado.task.noisy_loss import NoisyLabels
from cortado.task.sources import Source, Sources

SEEDS = [0, 1, 2]
BOXES = 160
WRONG, BOX_WRONG, BOX_TRIM, WEIGHT, TIMES = 0.4, 0.2, 0.2, 0.5, 8
BAR = 2.0
WAYS = {"exact": (), "exact and boxes": ("boxes",), "exact and noisy": ("noisy",), "all three": ("boxes", "noisy")}


def sources(names: tuple[str, ...]) -> Sources:
    """Return the exact masks with some of the other sources."""
    _, others = order()
    parts = {"exact": Source(exact_data(), exact_loss, 1.0, TIMES)}
    if "boxes" in names:
        masks = part("train")[2].clone()
        masks[others[:BOXES]] = boxed(masks[others[:BOXES]])
        loss = NoisyLabels(BOX_WRONG, BOX_TRIM, ignored=VOID)
        parts["boxes"] = Source(frames_with(others[:BOXES], masks), loss, WEIGHT)
    if "noisy" in names:
        masks = wrong(part("train")[2], WRONG)
        parts["noisy"] = Source(frames_with(others[BOXES:], masks), NoisyLabels(WRONG, ignored=VOID), WEIGHT)
    return Sources(parts)


def run_of(way: str, seed: int) -> dict[str, float]:
    """Return the scores of a network that learns from these sources."""
    made = sources(WAYS[way])
    settings = [BOXES, WRONG, BOX_WRONG, BOX_TRIM, WEIGHT, TIMES]
    return trained(way, made.data, made.loss, seed, settings)


def run(seeds: list[int]) -> list[dict[str, Any]]:
    """Return the mean IoU from each mix of sources, and what the others add to exact masks."""
    torch.set_num_threads(1)
    counts = {"exact": seeds, "all three": seeds, "exact and boxes": seeds[:1], "exact and noisy": seeds[:1]}
    runs = {way: [run_of(way, seed) for seed in own] for way, own in counts.items()}
    found = {way: [one["test"] for one in own] for way, own in runs.items()}
    coarse = [both["coarse"] - alone["coarse"] for both, alone in zip(runs["all three"], runs["exact"], strict=True)]
    gains = [both - alone for both, alone in zip(found["all three"], found["exact"], strict=True)]
    return [
        *(row(f"mean IoU: {way}", mean(values), "%", values=values) for way, values in found.items()),
        spread("coarse and noisy masks over 40 exact ones alone", gains, "points", BAR, "higher"),
        *(
            row(f"mean IoU of 5 coarse labels: {way}", mean(one["coarse"] for one in own), "%")
            for way, own in runs.items()
        ),
        spread("the same gain on 5 coarse labels", coarse, "points"),
    ]
