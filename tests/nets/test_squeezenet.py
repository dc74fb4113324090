"""SqueezeNet from codes and codebook."""

import numpy as np
import pytest
import torch

from cortado.errors import BadNetwork
from cortado.nets.squeezenet import fire_sizes, squeezenet, squeezenet_deep_compression


def stored_layers(classes=7):
    """Codes, codebook and bias of each layer, with shapes written down from the paper's table 1."""
    shapes = {"conv1": (96, 3, 7, 7), "conv10": (classes, 512, 1, 1)}
    for name, (channels, squeeze, expand, _) in fire_sizes(128, 128, 2, 0.125, 0.5, 1.0).items():
        shapes[f"{name}.squeeze"] = (squeeze, channels, 1, 1)
        shapes[f"{name}.expand1x1"] = (expand, squeeze, 1, 1)
        shapes[f"{name}.expand3x3"] = (expand, squeeze, 3, 3)
    source = np.random.default_rng(0)
    arrays = {}
    for name, shape in shapes.items():
        arrays[f"{name}.code"] = source.integers(0, 256, shape, dtype="uint8")
        arrays[f"{name}.codebook"] = source.normal(size=256).astype("float32")
        arrays[f"{name}.bias"] = source.normal(size=shape[0]).astype("float32")
    return arrays


def test_squeezenet_reads_codes_and_codebooks(tmp_path):
    arrays = stored_layers()
    np.savez(tmp_path / "net.npz", **arrays)
    network, codes = squeezenet_deep_compression(tmp_path / "net.npz")
    layers = {path: layer for path, layer in network.named_modules() if isinstance(layer, torch.nn.Conv2d)}
    assert set(codes) == set(layers) and len(codes) == 26
    for path, layer in layers.items():
        by_hand = arrays[f"{path}.codebook"][arrays[f"{path}.code"]]
        assert np.array_equal(layer.weight.detach().numpy(), by_hand)
        assert np.array_equal(layer.bias.detach().numpy(), arrays[f"{path}.bias"])
        assert np.array_equal(codes[path][0].numpy(), arrays[f"{path}.code"])


def test_squeezenet_refuses_codes_without_codebook(tmp_path):
    arrays = stored_layers()
    del arrays["fire5.squeeze.codebook"]
    np.savez(tmp_path / "net.npz", **arrays)
    with pytest.raises(BadNetwork, match=r"fire5\.squeeze"):
        squeezenet_deep_compression(tmp_path / "net.npz")


def test_squeezenet_refuses_a_missing_layer(tmp_path):
    arrays = {name: array for name, array in stored_layers().items() if not name.startswith("fire9.squeeze")}
    np.savez(tmp_path / "net.npz", **arrays)
    with pytest.raises(BadNetwork, match=r"fire9\.squeeze"):
        squeezenet_deep_compression(tmp_path / "net.npz")


def test_squeezenet_counts_the_papers_parameters():
    assert sum(parameter.numel() for parameter in squeezenet().parameters()) == 1_248_424
