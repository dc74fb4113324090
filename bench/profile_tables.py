"""Published tables of parameters and operations, counted again by our profiler on networks without weights.

These conventions make the figures fit. "Parameters" include biases, unless a row says weights. "Operations" of the
complexity table are multiply-adds plus one addition of a bias for each output; MobileNet's are multiply-adds
alone; those of Han et al. (FLOP) are two a multiply-add. A figure of the source that no convention reaches is a slip:
`bar` then holds the right figure, `source_value` the printed one, and `note` says what went wrong.
"""

from collections.abc import Callable

import torch
from torch import nn

from bench.complexity_table import complexity_table
from bench.counted import Result, exact, operations_of, profile_of, result
from cortado.nets.efficientnet import VARIANTS
from cortado.nets.lenet import lenet_5
from cortado.network.profile.profile import Profile, profile, remaining_cost
from cortado.network.statistics.activity import Activity

# Han et al., 2015, table 4: weights, FLOP (K), active activations, weights left, FLOP left (%)
LENET_5 = {
    "conv1": (500, 576, 82, 66, 66),
    "conv2": (25_000, 3200, 72, 12, 10),
    "fc1": (400_000, 800, 55, 8, 6),
    "fc2": (5_000, 10, 100, 19, 10),
}


def pruned_lenet_5() -> nn.Module:
    """LeNet-5 with the source's shares of weights left: which ones are left is of no account."""
    network = lenet_5()
    with torch.no_grad():
        for path, (count, _, _, kept, _) in LENET_5.items():
            weight = network.get_submodule(path).get_parameter("weight")
            weight.fill_(1.0).view(-1)[round(count * kept / 100) :] = 0
    return network


def lenet_5_table() -> list[Result]:
    """Weights and FLOP are counted; of FLOP% the source's shares of active activations are an input, since they depend on
    the training, and what is tested is that weights x activations give the column."""
    network = pruned_lenet_5()
    table = profile(network, torch.zeros(1, 1, 28, 28))
    results, left, read = [], 0.0, None
    for path, (count, flop, active, kept, flop_kept) in LENET_5.items():
        row = table.row(path)
        share = row.nonzero_weights / row.weights
        remains = remaining_cost(network.get_submodule(path), row.multiply_adds, share, Activity(read, 1.0))
        left += remains
        results += [
            result(f"LeNet-5 {path}: weights", row.weights, "", count),
            result(f"LeNet-5 {path}: FLOP, two a multiply-add", 2 * row.multiply_adds / 1000, "K", flop),
            result(f"LeNet-5 {path}: weights left", round(100 * share), "%", kept),
            result(f"LeNet-5 {path}: FLOP left", round(100 * remains / row.multiply_adds), "%", flop_kept),
        ]
        read = active / 100
    weights, multiply_adds = exact(table, "weights"), exact(table, "multiply_adds")
    kept_share = 100 * exact(table, "nonzero_weights") / weights
    note = "430.5 K weights, the source rounds up"
    return results + [
        result("LeNet-5: weights", int(weights / 1000 + 0.5), "K", 431, note=note),
        result("LeNet-5: FLOP", 2 * multiply_adds / 1000, "K", 4586),
        result("LeNet-5: weights left", round(kept_share), "%", 8),
        result("LeNet-5: FLOP left", round(100 * left / multiply_adds), "%", 16),
        result(
            "LeNet-5: mean of the shares of active activations",
            round(sum(active for _, _, active, _, _ in LENET_5.values()) / len(LENET_5)),
            "%",
            77,
            note="the plain mean of the four layers",
        ),
    ]


def layer_profile(layer: nn.Module, channels: int, pixels: int) -> Profile:
    """The profile of a layer, or of some in a row, on square pictures."""
    return profile(layer, torch.zeros(1, channels, pixels, pixels))


def totals(table: Profile) -> tuple[int, int]:
    """Weights and multiply-adds."""
    return int(exact(table, "weights")), int(exact(table, "multiply_adds"))


