"""SqueezeNet 1.0, and its weights after Deep Compression: codes and codebooks."""

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from cortado.errors import BadNetwork
from cortado.nets.weights import load_arrays, read_arrays, weights_path

# input channels, squeeze, expand (of each kernel size)
FIRES = {
    "fire2": (96, 16, 64),
    "fire3": (128, 16, 64),
    "fire4": (128, 32, 128),
    "fire5": (256, 32, 128),
    "fire6": (256, 48, 192),
    "fire7": (384, 48, 192),
    "fire8": (384, 64, 256),
    "fire9": (512, 64, 256),
}


class Fire(nn.Module):
    """Squeeze by 1 x 1, then expand by parallel 1 x 1 and 3 x 3."""

    def __init__(self, channels: int, squeeze: int, expand: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(channels, squeeze, 1)
        self.expand1x1 = nn.Conv2d(squeeze, expand, 1)
        self.expand3x3 = nn.Conv2d(squeeze, expand, 3, padding=1)

    def forward(self, activation: Tensor) -> Tensor:
        activation = functional.relu(self.squeeze(activation))
        return functional.relu(torch.cat((self.expand1x1(activation), self.expand3x3(activation)), 1))


class SqueezeNet(nn.Module):
    """Eight fire modules between two convolutions, no linear layer.  Iandola et al., 2016 (version 1.0).

    Input (N, 3, 227, 227) or (N, 3, 224, 224), output (N, `classes`) logits, which are not negative: the global average
    follows a ReLU.
    """

    def __init__(self, classes: int = 1000) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 96, 7, stride=2)
        self.fire2, self.fire3, self.fire4 = (Fire(*FIRES[name]) for name in ("fire2", "fire3", "fire4"))
        self.fire5, self.fire6 = (Fire(*FIRES[name]) for name in ("fire5", "fire6"))
        self.fire7, self.fire8 = (Fire(*FIRES[name]) for name in ("fire7", "fire8"))
        self.fire9 = Fire(*FIRES["fire9"])
        self.conv10 = nn.Conv2d(512, classes, 1)
        self.pool = nn.MaxPool2d(3, 2, ceil_mode=True)
        self.dropout = nn.Dropout(0.5)

    def forward(self, images: Tensor) -> Tensor:
        activation = self.pool(functional.relu(self.conv1(images)))
        activation = self.pool(self.fire4(self.fire3(self.fire2(activation))))
        activation = self.pool(self.fire8(self.fire7(self.fire6(self.fire5(activation)))))
        activation = functional.relu(self.conv10(self.dropout(self.fire9(activation))))
        return activation.mean((2, 3))


Codes = dict[str, tuple[Tensor, Tensor]]
"""Layer path to its codes (uint8, shape of the weight) and codebook (256 floats): weight = codebook[codes]."""


def squeezenet(classes: int = 1000) -> SqueezeNet:
    """Return SqueezeNet 1.0 with fresh weights: 1.25 M parameters."""
    return SqueezeNet(classes)


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
    network = SqueezeNet(arrays["conv10.bias"].numel() if "conv10.bias" in arrays else 1000)
    load_arrays(network, arrays, str(path))
    return network, codes
