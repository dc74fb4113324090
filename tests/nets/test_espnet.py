"""ESPNet: what its modules compute, its shapes, and weights by name."""

import numpy as np
import pytest
import torch
from torch.nn import functional

from cortado.errors import BadNetwork
from cortado.nets.espnet import Halving, Module, espnet


def noise(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def module():
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(0)
        made = Module(13, 13).eval()
        for layer in made.modules():
            if isinstance(layer, torch.nn.BatchNorm2d):
                layer.running_mean.normal_(0, 0.2)
                layer.running_var.uniform_(0.5, 1.5)
            if isinstance(layer, torch.nn.PReLU):
                torch.nn.init.uniform_(layer.weight, -0.5, 0.5)
        return made


def test_module_computes_the_paper(module):
    """Reduce, dilate, running sums, input added, norm, PReLU: each by its formula."""
    activation = noise(2, 13, 9, 11)
    reduced = functional.conv2d(activation, module.c1.conv.weight)
    dilated = {
        step: functional.conv2d(reduced, getattr(module, f"d{step}").conv.weight, padding=step, dilation=step)
        for step in (1, 2, 4, 8, 16)
    }
    sums = torch.stack([dilated[step] for step in (2, 4, 8, 16)]).cumsum(0)
    joined = torch.cat([dilated[1], *sums], 1) + activation
    norm, slope = module.bn.bn, module.bn.act.weight.view(-1, 1, 1)
    shape = (-1, 1, 1)
    scale = norm.weight / (norm.running_var + 1e-3).sqrt()
    normed = (joined - norm.running_mean.view(shape)) * scale.view(shape) + norm.bias.view(shape)
    wanted = torch.where(normed > 0, normed, slope * normed)
    with torch.no_grad():
        assert torch.allclose(module(activation), wanted, atol=1e-5)


def test_widths_add_up():
    halving = Halving(19, 64)
    assert halving.d1.conv.out_channels == 16 and halving.d16.conv.out_channels == 12
    with torch.no_grad():
        assert halving.eval()(noise(1, 19, 16, 24)).shape == (1, 64, 8, 12)


def test_network_gives_a_logit_for_each_class_and_pixel():
    network = espnet(classes=5, p=1, q=2).eval()
    with torch.no_grad():
        assert network(noise(2, 3, 64, 96)).shape == (2, 5, 64, 96)


def test_network_is_as_large_as_its_authors_say():
    """0.364 million parameters for the 20 outputs of Cityscapes, says the paper."""
    total = sum(parameter.numel() for parameter in espnet(classes=20).parameters())
    assert 0.362e6 < total < 0.366e6


def test_a_far_pixel_is_seen_through_dilation_alone(module):
    """At most 16 pixels away, and nothing between the taps of the widest convolution but what the others see."""
    still, moved = torch.zeros(1, 13, 41, 41), torch.zeros(1, 13, 41, 41)
    moved[0, :, 20, 20] = 1
    with torch.no_grad():
        changed = (module(moved) - module(still)).abs().amax((0, 1)) > 1e-6
    seen = {(row - 20, column - 20) for row, column in changed.nonzero().tolist()}
    assert seen == {(step * i, step * j) for step in (1, 2, 4, 8, 16) for i in (-1, 0, 1) for j in (-1, 0, 1)}


def test_weights_are_read_by_name_and_no_others(tmp_path):
    source = np.random.default_rng(0)
    wanted = {
        name: source.uniform(0.5, 1.0, tuple(value.shape)).astype("float32")
        for name, value in espnet().state_dict().items()
        if not name.endswith("num_batches_tracked")
    }
    np.savez(tmp_path / "net.npz", **wanted)
    found = espnet(weights=tmp_path / "net.npz").state_dict()
    assert all(np.array_equal(found[name].numpy(), value) for name, value in wanted.items())
    with pytest.raises(BadNetwork, match="unknown"):
        espnet(q=3, weights=tmp_path / "net.npz")
