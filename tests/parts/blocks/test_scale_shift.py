"""ScaleShift does what a batch norm in eval mode does, in either direction, whatever its axes and type."""

import pytest
import torch
from torch import nn

from cortado.errors import BadValue
from cortado.parts.blocks.scale_shift import ScaleShift, norm_class


@pytest.mark.parametrize("axes", [1, 2, 3])
@pytest.mark.parametrize("affine", [True, False])
def test_it_equals_the_norm_and_gives_one_back(axes, affine):
    norm = norm_class(axes)(5, affine=affine).double().eval()
    generator = torch.Generator().manual_seed(axes)
    with torch.no_grad():
        for value in (norm.running_mean, *norm.parameters()):
            value.copy_(torch.randn(5, generator=generator))
        norm.running_var.copy_(torch.rand(5, generator=generator) + 0.1)
    values = torch.randn(4, 5, *[3] * axes, generator=generator, dtype=torch.float64)
    block = ScaleShift.of(norm)
    assert block.weight.dtype == torch.float64 and block.spec() == {"num_features": 5, "axes": axes}
    torch.testing.assert_close(block(values), norm(values))
    torch.testing.assert_close(block.as_layer()(values), norm(values))


def test_axes_of_no_norm_are_refused():
    with pytest.raises(BadValue, match="axes must be 1, 2 or 3, got 4"):
        ScaleShift(3, 4)


def test_it_learns_like_a_layer():
    block = ScaleShift(2, 1).train()
    block(torch.ones(3, 2)).sum().backward()
    assert block.weight.grad.tolist() == [3.0, 3.0] and block.bias.grad.tolist() == [3.0, 3.0]
    nn.init.zeros_(block.weight)
    block.reset_parameters()
    assert block.weight.tolist() == [1.0, 1.0]
