"""Tiny Darknet: its shapes, and weights by name."""

import numpy as np
import torch
from torch import nn

from cortado.nets.tiny_darknet import tiny_darknet


def test_activations_shrink_four_times():
    network = tiny_darknet(classes=7).eval()
    sides: list[int] = []
    network.conv16.register_forward_hook(lambda layer, given, made: sides.append(made.shape[-1]))
    with torch.no_grad():
        assert network(torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))).shape == (1, 7)
    assert sides == [4]


def test_multiply_adds_are_those_of_its_authors():
    """980 million operations at 224 x 224, two a multiply-add, says its page."""
    total = 0

    def count(layer: nn.Conv2d, given: tuple[torch.Tensor, ...], made: torch.Tensor) -> None:
        nonlocal total
        total += made.numel() * layer.weight[0].numel()

    with torch.device("meta"):
        network = tiny_darknet()
        for layer in network.modules():
            if isinstance(layer, nn.Conv2d):
                layer.register_forward_hook(count)
        network(torch.zeros(1, 3, 224, 224))
    assert 0.95e9 < 2 * total < 1.01e9


def test_weights_are_read_by_name(tmp_path):
    source = np.random.default_rng(0)
    wanted = {
        name: source.uniform(0.5, 1.0, tuple(value.shape)).astype("float32")
        for name, value in tiny_darknet(classes=7).state_dict().items()
        if not name.endswith("num_batches_tracked")
    }
    np.savez(tmp_path / "net.npz", **wanted)
    found = tiny_darknet(classes=7, weights=tmp_path / "net.npz").state_dict()
    assert all(np.array_equal(found[name].numpy(), value) for name, value in wanted.items())
