"""Devices: where a training runs."""

import contextlib
import copy
import os
from collections.abc import Iterator

import torch
from torch import nn

from cortado.errors import BadTask

AUTO = "auto"


def own_device(network: nn.Module) -> torch.device:
    """Where the parameters of a network are."""
    return next((parameter.device for parameter in network.parameters()), torch.device("cpu"))


def on_cpu(network: nn.Module) -> nn.Module:
    """The network itself where it is on the CPU, else a copy there."""
    return network if own_device(network).type == "cpu" else copy.deepcopy(network).cpu()


def training_device(network: nn.Module, asked: str = AUTO) -> torch.device:
    """Where to train: on the device of the network if that is none of the CPU's, else where `asked` says.

    "auto" is a GPU where torch sees one, under torchrun each process its own, else the CPU. Raises BadTask for a device
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
            f"task: device {asked!r} is not there: torch {torch.__version__} sees {torch.cuda.device_count()} GPUs. "
            "Write cpu, or install a torch that was built for this GPU."
        )
    return torch.device("cuda", number) if device == torch.device("cuda") else device


def place_of_training(network: nn.Module, asked: str) -> list[str]:
    """What a report should say of where a network was trained; nothing of a CPU, which is the rule."""
    device = training_device(network, asked)
    return [f"trained on {torch.cuda.get_device_name(device)}"] if device.type == "cuda" else []


@contextlib.contextmanager
def on_device(network: nn.Module, device: torch.device) -> Iterator[None]:
    """The network on `device` for a while, the same parameters and buffers; afterwards where it was."""
    own = own_device(network)
    if own == device:
        yield
        return
    try:
        network.to(device)
        yield
    finally:
        network.to(own)
