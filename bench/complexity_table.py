"""The complexity table: parameters and operations of seven ImageNet networks, counted on the meta device.

Parameters include biases; operations are multiply-adds plus one addition of a bias for each output of a layer with
weights. With these two conventions the figures of five networks come out to the last digit. Those of VGG-F and
GoogLeNet do not; the rows at the end show which change of the network gives the printed ones.
"""

from collections.abc import Iterable

import torch
from torch import nn

from bench.counted import Result, exact, like, operations_of, profile_of, result
from cortado.nets.catalog import by_name
from cortado.network.profile.profile import Profile, profile

# parameters (M), share of convolutions, of linear layers (%), operations (M), the same shares; input pixels
COMPLEXITY = {
    "alexnet": (61, 3.8, 96.2, 725, 91.9, 8.1, 227),
    "vgg_f": (99, 2.2, 97.8, 726, 87.4, 12.6, 224),
    "vgg_m": (103, 6.3, 93.7, 1678, 94.3, 5.7, 224),
    "vgg_s": (103, 6.3, 93.7, 2640, 96.3, 3.7, 224),
    "vgg_16": (138, 10.6, 89.4, 15484, 99.2, 0.8, 224),
    "vgg_19": (144, 13.9, 86.1, 19647, 99.4, 0.6, 224),
    "googlenet": (6.9, 85.1, 14.9, 1566, 99.9, 0.1, 224),
}
COLUMNS = (
    ("parameters", "M"),
    ("convolutions among parameters", "%"),
    ("linear layers among parameters", "%"),
    ("operations", "M"),
    ("convolutions among operations", "%"),
    ("linear layers among operations", "%"),
)
SLIPS = {
    "vgg_f": (
        (61, 3.6, 96.4, 725, 91.9, 8.1),
        "the printed row is that of 512 channels before the first linear layer, as in VGG-M and VGG-S; VGG-F has 256",
    ),
    "googlenet": (
        (7.0, 85.4, 14.6, 1586, 99.9, 0.1),
        "the printed row is that of the network without the 5 x 5 convolution of module 4e, see below",
    ),
}


def complexity(table: Profile, without: str = "") -> tuple[float, ...]:
    """The six figures of a network, unrounded; `without` leaves out one row."""
    rows = Profile(tuple(row for row in table.rows if row.path != without))
    convs = Profile(tuple(row for row in rows.rows if row.kind == "Conv2d"))
    parameters, operations = exact(rows, "parameters"), operations_of(rows)
    conv_parameters = 100 * exact(convs, "parameters") / parameters
    conv_operations = 100 * operations_of(convs) / operations
    return (
        parameters / 1e6,
        conv_parameters,
        100 - conv_parameters,
        operations / 1e6,
        conv_operations,
        100 - conv_operations,
    )


def complexity_table() -> list[Result]:
    """Seven networks, six figures each, and what explains the two rows that the source got wrong."""
    results = []
    for name, (*printed, pixels) in COMPLEXITY.items():
        right, note = SLIPS.get(name, (tuple(printed), ""))
        for (column, unit), value, source, bar in zip(
            COLUMNS, complexity(profile_of(name, pixels)), printed, right, strict=True
        ):
            why = note if bar != source else ""
            results.append(result(f"{name}: {column}", like(value, bar), unit, source, bar, why))
    return results + [*vgg_f_slip(), *googlenet_slip()]


def vgg_f_slip() -> Iterable[Result]:
    """VGG-F with the first linear layer of VGG-M."""
    with torch.device("meta"):
        network = by_name("vgg_f")
        network.fc6 = nn.Linear(512 * 6 * 6, 4096)
        network.pool5 = nn.Sequential(network.pool5, Doubled())
    figures = complexity(profile(network, torch.zeros(1, 3, 224, 224)))
    for (column, unit), value, source in zip(COLUMNS, figures, COMPLEXITY["vgg_f"][:-1], strict=True):
        swapped = column == "operations"
        yield result(
            f"vgg_f as the source counts it: {column}",
            like(value, source),
            unit,
            source,
            762 if swapped else None,
            "762 with its last digits swapped; the shares beside it are those of 762" if swapped else "",
        )


class Doubled(nn.Module):
    """The same channels twice: stands for channels that are not there."""

    def forward(self, activation: torch.Tensor) -> torch.Tensor:
        return torch.cat((activation, activation), 1)


def googlenet_slip() -> Iterable[Result]:
    """GoogLeNet without one layer gives the printed figures, and only without that one."""
    table = profile_of("googlenet", 224)
    *printed, _ = COMPLEXITY["googlenet"]
    figures = complexity(table, "inceptions.inception4e.conv5x5")
    for (column, unit), value, source in zip(COLUMNS, figures, printed, strict=True):
        yield result(f"googlenet without conv5x5 of 4e: {column}", like(value, source), unit, source)
    part = [
        row.path
        for row in table.rows
        if [like(value, source) for value, source in zip(complexity(table, row.path), printed, strict=True)] == printed
    ]
    yield result("googlenet: single layers whose absence gives all six figures", len(part), "", 1)
