"""SqueezeNet, and the weights of version 1.0 after Deep Compression: codes and codebooks."""

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from cortado.errors import BadNetwork, BadValue
from cortado.nets.weights import load_arrays, read_arrays, weights_path

Sizes = tuple[int, int, int, int]
FIRST = 96
POOLED = ("fire4", "fire8")
"""Fire modules after which maps are pooled."""


def fire_sizes(base: int, step: int, every: int, squeeze: float, large: float, width: float) -> dict[str, Sizes]:
    """Return input channels, squeezed channels, and outputs of 1 x 1 and of 3 x 3 for each fire module.

    The paper's metaparameters: module i has base + step * floor(i / every) outputs, of which the share `large` reads 3 x 3,
    and `squeeze` times as many squeezed channels.
    """
    found, into = {}, scaled_width(FIRST, width)
    for number in range(8):
        outputs = scaled_width(base + step * (number // every), width)
        whole = min(outputs - 1, max(1, round(large * outputs)))
        found[f"fire{number + 2}"] = (into, max(1, round(squeeze * outputs)), outputs - whole, whole)
        into = outputs
    return found


def scaled_width(channels: int, width: float) -> int:
    """Return a channel count times a width, at least 2."""
    return max(2, round(channels * width))


class Fire(nn.Module):
    """Squeeze by 1 x 1, then expand by parallel 1 x 1 and 3 x 3."""

    def __init__(self, channels: int, squeeze: int, point: int, large: int, norms: bool, bypass: bool) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(channels, squeeze, 1)
        self.expand1x1 = nn.Conv2d(squeeze, point, 1)
        self.expand3x3 = nn.Conv2d(squeeze, large, 3, padding=1)
        self.squeeze_norm = nn.BatchNorm2d(squeeze) if norms else nn.Identity()
        self.expand_norm = nn.BatchNorm2d(point + large) if norms else nn.Identity()
        self.bypass = bypass and channels == point + large

    def forward(self, activation: Tensor) -> Tensor:
        squeezed = functional.relu(self.squeeze_norm(self.squeeze(activation)))
        made = self.expand_norm(torch.cat((self.expand1x1(squeezed), self.expand3x3(squeezed)), 1))
        return functional.relu(made + activation if self.bypass else made)


class SqueezeNet(nn.Module):
    """Eight fire modules between two convolutions, no linear layer.  Iandola et al., 2016.

    Input (N, 3, 227, 227) or (N, 3, 224, 224), output (N, `classes`) logits, which are not negative: the global average
    follows a ReLU.
    """

    def __init__(
        self, classes: int, fires: dict[str, Sizes], small: bool = False, norms: bool = False, bypass: bool = False
    ) -> None:
        super().__init__()
        first = fires["fire2"][0]
        self.conv1 = nn.Conv2d(3, first, 3, padding=1) if small else nn.Conv2d(3, first, 7, stride=2)
        self.first_norm = nn.BatchNorm2d(first) if norms else nn.Identity()
        for name, sizes in fires.items():
            self.add_module(name, Fire(*sizes, norms, bypass))
        self.names = tuple(fires)
        self.conv10 = nn.Conv2d(sum(fires["fire9"][2:]), classes, 1)
        self.pool = nn.MaxPool2d(3, 2, ceil_mode=True)
        self.dropout = nn.Dropout(0.5)

    def forward(self, images: Tensor) -> Tensor:
        activation = self.pool(functional.relu(self.first_norm(self.conv1(images))))
        for name in self.names:
            activation = self.get_submodule(name)(activation)
            if name in POOLED:
                activation = self.pool(activation)
        activation = functional.relu(self.conv10(self.dropout(activation)))
        return activation.mean((2, 3))


Codes = dict[str, tuple[Tensor, Tensor]]
"""Layer path to its codes (uint8, shape of the weight) and codebook (256 floats): weight = codebook[codes]."""


def squeezenet(
    classes: int = 1000, base: int = 128, step: int = 128, every: int = 2, squeeze: float = 0.125, large: float = 0.5,
    width: float = 1.0, small: bool = False, norms: bool = False, bypass: bool = False,
) -> SqueezeNet:  # fmt: skip
    """Return SqueezeNet 1.0 with fresh weights: 1.25 M parameters.

    The paper's metaparameters: the first fire module has `base` outputs, `step` more after `every` modules; the share `large`
    of them reads 3 x 3; `squeeze` is the ratio of squeezed channels to outputs. `width` scales all, `bypass` adds the simple
    shortcuts around every second module. `small`: a first layer for 32 x 32 pictures. `norms`: batch norms, with which it
    trains without care. Raises BadValue for sizes out of range.
    """
    shares = 0 < squeeze <= 4 and 0 < large < 1 and width > 0
    if not shares or min(base, every) < 1 or step < 0:
        raise BadValue(
            "squeezenet: base and every must be at least 1, step 0 or more, squeeze in 0..4, large in 0..1 and width above 0, "
            f"got base={base}, every={every}, step={step}, squeeze={squeeze:g}, large={large:g}, width={width:g}."
        )
    return SqueezeNet(classes, fire_sizes(base, step, every, squeeze, large, width), small, norms, bypass)


def squeezenet_deep_compression(weights: str | Path | bool = True) -> tuple[SqueezeNet, Codes]:
    """Return SqueezeNet, pruned to a third and with 8-bit codebooks, and the codes themselves.  Han et al., 2016.

    `weights` is the path of an .npz with `X.code`, `X.codebook` and `X.bias` for each layer X, or True for
    $CORTADO_DATA/weights/squeezenet_dc.npz. Input (N, 3, 227, 227): blue, green, red in 0..255 minus (104, 117, 123).
    Raises BadValue for a missing file, BadNetwork if it does not fit.
    """
    path = weights_path(weights, "squeezenet_dc.npz")
    stored = read_arrays(path)
    codes: Codes = {}
    arrays = {name: array for name, array in stored.items() if not name.endswith((".code", ".codebook"))}
    for name in (name for name in stored if name.endswith(".code")):
        layer = name.removesuffix(".code")
        if f"{layer}.codebook" not in stored:
            raise BadNetwork(f"nets: {path} has codes but no codebook for {layer}. It must contain {layer}.codebook.")
        codes[layer] = (stored[name], stored[f"{layer}.codebook"])
        arrays[f"{layer}.weight"] = codes[layer][1][codes[layer][0].long()]
    network = squeezenet(arrays["conv10.bias"].numel() if "conv10.bias" in arrays else 1000)
    load_arrays(network, arrays, str(path))
    return network, codes
