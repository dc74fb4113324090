"""The packages that benches alone need, imported in this one place; a sentence where one is missing."""

import importlib
import warnings
from types import ModuleType

import torch
from torch import library

HOW = "python -m pip install --no-deps -c constraints.txt -r bench/requirements.txt"
DETECTION_OPERATORS = ("nms", "qnms")


def found(name: str) -> ModuleType:
    """The package `name`.  Raises SystemExit with the command that installs it when it is not there."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise SystemExit(f"bench: {name} cannot be imported ({error}). Install what benches need: {HOW}") from error


def torchvision() -> ModuleType:
    """torchvision's models.  Its wheel is built for CUDA: two operators must be declared before it can be imported.

    Beside a CPU build of torch its compiled operators cannot load, and its import dies as it registers fake kernels
    for operators that are not there. No network here calls them.
    """
    for name in DETECTION_OPERATORS:
        declare(name)
    return found("torchvision.models")


def declare(name: str) -> None:
    """Declare a detection operator of torchvision, unless its own library already has."""
    try:
        torch._C._get_schema(f"torchvision::{name}", "")
    except RuntimeError:
        fragment = library.Library("torchvision", "FRAGMENT")
        fragment.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        DECLARED.append(fragment)


DECLARED: list[library.Library] = []
"""A declaration lives as long as its library."""


def timm() -> ModuleType:
    """timm; imported after torchvision, which it needs."""
    torchvision()
    return found("timm")


def torch_pruning() -> ModuleType:
    """Torch-Pruning.  Fang, Ma, Song, Mi, Wang, 2023."""
    return found("torch_pruning")
