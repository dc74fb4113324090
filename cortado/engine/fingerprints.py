"""Fingerprints: hashes of networks, data and recipes, to notice changes."""

import inspect
import json
import re
from hashlib import blake2b
from pathlib import Path
from types import FunctionType
from typing import Any

import torch
from torch import nn

from cortado.engine.recipe import with_files_of_weights
from cortado.file.entries import entries_of, fingerprint
from cortado.network.weight import parameter_places
from cortado.parts.activations.quantizer import sites
from cortado.running.trees import parts_by_name
from cortado.task.data import Data
from cortado.task.task import Task


def identity(value: Any) -> Any:
    """Return a value as JSON data: a network as its class and a hash of its values, a function as its name."""
    if isinstance(value, dict):
        return {str(key): identity(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [identity(inner) for inner in value]
    if isinstance(value, nn.Module):
        return [type(value).__name__, sum_of_values(value).hex()]
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if callable(value):
        return getattr(value, "__qualname__", type(value).__qualname__)
    return [type(value).__qualname__, identity(getattr(value, "__dict__", {}))]


def json_data(value: Any) -> Any:
    """Return a value as JSON data: a class or function as package.module:name, a network as its class."""
    if isinstance(value, dict):
        return {str(key): json_data(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [json_data(inner) for inner in value]
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    named = isinstance(value, (type, FunctionType))
    return f"{value.__module__}:{value.__qualname__}" if named else type(value).__name__


def sum_of_data(data: Data | None) -> bytes:
    """Return a hash of samples in memory; of a Dataset, of its length, first and last item."""
    sums = blake2b(digest_size=16)
    if data is not None:
        whole = data if data.items is None else data.pick(torch.tensor([0, len(data) - 1]))
        for name, part in parts_by_name((whole.inputs, whole.targets)).items():
            if isinstance(part, torch.Tensor):
                sums.update(repr((name, len(data), tuple(part.shape), str(part.dtype))).encode() + bytes_of(part))
            else:
                sums.update(repr((name, part)).encode())
    return sums.digest()


def bytes_of(value: torch.Tensor) -> bytes:
    """Return the bytes of a tensor."""
    return value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes() if value.numel() else b""


def sum_of_run(recipe: dict[str, Any], original: nn.Module, task: Task) -> str:
    """Return a hash of everything a stage depends on: recipe, network with its values, task with its data.

    Test data are left out, so that a search can resume its best trial, which ran without them.
    """
    sums = blake2b(digest_size=16)
    sums.update(json.dumps(identity(recipe), sort_keys=True).encode())
    for path in weight_files(recipe):
        sums.update(path.read_bytes() if path.is_file() else b"")
    sums.update(fingerprint(original, entries_of(original)))
    for value in original.state_dict().values():
        sums.update(bytes_of(value))
    sums.update(repr((task.name, task.seed, task.batch, identity(task.loss), identity(task.metric.functions))).encode())
    for data in task.known_data:
        sums.update(sum_of_data(data))
    return sums.hexdigest()


def weight_files(recipe: dict[str, Any]) -> list[Path]:
    """Return the files of weights that a recipe's data name."""
    found: list[Path] = []

    def noted(name: str) -> str:
        found.append(Path(name))
        return name

    with_files_of_weights(recipe, noted)
    return found


def sum_of_values(network: nn.Module) -> bytes:
    """Return a hash of the weights' values and the activation quantizers."""
    sums = blake2b(digest_size=16)
    for weight in parameter_places(network):
        sums.update(bytes_of(weight.dense()))
    for place, activation in sites(network).items():
        sums.update(repr((place, type(activation).__qualname__, activation.spec())).encode())
        sums.update(b"".join(bytes_of(part) for part in activation.parts().values()))
    return sums.digest()


def sum_of_code(network: nn.Module) -> str:
    """Return a hash of what a network computes besides its values: its layers with their options, and its classes' source.

    Addresses in memory do not count. Source that cannot be read, as of classes made in a console, counts as none.
    """
    sums = blake2b(re.sub(r"0x[0-9a-f]+", "", repr(network)).encode(), digest_size=16)
    own = {type(module) for module in network.modules() if not type(module).__module__.startswith("torch.")}
    for kind in sorted(own, key=lambda one: (one.__module__, one.__qualname__)):
        try:
            sums.update(inspect.getsource(kind).encode())
        except (OSError, TypeError):
            sums.update(kind.__qualname__.encode())
    return sums.hexdigest()


def file_sum(body: bytes) -> str:
    """Return a hash that ties a stored file to its note."""
    return blake2b(body, digest_size=16).hexdigest()
