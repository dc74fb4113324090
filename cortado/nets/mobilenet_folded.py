"""MobileNets V1 and V2 as stored by TensorFlow Lite: norms folded into convolutions, integers as quantized floats."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from cortado.errors import BadNetwork
from cortado.nets.mobilenet import BLOCKS
from cortado.nets.weights import read_arrays, weights_path

# output channels, repeats, stride of the first block
STAGES_V2 = ((24, 2, 2), (32, 3, 2), (64, 4, 2), (96, 3, 1), (160, 3, 2), (320, 1, 1))
EXPANSION = 6


def convolution(into: int, out: int, kernel: int, stride: int = 1, groups: int = 1, clipped: bool = True) -> nn.Module:
    """Return a convolution with a bias, followed by ReLU6 if `clipped`.

    With a stride of 2 on an even side, TensorFlow pads only right and bottom.
    """
    uneven = [nn.ZeroPad2d((0, 1, 0, 1))] if stride == 2 else []
    layer = nn.Conv2d(into, out, kernel, stride, 0 if uneven else kernel // 2, groups=groups)
    return nn.Sequential(*uneven, layer, *([nn.ReLU6()] if clipped else []))


def separable(into: int, out: int, stride: int, clipped: bool) -> list[nn.Module]:
    """Return a 3 x 3 depthwise and a 1 x 1 convolution."""
    return [convolution(into, into, 3, stride, into), convolution(into, out, 1, clipped=clipped)]


class Inverted(nn.Module):
    """Inverted residual: expand by 1 x 1, filter depthwise, project linearly by 1 x 1; a shortcut if shapes allow it."""

    def __init__(self, into: int, out: int, stride: int) -> None:
        super().__init__()
        wide = into * EXPANSION
        self.body = nn.Sequential(convolution(into, wide, 1), *separable(wide, out, stride, clipped=False))
        self.shortcut = stride == 1 and into == out

    def forward(self, activation: Tensor) -> Tensor:
        made = self.body(activation)
        return activation + made if self.shortcut else made


class FoldedMobileNet(nn.Module):
    """Features, global average pooling, linear layer.  Input (N, 3, R, R) in -1..1, R a multiple of 32; (N, `classes`) logits."""

    def __init__(self, features: nn.Sequential, channels: int, classes: int) -> None:
        super().__init__()
        self.features, self.linear = features, nn.Linear(channels, classes)

    def forward(self, images: Tensor) -> Tensor:
        return self.linear(self.features(images).mean((2, 3)))


def mobilenet_v1_folded(
    classes: int = 1000, width: float = 1.0, weights: str | Path | bool | None = None
) -> FoldedMobileNet:
    """Return MobileNet V1 without norms.  Howard et al., 2017.

    `weights` is the path of an .npz with `w{i}`, `b{i}` and `s{i}` for each layer i in order, or True for
    $CORTADO_DATA/weights/mobilenet_v1_0.75_192_qat_int8.npz (width 0.75); None for fresh weights.
    Raises BadValue for a missing file, BadNetwork if it does not fit.
    """
    first, *outs = (max(1, round(channels * width)) for channels in (32, *(out for out, _ in BLOCKS)))
    layers, into = [convolution(3, first, 3, 2)], first
    for out, (_, stride) in zip(outs, BLOCKS, strict=True):
        layers += separable(into, out, stride, clipped=True)
        into = out
    network = FoldedMobileNet(nn.Sequential(*layers), into, classes)
    return with_integers(network, weights, "mobilenet_v1_0.75_192_qat_int8.npz")


def mobilenet_v2_folded(classes: int = 1000, weights: str | Path | bool | None = None) -> FoldedMobileNet:
    """Return MobileNet V2 without norms.  Sandler et al., 2018.

    `weights` as in `mobilenet_v1_folded`; True for $CORTADO_DATA/weights/mobilenet_v2_1.0_224_qat_int8.npz.
    """
    layers, into = [convolution(3, 32, 3, 2), *separable(32, 16, 1, clipped=False)], 16
    for out, count, stride in STAGES_V2:
        for number in range(count):
            layers.append(Inverted(into, out, stride if number == 0 else 1))
            into = out
    layers.append(convolution(into, 1280, 1))
    return with_integers(
        FoldedMobileNet(nn.Sequential(*layers), 1280, classes), weights, "mobilenet_v2_1.0_224_qat_int8.npz"
    )


def with_integers(network: FoldedMobileNet, weights: str | Path | bool | None, file_name: str) -> FoldedMobileNet:
    """Load the dequantized integers of `weights`, if any, and return `network`.

    A layer's `s` contains scale and zero point of its weight and the scale of its bias. If the file has one class more
    than the network, the first one, the background, is dropped.
    """
    if weights is None or weights is False:
        return network
    path = weights_path(weights, file_name)
    arrays = read_arrays(path)
    layers: list[Any] = [one for one in network.modules() if one._parameters.get("weight") is not None]
    stored = sum(name.startswith("w") for name in arrays)
    if stored != len(layers):
        raise BadNetwork(f"nets: {path} must contain {len(layers)} layers, got {stored}. Pass another file or width.")
    with torch.no_grad():
        for layer, (weight, bias) in zip(layers, products(arrays, str(path)), strict=True):
            extra = int(isinstance(layer, nn.Linear) and len(weight) == len(layer.weight) + 1)
            if weight[extra:].numel() != layer.weight.numel() or len(weight) - extra != len(layer.weight):
                raise BadNetwork(
                    f"nets: {path} does not fit: a weight must be {tuple(layer.weight.shape)}, got {tuple(weight.shape)}. "
                    "Pass another file or width."
                )
            layer.weight.copy_(weight[extra:].view(layer.weight.shape))
            assert layer.bias is not None
            layer.bias.copy_(bias[extra:])
    return network


def products(arrays: dict[str, Tensor], source: str) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield weight and bias of each layer as floats.  Raises BadNetwork if a part is missing."""
    for number in range(sum(name.startswith("w") for name in arrays)):
        names = f"w{number}", f"b{number}", f"s{number}"
        missing = [name for name in names if name not in arrays]
        if missing:
            raise BadNetwork(f"nets: {source} lacks {missing[0]}. It must contain w, b and s of every layer.")
        weight, bias, scales = (arrays[name].double() for name in names)
        yield (scales[0] * (weight - scales[1])).float(), (scales[2] * bias).float()
