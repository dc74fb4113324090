"""ResNet-8 computes what its description says, straight from arrays, with TensorFlow's padding."""

import numpy as np
import pytest
import torch
from torch.nn import functional

from cortado.errors import BadNetwork
from cortado.nets.resnet_8 import resnet_8

CONVS = {
    0: (16, 3, 3, 3), 1: (16, 16, 3, 3), 2: (16, 16, 3, 3), 3: (32, 16, 3, 3), 4: (32, 32, 3, 3), 5: (32, 16, 1, 1),
    6: (64, 32, 3, 3), 7: (64, 64, 3, 3), 8: (64, 32, 1, 1),
}  # fmt: skip
NORMS = {0: 16, 1: 16, 2: 16, 3: 32, 4: 32, 5: 64, 6: 64}


def arrays(seed: int = 0) -> dict[str, np.ndarray]:
    draw = np.random.default_rng(seed)
    shapes = {"fc.weight": (10, 64), "fc.bias": (10,)}
    for number, shape in CONVS.items():
        shapes |= {f"conv{number}.weight": shape, f"conv{number}.bias": shape[:1]}
    for number, width in NORMS.items():
        shapes |= {f"bn{number}.{part}": (width,) for part in ("weight", "bias", "running_mean", "running_var")}
    made = {name: draw.normal(0, 0.2, shape).astype("float32") for name, shape in shapes.items()}
    return {name: np.abs(value) + 0.5 if name.endswith("var") else value for name, value in made.items()}


def by_hand(given: dict[str, np.ndarray], images: torch.Tensor) -> torch.Tensor:
    value = {name: torch.from_numpy(array) for name, array in given.items()}

    def conv(activation, number, stride=1):
        weight = value[f"conv{number}.weight"]
        size, kernel = activation.shape[-1], weight.shape[-1]
        # "same": as many outputs as a stride of 1 would keep; what is missing is added, the odd one at the end.
        missing = max((-(-size // stride) - 1) * stride + kernel - size, 0)
        edges = (missing // 2, missing - missing // 2) * 2
        return functional.conv2d(functional.pad(activation, edges), weight, value[f"conv{number}.bias"], stride)

    def bn(activation, number):
        mean, var, gain, shift = (
            value[f"bn{number}.{part}"][:, None, None] for part in ("running_mean", "running_var", "weight", "bias")
        )
        return (activation - mean) / (var + 1e-3).sqrt() * gain + shift

    x = bn(conv(images, 0), 0).relu()
    x = (x + bn(conv(bn(conv(x, 1), 1).relu(), 2), 2)).relu()
    x = (conv(x, 5, 2) + bn(conv(bn(conv(x, 3, 2), 3).relu(), 4), 4)).relu()
    x = (conv(x, 8, 2) + bn(conv(bn(conv(x, 6, 2), 5).relu(), 7), 6)).relu()
    return functional.linear(x.mean((2, 3)), value["fc.weight"], value["fc.bias"])


def test_network_computes_its_description_with_loaded_arrays(tmp_path):
    given = arrays()
    np.savez(tmp_path / "net.npz", **given)
    images = torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(1)) * 255
    with torch.no_grad():
        found = resnet_8(tmp_path / "net.npz").eval()(images)
    torch.testing.assert_close(found, by_hand(given, images), rtol=1e-4, atol=1e-3)


def test_arrays_of_another_network_are_refused(tmp_path):
    given = arrays()
    del given["conv5.weight"]
    np.savez(tmp_path / "net.npz", **given)
    with pytest.raises(BadNetwork, match="missing \\['conv5.weight'\\]"):
        resnet_8(tmp_path / "net.npz")
