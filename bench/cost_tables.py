"""cost_tables: published tables of what training costs, made again; and a million inferences of ResNet-56 on this machine.

Energy, emissions and cloud costs: Strubell, Ganesh, McCallum, 2019. Language models: MosaicML's table of September 2022, as
the share of 256 A100's peak that its days imply. Growth of networks: Dally, 2016. Labelling: Cordts et al., 2016.
"""

import tempfile
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bench.after import after
from bench.result import row
from cortado.cost.costs import (
    Location,
    cost_of_hours,
    cost_of_inferences,
    language_model_operations,
    utilisation_of,
)
from cortado.cost.devices import Device, device_by_name
from cortado.cost.estimate import rough
from cortado.lowering.lower import lowered
from cortado.nets.resnet import resnet_56
from cortado.running.call import call
from cortado.runtimes.onnxruntime import Onnxruntime
from cortado.runtimes.runtime import Running
from cortado.runtimes.stream import stream_of, streamed
from cortado.tasks import cifar10

SEEDS = [0]
POUND = 0.45359237
THERE = Location(rough(1.58), rough(0.954 * POUND))
SECONDS, PICTURES = 20.0, 200


@dataclass(frozen=True)
class Published:
    """A row: power of all devices in W, hours, kWh, pounds of CO2e, dollars, and what an hour of one device costs."""

    name: str
    watts: float | None
    hours: float
    energy: int | None
    pounds: int | None
    dollars: tuple[int, int]
    count: int
    device: str
    exact_hours: float | None = None
    slip: str = ""


ROWS = (
    Published("Transformer base, 8 P100", 1415.78, 12, 27, 26, (41, 140), 8, "p100"),
    Published("Transformer big, 8 P100", 1515.43, 84, 201, 192, (289, 981), 8, "p100"),
    Published("ELMo, 3 P100", 517.66, 336, 275, 262, (433, 1472), 3, "p100"),
    Published("BERT base, 64 V100", 12_041.51, 79, 1507, 1438, (3751, 12_571), 64, "v100", 79.2,
              "the table rounds 79.2 hours to 79: energy and dollars are of 79.2"),
    Published("BERT base, 16 TPU v2", None, 96, None, None, (2074, 6912), 16, "tpu-v2"),
    Published("NAS, 8 P100", 1515.43, 274_120, 656_347, 626_155, (942_973, 3_201_722), 8, "p100"),
    Published("NAS, TPU v2", None, 32_623, None, None, (44_055, 146_848), 1, "tpu-v2", 32_633,
              "both ends of the dollars are of 32,633 hours: two digits of the hours changed places or were misread"),
    Published("GPT-2, 32 TPU v3", None, 168, None, None, (12_902, 43_008), 32, "tpu-v3"),
)  # fmt: skip
LANGUAGE_MODELS = {
    "GPT-1.3B": (1.3e9, 26e9, 0.14, 2_000), "GPT-2.7B": (2.7e9, 54e9, 0.48, 6_000), "GPT-6.7B": (6.7e9, 134e9, 2.32, 30_000),
    "GPT-13B": (13e9, 260e9, 7.43, 100_000), "GPT-30B": (30e9, 610e9, 35.98, 450_000),
    "GPT-70B": (70e9, 1400e9, 176.55, 2_500_000),
}  # fmt: skip
"""Parameters, tokens, days on 256 A100, dollars."""
GROWTH = {"AlexNet to ResNet": (1.4, 22.6, 16), "speech or language, 2014 to 2015": (29.0, 500.0, 17)}
"""Billions of operations before and after, and the factor that is stated."""
MINUTES_A_MAP, MAPS = 90, 5_000


def run() -> list[dict[str, Any]]:
    """Return every row of the tables beside the published figure, and what ResNet-56 costs here."""
    torch.set_num_threads(1)
    return [
        *(one for published in ROWS for one in published_rows(published)),
        *language_rows(),
        *other_rows(),
        *served_rows(),
    ]


