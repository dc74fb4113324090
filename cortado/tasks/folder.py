"""Folder: your own pictures, in one folder for each class."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from cortado.errors import BadTask
from cortado.task.data import Data
from cortado.task.task import Task
from cortado.tasks.augment import shift_crop_flip
from cortado.tasks.in_words import with_sentences
from cortado.tasks.pictures import decoded_to
from cortado.tasks.pixels import Normalise

ENDINGS = (".jpg", ".jpeg", ".png", ".webp", ".bmp")
PARTS = {
    "train": ("train", "training"),
    "validation": ("val", "valid", "validation", "dev"),
    "test": ("test", "testing"),
}
"""Names of folders that hold a part each."""
IN_MEMORY = 500_000_000
"""Bytes of decoded pictures that a part keeps; larger parts are decoded whenever they are read."""
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
FEWEST = 3
Sample = tuple[Path, int]


@dataclass(frozen=True)
class Pictures(Dataset[tuple[Tensor, int]]):
    """Files of pictures with their classes: uint8 (3, height, width), each decoded_to and cropped to the middle."""

    samples: tuple[Sample, ...]
    size: tuple[int, int]
    resize: int

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, number: int) -> tuple[Tensor, int]:
        path, label = self.samples[number]
        pixels = decoded_to(path, self.size, self.resize)
        return torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1))), label


def task(
    path: str,
    size: int | Sequence[int] = 224,
    resize: int | None = None,
    classes: Sequence[str] = (),
    validation: float = 0.15,
    test: float = 0.15,
    mean: Sequence[float] = IMAGENET_MEAN,
    std: Sequence[float] = IMAGENET_STD,
    augment: bool = True,
    batch: int = 32,
    seed: int = 0,
    words: Any = None,
) -> Task:
    """Return the task of the pictures under `path`: one folder for each class, or train/, val/ and test/ with such folders.

    Without folders for the parts, a share of each class is held out for `validation` and `test`, drawn from the seed. Pictures
    are decoded_to, so that the shorter side is `resize` (by default 8/7 of the size), and cropped in the middle to `size`, a
    number or (height, width); inputs are `(pixel / 255 - mean) / std`. Classes are numbered in the order of their names, or
    as in `classes`. Training shifts and mirrors pictures, unless `augment` is False. With `words`, a text encoder ("minilm" or
    package.module:function), the network gives embeddings, compared with sentences of the classes' names. Raises BadTask for
    folders without pictures, classes without enough of them, and files that are no pictures.
    """
    root = Path(path).expanduser()
    if not root.is_dir():
        raise BadTask(f"task: {root} is no folder. Give the folder that holds one folder of pictures for each class.")
    names = list(classes) or class_names(root)
    parts = divided(root, names, validation, test, seed)
    height, width = (size, size) if isinstance(size, int) else (int(size[0]), int(size[1]))
    short = resize or round(min(height, width) * 8 / 7)
    if short < min(height, width):
        raise BadTask(f"task: resize={short} is smaller than the crop of {height} x {width}. Raise it, or lower size.")
    normalise, vary = Normalise(tuple(mean), tuple(std)), shift_crop_flip if augment else None
    made = {name: pictures_in(part, (height, width), short, normalise, vary if name == "train" else None)
            for name, part in parts.items()}  # fmt: skip
    task_of = Task(made["train"], made["validation"], made["test"], seed=seed, batch=batch, name=root.resolve().name)
    return task_of if words is None else with_sentences(task_of, [name.replace("_", " ") for name in names], words)


def class_names(root: Path) -> list[str]:
    """Return the classes: the names of the folders, of those of the training part if there is one."""
    part = part_folder(root, "train") or root
    found = sorted(one.name for one in part.iterdir() if one.is_dir() and not one.name.startswith("."))
    if len(found) < 2:
        raise BadTask(
            f"task: {part} has {len(found)} folders. It needs one folder of pictures for each of two classes or more."
        )
    return found


def part_folder(root: Path, part: str) -> Path | None:
    """Return the folder of a part, if there is one."""
    return next((root / name for name in PARTS[part] if (root / name).is_dir()), None)


def divided(root: Path, names: list[str], validation: float, test: float, seed: int) -> dict[str, list[Sample]]:
    """Return the files of each part: those in its folder, or shares of what there is.  Raises BadTask for shares above 1."""
    if min(validation, test) <= 0 or validation + test >= 1:
        raise BadTask(
            f"task: validation and test are shares above 0, together below 1, got {validation:g} and {test:g}."
        )
    own = {part: part_folder(root, part) for part in PARTS}
    found = {part: labelled_files(folder, names) for part, folder in own.items() if folder is not None}
    shares = {"validation": validation, "test": test}
    missing = [part for part in ("validation", "test") if part not in found]
    rest = found.get("train") or labelled_files(root, names)
    for part in missing:
        rest, found[part] = held_out_of(rest, shares[part], names, seed + (part == "test"))
    return {**found, "train": rest}


def labelled_files(folder: Path, names: list[str]) -> list[Sample]:
    """Return the pictures in the folders of the classes, in order.  Raises BadTask for other folders, and empty ones."""
    there = {one.name for one in folder.iterdir() if one.is_dir() and not one.name.startswith(".")}
    if there != set(names):
        odd = sorted(there ^ set(names))
        raise BadTask(
            f"task: {folder} must have one folder for each of the {len(names)} classes {', '.join(names[:5])}; "
            f"{', '.join(odd[:3])} is missing or more. Use the same names in all parts."
        )
    found = [(file, label) for label, name in enumerate(names) for file in sorted((folder / name).rglob("*"))
             if file.suffix.lower() in ENDINGS]  # fmt: skip
    for label, name in enumerate(names):
        if not any(own == label for _, own in found):
            raise BadTask(f"task: {folder / name} has no pictures ({', '.join(ENDINGS)}).")
    return found


def held_out_of(samples: list[Sample], share: float, names: list[str], seed: int) -> tuple[list[Sample], list[Sample]]:
    """Return what stays and what is held out: a share of each class, one picture at least."""
    generator, held = torch.Generator().manual_seed(seed), set[int]()
    for label, name in enumerate(names):
        own = [number for number, (_, of) in enumerate(samples) if of == label]
        if len(own) < FEWEST:
            raise BadTask(
                f"task: the class {name} has {len(own)} pictures left to hold some out of. It needs {FEWEST} or more, or folders "
                "train, val and test."
            )
        order = torch.randperm(len(own), generator=generator)[: max(1, round(share * len(own)))]
        held.update(own[place] for place in order.tolist())
    kept = [one for number, one in enumerate(samples) if number not in held]
    return kept, [samples[number] for number in sorted(held)]


def pictures_in(samples: list[Sample], size: tuple[int, int], resize: int, prepare: Any, augment: Any) -> Data:
    """Return pictures in memory if they are few, else read on demand."""
    pictures = Pictures(tuple(samples), size, resize)
    if len(samples) * 3 * size[0] * size[1] > IN_MEMORY:
        return Data(pictures, None, prepare, augment)
    read = [pictures[number] for number in range(len(pictures))]
    labels = torch.tensor([label for _, label in read])
    return Data(torch.stack([pixels for pixels, _ in read]), labels, prepare, augment)
