"""MobileNets without norms: TensorFlow's padding, and the floats that stored integers stand for."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from cortado.errors import BadNetwork
from cortado.nets.mobilenet import mobilenet
from cortado.nets.mobilenet_folded import convolution, mobilenet_v1_folded, mobilenet_v2_folded

WIDTH, CLASSES = 0.125, 7


def layers_of(network: nn.Module) -> list[nn.Module]:
    return [layer for layer in network.modules() if isinstance(layer, (nn.Conv2d, nn.Linear))]


def stored(network: nn.Module, background: bool = True) -> dict[str, np.ndarray]:
    """Integers for every product, in order."""
    source, arrays = np.random.default_rng(0), {"kind": np.array(["conv", "fc"]), "input_size": np.int32(32)}
    for number, layer in enumerate(layers_of(network)):
        shape = list(layer.weight.shape)
        if isinstance(layer, nn.Linear):
            shape = [shape[0] + background, shape[1], 1, 1]
        arrays[f"w{number}"] = source.integers(0, 256, shape, dtype="uint8")
        arrays[f"b{number}"] = source.integers(-900, 900, shape[0]).astype("int32")
        arrays[f"s{number}"] = np.array([source.uniform(0.001, 0.01), source.integers(100, 150), 1e-4, 1.0, 0.0])
    return arrays


def small_v1(**options):
    return mobilenet_v1_folded(CLASSES, WIDTH, **options)


def test_integers_become_the_floats_they_stand_for(tmp_path):
    arrays = stored(small_v1())
    np.savez(tmp_path / "net.npz", **arrays)
    network = small_v1(weights=tmp_path / "net.npz")
    for number, layer in enumerate(layers_of(network)):
        scale, zero, bias_scale, *_ = arrays[f"s{number}"]
        first = 1 if isinstance(layer, nn.Linear) else 0
        by_hand = scale * (arrays[f"w{number}"][first:].astype("float64") - zero)
        assert np.allclose(layer.weight.detach().numpy().ravel(), by_hand.ravel(), rtol=1e-6)
        assert np.allclose(layer.bias.detach().numpy(), bias_scale * arrays[f"b{number}"][first:], rtol=1e-6)


def test_a_network_of_another_width_is_refused(tmp_path):
    np.savez(tmp_path / "net.npz", **stored(small_v1()))
    with pytest.raises(BadNetwork, match="a weight must be"):
        mobilenet_v1_folded(CLASSES, 2 * WIDTH, weights=tmp_path / "net.npz")
    with pytest.raises(BadNetwork, match="must contain 53 layers, got 28"):
        mobilenet_v2_folded(CLASSES, weights=tmp_path / "net.npz")


def test_a_missing_part_is_named(tmp_path):
    arrays = stored(small_v1())
    del arrays["s5"]
    np.savez(tmp_path / "net.npz", **arrays)
    with pytest.raises(BadNetwork, match="lacks s5"):
        small_v1(weights=tmp_path / "net.npz")


def test_strides_pad_as_tensorflow_does():
    """The middle of output (i, j) is input (2i + 1, 2j + 1): the one pixel more lies right and below."""
    layer = convolution(1, 1, 3, 2, clipped=False)
    conv = layer[-1]
    with torch.no_grad():
        conv.weight.zero_()
        conv.weight[0, 0, 1, 1] = 1.0
        conv.bias.zero_()
        images = torch.arange(36.0).view(1, 1, 6, 6)
        assert torch.equal(layer(images), images[:, :, 1::2, 1::2])
        conv.weight.fill_(1.0)
        by_hand = functional.conv2d(functional.pad(images, (0, 1, 0, 1)), conv.weight, stride=2)
        assert torch.allclose(layer(images), by_hand)


def test_parameters_are_those_of_the_papers():
    """V1: the network with norms has two numbers a channel, this one a bias. V2: 3.47 M with biases instead of norms."""
    with torch.device("meta"):
        folded, whole = mobilenet_v1_folded(), mobilenet()
        second = mobilenet_v2_folded()
    channels = sum(layer.num_features for layer in whole.modules() if isinstance(layer, nn.BatchNorm2d))
    count = sum(value.numel() for value in whole.parameters())
    assert sum(value.numel() for value in folded.parameters()) == count - channels
    # torchvision's has 3,504,872, of which 17,056 channels have a norm.
    assert sum(value.numel() for value in second.parameters()) == 3_504_872 - 17_056


def test_shortcuts_are_where_shapes_allow_them():
    with torch.device("meta"):
        network = mobilenet_v2_folded()
        assert network(torch.zeros(2, 3, 64, 64)).shape == (2, 1000)
    assert sum(bool(getattr(module, "shortcut", False)) for module in network.modules()) == 10