def published_rows(published: Published) -> list[dict[str, Any]]:
    """Return energy, emissions and both ends of the dollars, equal to the published digit or with the slip."""
    hours = published.exact_hours or published.hours
    table = device_by_name(published.device)
    watts = None if published.watts is None else rough(published.watts)
    costs = cost_of_hours(hours, Device("all of them", watts), 1, THERE)
    assert table.dollars is not None
    found = [
        *([("kWh", costs.energy.value, published.energy)] if costs.energy else []),
        *([("pounds of CO2e", costs.carbon.value / POUND, published.pounds)] if costs.carbon else []),
        *(("dollars", hours * published.count * end, stated)
          for end, stated in zip((table.dollars.low, table.dollars.high), published.dollars, strict=True)),
    ]  # fmt: skip
    return [
        row(f"{published.name}: {what}, difference to the rounded figure", abs(round(value) - stated), what, 0.0,
            source_value=stated, value_made=value, slip=published.slip)
        for what, value, stated in found
        if stated is not None
    ]  # fmt: skip


def language_rows() -> list[dict[str, Any]]:
    """Return the share of the devices' peak, and the dollars of a device's hour, that days and dollars imply."""
    device, rows = device_by_name("a100-40gb"), []
    for name, (parameters, tokens, days, dollars) in LANGUAGE_MODELS.items():
        share = utilisation_of(language_model_operations(parameters, tokens), 24 * days, device, 256)
        an_hour = dollars / (256 * 24 * days)
        rows.append(row(f"{name}: share of the peak that {days:g} days imply", 100 * share, "%"))
        rows.append(row(f"{name}: dollars for an hour of one A100", an_hour, "dollars"))
    return rows


def other_rows() -> list[dict[str, Any]]:
    """Return the growth of networks and the hours of labelling."""
    rows = [
        row(f"{what}: times more operations, difference to the stated factor", abs(round(after_ / before) - stated), "x", 0.0,
            source_value=stated)
        for what, (before, after_, stated) in GROWTH.items()
    ]  # fmt: skip
    hours = MAPS * MINUTES_A_MAP / 60
    return [*rows, row(f"Cityscapes: hours to label {MAPS:,} maps of {MINUTES_A_MAP} minutes", hours, "h")]


def served_rows() -> list[dict[str, Any]]:
    """Return what a million inferences of ResNet-56 cost on one core here, before and after integers."""
    task, original = cifar10.task(), resnet_56(weights=True).eval()
    small = after(original, task, "quantize/weights bits=8 | quantize/activations range=mse")
    runtime, calls = Onnxruntime(), []
    with tempfile.TemporaryDirectory() as scratch:
        for name, network in (("float", original), ("integers", small)):
            folder = Path(scratch) / name
            folder.mkdir()
            session = Running(runtime.load(runtime.lower(lowered(network, task.example), task.example, folder), 1))
            calls.append([partial(call, session, one) for one in stream_of(task.test, 1, PICTURES)])
        taken = streamed(calls, SECONDS, time.process_time).mean((0, 2))
    costs = [cost_of_inferences(float(ms), device_by_name("core")) for ms in taken]
    rows = []
    for what, ms, cost in zip(("float", "8-bit integers"), taken, costs, strict=True):
        assert cost.energy is not None and cost.money is not None
        ends = {"interval": [1000 * cost.energy.low, 1000 * cost.energy.high]}
        rows.append(
            row(
                f"a million inferences of ResNet-56, {what}: energy",
                1000 * cost.energy.value,
                "Wh",
                ms=float(ms),
                **ends,
            )
        )
        rows.append(row(f"a million inferences of ResNet-56, {what}: money", cost.money.value, "dollars",
                        interval=[cost.money.low, cost.money.high]))  # fmt: skip
    ratio = costs[0].energy.value / costs[1].energy.value  # type: ignore[union-attr]
    apart = abs(ratio / float(np.divide(*taken)) - 1)
    rows.append(row(f"ratio of energies ({ratio:.2f}) against that of times, difference", apart, "", 1e-9))
    return rows
