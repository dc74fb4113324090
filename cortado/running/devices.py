"""Devices: where training runs."""

import contextlib
import copy
import os
from collections.abc import Iterator

import torch
from torch import nn

from cortado.errors import BadTask

AUTO = "auto"


def own_device(network: nn.Module) -> torch.device:
    """Return the device of a network's parameters."""
    return next((parameter.device for parameter in network.parameters()), torch.device("cpu"))


def on_cpu(network: nn.Module) -> nn.Module:
    """Return the network if it is on the CPU, else a copy there."""
    return network if own_device(network).type == "cpu" else copy.deepcopy(network).cpu()


def training_device(network: nn.Module, asked: str = AUTO) -> torch.device:
    """Return the training device: the network's own unless it is the CPU, else `asked`.

    "auto" is a GPU where torch sees one (under torchrun, one per process), else the CPU. Raises BadTask for a device
    that torch does not know or does not see.
    """
    own = own_device(network)
    if own.type != "cpu":
        return own
    number = int(os.environ.get("LOCAL_RANK", "0"))
    if asked == AUTO:
        return torch.device("cuda", number) if torch.cuda.is_available() else own
    try:
        device = torch.device(asked)
    except RuntimeError as error:
        raise BadTask(f"task: device must be auto, cpu, cuda or cuda:1, got {asked!r} ({error}).") from error
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise BadTask(
            f"task: device {asked!r} is not available: torch {torch.__version__} sees {torch.cuda.device_count()} GPUs. "
            "Use cpu, or install a torch build for this GPU."
        )
    return torch.device("cuda", number) if device == torch.device("cuda") else device


def place_of_training(network: nn.Module, asked: str) -> list[str]:
    """Return report notes on where a network was trained; none for a CPU, the default."""
    device = training_device(network, asked)
    return [f"trained on {torch.cuda.get_device_name(device)}"] if device.type == "cuda" else []


@contextlib.contextmanager
def on_device(network: nn.Module, device: torch.device) -> Iterator[None]:
    """Move the network to `device` inside the block, keeping its parameters and buffers; move it back afterwards."""
    own = own_device(network)
    if own == device:
        yield
        return
    try:
        network.to(device)
        yield
    finally:
        network.to(own)
