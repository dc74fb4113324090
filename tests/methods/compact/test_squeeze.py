"""FireModule modules: exact where few directions and few large kernels are enough, otherwise close, and always cheaper."""

import pytest
import torch

from cortado.errors import NothingChanged
from cortado.file.artifact import decode, encode
from cortado.methods.compact.squeeze import CompactSqueeze
from cortado.network.profile.profile import profile
from cortado.parts.blocks.fire_module import FireModule
from tests.methods.factorize.test_factorize import lost, problem, random


def squeezable() -> torch.Tensor:
    """A kernel (12, 12, 3, 3) that uses six directions of its inputs, of which every second output reads one place."""
    kernel = torch.einsum("nsx,sc->ncx", random(12, 6, 9), random(6, 12))
    kernel[::2, :, [0, 1, 2, 3, 5, 6, 7, 8]] = 0
    return kernel.reshape(12, 12, 3, 3)


def test_hidden_fire_module_is_found():
    view, task, original = problem()
    for network in (view.network, original):
        network.two.weight.data = squeezable()
    CompactSqueeze(squeeze=0.5, large=0.5, where="two").apply(view, task)
    block = view.network.two
    assert isinstance(block, FireModule) and block.squeeze.out_channels == 6 and block.point.out_channels == 6
    assert block.after.index.argsort()[:6].tolist() == [0, 2, 4, 6, 8, 10]
    assert lost(view, original, task) < 1e-4
    assert "0.0% of the responses' variance is lost" in view.notes[0]


@pytest.mark.parametrize("relu", [False, True])
def test_module_is_cheaper_and_close(relu):
    view, task, original = problem()
    CompactSqueeze(where="two", relu=relu).apply(view, task)
    small, whole = profile(view.network, task.example), profile(original, task.example)
    parts = ("squeeze", "point", "expand")
    weights = sum(small.row(f"two.{part}").weights for part in parts)
    assert weights == 6 * (12 + 6 + 6 * 9) < whole.row("two").weights
    assert sum(small.row(f"two.{part}").multiply_adds for part in parts) == 144 * weights
    assert lost(view, original, task) < (1.0 if relu else 0.6)
    assert (view.network.two.squeeze.bias is not None) == relu


def test_more_squeezed_channels_lose_less():
    found = []
    for share in (0.2, 0.4, 0.7):
        view, task, original = problem()
        CompactSqueeze(where="two", squeeze=share, large=0.7).apply(view, task)
        found.append(lost(view, original, task))
    assert found[0] > found[1] > found[2]


def test_file_brings_it_back():
    view, task, original = problem()
    CompactSqueeze(where="two").apply(view, task)
    again = decode(encode(view.network, original), original)
    assert torch.equal(again(task.example), view.network(task.example))


def test_layers_that_would_not_be_cheaper_are_refused_in_words():
    view, task, _ = problem()
    with pytest.raises(NothingChanged, match="with more weights than the fire module would have"):
        CompactSqueeze(squeeze=1.0, large=1.0, where="two").apply(view, task)