def formulas() -> list[Result]:
    """What compact layers save (A1), the first layer of H1 and the toy example of A3."""
    original, plain_cost = totals(layer_profile(nn.Conv2d(64, 128, 3, padding=1, bias=False), 64, 14))
    small, _ = totals(layer_profile(nn.Conv2d(64, 128, 1, bias=False), 64, 14))
    grouped, _ = totals(layer_profile(nn.Conv2d(64, 128, 3, padding=1, groups=4, bias=False), 64, 14))
    separable, separable_cost = totals(layer_profile(separated(64, 128, 3, padding=1), 64, 14))
    pooled = layer_profile(nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()), 64, 14)
    first, first_cost = totals(layer_profile(nn.Conv2d(3, 64, 7, 2, 3, bias=False), 3, 224))
    toy, toy_cost = totals(layer_profile(nn.Conv2d(3, 256, 5, bias=False), 3, 12))
    split, split_cost = totals(layer_profile(separated(3, 256, 5), 3, 12))
    of_input = "the source multiplies by the size of the input; the output has "
    separable_share = 1 / 128 + 1 / 9
    return [
        result("1 x 1 convolution: weights of 3 x 3 over its own", original / small, "x", 9.0),
        result("convolution in 4 groups: weights of the original over its own", original / grouped, "x", 4.0),
        result("separable convolution: weights, h w in + in out", separable, "", 3 * 3 * 64 + 64 * 128),
        result("separable convolution: share of multiply-adds, 1/out + 1/9",
               round(separable_cost / plain_cost, 9), "", round(separable_share, 9)),
        result("global average pooling: parameters", int(exact(pooled, "parameters")), "", 0),
        result("7 x 7 convolution of stride 2 on 224: weights", first, "", 9_408),
        result("7 x 7 convolution of stride 2 on 224: operations", first_cost, "", 472_055_808, 118_013_952,
               of_input + "112 x 112 places, a quarter"),
        result("5 x 5 convolution on 12 x 12: weights", toy, "", 19_200),
        result("5 x 5 convolution on 12 x 12: operations", toy_cost, "", 2_764_800, 1_228_800,
               of_input + "8 x 8 places"),
        result("the same, separable: weights", split, "", 843),
        result("the same, separable: operations", split_cost, "", 55_952, 53_952,
               of_input + "8 x 8 places (and the source's own sum would be 59 952)"),
        result("weights, plain over separable", round(toy / split, 1), "x", 22.8),
        result("operations, plain over separable", round(toy_cost / split_cost, 1), "x", 29.9, 22.8,
               "follows from the two rows above; with the source's figures it would be 49.4"),
    ]  # fmt: skip


def separated(into: int, out: int, kernel: int, padding: int = 0) -> nn.Module:
    """A depthwise and a pointwise convolution."""
    depthwise = nn.Conv2d(into, into, kernel, padding=padding, groups=into, bias=False)
    return nn.Sequential(depthwise, nn.Conv2d(into, out, 1, bias=False))


# layer type: multiply-adds (%), parameters (%)
RESOURCES = {
    "1 x 1 convolutions": (94.86, 74.59),
    "3 x 3 depthwise convolutions": (3.06, 1.06),
    "3 x 3 convolution": (1.19, 0.02),
    "linear layer": (0.18, 24.33),
}


def resource_of(path: str) -> str:
    """The line of MobileNet's table of resources that a layer belongs to."""
    last = path.rpartition(".")[2]
    return dict(zip(("pointwise", "depthwise", "conv", "linear"), RESOURCES, strict=True)).get(last, "")


def mobilenet_tables() -> list[Result]:
    """Howard et al., 2017, tables 2 and 9."""
    table = profile_of("mobilenet", 224)
    results = []
    slip = (1.91, "digits swapped: with 1.19 the source's column would add up to 99.29")
    for line, (operations, parameters) in RESOURCES.items():
        rows = [row for row in table.rows if resource_of(row.path) == line]
        cost = 100 * sum(row.multiply_adds for row in rows) / exact(table, "multiply_adds")
        weights = 100 * sum(row.weights for row in rows) / exact(table, "weights")
        bar = slip if operations == 1.19 else ()
        results.append(result(f"MobileNet, {line}: multiply-adds", round(cost, 2), "%", operations, *bar))
        results.append(result(f"MobileNet, {line}: weights", round(weights, 2), "%", parameters))
    small_weights, small_cost = totals(profile_of("mobilenet", 160, width=0.5, resolution=160))
    squeeze = profile_of("squeezenet", 227)
    alex = profile_of("alexnet", 227)
    return results + [
        result("MobileNet 0.50-160: multiply-adds", int(small_cost / 1e6), "M", 76,
               note=f"{small_cost / 1e6:.2f} M, which the source cuts off"),
        result("MobileNet 0.50-160: weights", round(small_weights / 1e6, 2), "M", 1.32),
        result("SqueezeNet: operations, biases too, two a multiply-add", rounded(2 * operations_of(squeeze), 2) / 1e6,
               "M", 1700, note="beside networks for which the source counts one a multiply-add"),
        result("SqueezeNet: parameters", round(exact(squeeze, "parameters") / 1e6, 2), "M", 1.25),
        result("AlexNet: multiply-adds", rounded(exact(alex, "multiply_adds"), 2) / 1e6, "M", 720),
        result("AlexNet: parameters", rounded(exact(alex, "parameters"), 1) / 1e6, "M", 60,
               note="61.0 M, which the source rounds to one digit"),
    ]  # fmt: skip


# variant: parameters (M), multiply-adds (G), of Tan and Le, 2019, table 2
EFFICIENTNETS = ((5.3, 0.39), (7.8, 0.70), (9.2, 1.0), (12, 1.8), (19, 4.2), (30, 9.9), (43, 19), (66, 37))
# width: weights of layers (M), multiply-adds (M), of the authors' table of checkpoints on 224 x 224
MOBILENETS_V2 = {
    0.35: (1.66, 59),
    0.5: (1.95, 97),
    0.75: (2.61, 209),
    1.0: (3.47, 300),
    1.3: (5.34, 509),
    1.4: (6.06, 582),
}
# width or resolution: multiply-adds (M), parameters (M), of Howard et al., 2017, tables 6 and 7
MOBILENET_WIDTHS = {1.0: (569, 4.2), 0.75: (325, 2.6), 0.5: (149, 1.3), 0.25: (41, 0.5)}
MOBILENET_RESOLUTIONS = {192: 418, 160: 290, 128: 186}
CLOSE = 5.0
"""Percent by which a count may differ where the source does not say how it counts."""


def compact_networks() -> list[Result]:
    """Widths and resolutions of MobileNets V1 and V2, and EfficientNets of all scales."""
    results = []
    for width, (operations, parameters) in MOBILENET_WIDTHS.items():
        table, name = profile_of("mobilenet", 224, width=width), f"MobileNet {width:g}-224"
        results.append(
            result(f"{name}: multiply-adds", whole(exact(table, "multiply_adds"), operations), "M", operations)
        )
        results.append(result(f"{name}: parameters", round(exact(table, "parameters") / 1e6, 1), "M", parameters))
    for pixels, operations in MOBILENET_RESOLUTIONS.items():
        cost = exact(profile_of("mobilenet", pixels), "multiply_adds")
        results.append(result(f"MobileNet 1.0-{pixels}: multiply-adds", whole(cost, operations), "M", operations))
    for width, (parameters, operations) in MOBILENETS_V2.items():
        table, name = profile_of("mobilenet_v2", 224, width=width), f"MobileNetV2 {width:g}-224"
        weights, cost = exact(table, "weights") / 1e6, exact(table, "multiply_adds")
        results.append(result(f"{name}: multiply-adds", whole(cost, operations), "M", operations))
        results.append(result(f"{name}: weights of layers", round(weights, 2), "M", parameters))
    for variant, (parameters, operations) in enumerate(EFFICIENTNETS):
        table = profile_of("efficientnet", VARIANTS[variant][2], variant=variant)
        for what, unit, size, printed in (
            ("parameters", "M", 1e6, parameters),
            ("multiply_adds", "G", 1e9, operations),
        ):
            results.append(
                close(f"EfficientNet-B{variant}: {what.replace('_', '-')}", exact(table, what) / size, unit, printed)
            )
    return results


def whole(cost: float, printed: int) -> int:
    """Return millions as the source has them: rounded, or cut off where that gives its figure."""
    return int(cost / 1e6) if int(cost / 1e6) == printed else round(cost / 1e6)


def close(what: str, value: float, unit: str, printed: float) -> Result:
    """A row whose bar is the largest difference from a printed figure."""
    away = abs(value / printed - 1) * 100
    return {
        "what": f"{what}, difference from the source", "value": round(away, 2), "unit": "%", "bar": CLOSE, "better": "lower",
        "met": away <= CLOSE, "source_value": printed, "note": f"{value:.4g} {unit} counted, {printed:g} {unit} printed",
    }  # fmt: skip


def rounded(value: float, digits: int) -> float:
    """A value to so many leading digits."""
    return float(f"{value:.{digits - 1}e}")


TABLES: tuple[Callable[[], list[Result]], ...] = (
    lenet_5_table,
    formulas,
    mobilenet_tables,
    complexity_table,
    compact_networks,
)


def run() -> list[Result]:
    """Every row of every table."""
    return [row for table in TABLES for row in table()]
