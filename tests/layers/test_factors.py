"""A chain of factors computes what the dense layer computes, whatever its stride, padding, dilation and axes."""

import copy

import pytest
import torch
from torch import Tensor, nn

from cortado.layers.factors import Chain, chain_of, factored_copy, factored_network, has_factors
from cortado.network.profile.profile import profile
from cortado.parts.forms.attach import attach, form_of
from cortado.parts.forms.dense import Dense
from cortado.parts.forms.form import Form
from cortado.parts.forms.low_rank import LowRank
from cortado.parts.forms.masked import Masked
from cortado.parts.forms.quantized import Quantized


def values(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed + sum(shape))) / shape[1]


def pair(outputs: int, rank: int, inputs: int, kernel: tuple[int, ...]) -> LowRank:
    """A whole kernel and then one of size 1."""
    return LowRank(Dense(values(rank, inputs, *kernel)), Dense(values(outputs, rank, *[1] * len(kernel))))


def separable(outputs: int, rank: int, inputs: int, kernel: tuple[int, int]) -> LowRank:
    """1 x 1, then d x 1 and 1 x d channel by channel, then 1 x 1 (Lebedev et al., 2015)."""
    inner = LowRank(Dense(values(rank, inputs, 1, 1)), Dense(values(rank, 1, kernel[0], 1)), last_groups=rank)
    middle = LowRank(inner, Dense(values(rank, 1, 1, kernel[1])), last_groups=rank)
    return LowRank(middle, Dense(values(outputs, rank, 1, 1)))


def per_input(outputs: int, inputs: int, many: int) -> LowRank:
    """`many` separable filters of each input channel, then 1 x 1 (Jaderberg et al., 2014, scheme 1)."""
    rank = inputs * many
    column, line = Dense(values(rank, 1, 3, 1)), Dense(values(rank, 1, 1, 3))
    basis = LowRank(column, line, inputs, inputs, rank)
    return LowRank(basis, Dense(values(outputs, rank, 1, 1)), first_groups=inputs)


LAYERS: dict[str, tuple[nn.Module, Form, tuple[int, ...]]] = {
    "linear": (nn.Linear(7, 5), pair(5, 3, 7, ()), (2, 4, 7)),
    "conv1d": (nn.Conv1d(4, 6, 3, stride=2, padding=1, dilation=2), pair(6, 2, 4, (3,)), (2, 4, 15)),
    "conv2d": (
        nn.Conv2d(4, 6, 3, stride=(2, 1), padding=(1, 2), dilation=(1, 2)),
        pair(6, 2, 4, (3, 3)),
        (2, 4, 9, 11),
    ),
    "conv3d": (nn.Conv3d(2, 3, 3, stride=2, padding=1), pair(3, 2, 2, (3, 3, 3)), (1, 2, 7, 7, 7)),
    "one by one with a stride": (nn.Conv2d(4, 6, 1, stride=2), pair(6, 2, 4, (1, 1)), (2, 4, 9, 9)),
    "same": (nn.Conv2d(4, 6, (4, 3), padding="same", dilation=2), separable(6, 3, 4, (4, 3)), (2, 4, 9, 9)),
    "separable": (nn.Conv2d(4, 6, (3, 5), stride=(2, 3), padding=(1, 2)), separable(6, 3, 4, (3, 5)), (2, 4, 11, 13)),
    "per input": (nn.Conv2d(4, 6, 3, stride=2, padding=1, bias=False), per_input(6, 4, 2), (2, 4, 8, 8)),
    "in groups": (
        nn.Conv2d(4, 6, 3, padding=1, groups=2),
        LowRank(Dense(values(4, 2, 3, 1)), Dense(values(6, 2, 1, 3)), 2, 2, 2),
        (2, 4, 8, 8),
    ),
}


@pytest.fixture(params=list(LAYERS))
def attached(request) -> tuple[nn.Module, Tensor]:
    """A layer with a low-rank weight, and an input for it."""
    layer, form, shape = copy.deepcopy(LAYERS[request.param])
    assert form.shape == layer.weight.shape
    attach(layer, "weight", form)
    return layer, values(*shape, seed=3)


def test_chain_computes_what_the_dense_layer_computes(attached):
    layer, activation = attached
    chain = chain_of(layer)
    assert chain is not None and len(chain) > 1
    torch.testing.assert_close(chain(activation), layer(activation), rtol=1e-5, atol=1e-5)


def test_chain_reads_as_the_layer_it_stands_for(attached):
    layer, _ = attached
    chain = chain_of(layer)
    torch.testing.assert_close(chain.weight, layer.weight)
    assert chain.bias is layer.bias


def test_cost_of_the_held_layer_is_that_of_its_chain(attached):
    layer, activation = attached
    kept = profile(nn.Sequential(layer), activation, batch=1)
    run = profile(nn.Sequential(chain_of(layer)), activation, batch=1)
    assert kept.total("multiply_adds") == run.total("multiply_adds")
    assert kept.total("decode_multiply_adds").value == 0


def test_factors_keep_the_forms_inside_them():
    layer = nn.Conv2d(4, 6, 3, padding=1)
    first, last = values(3, 4, 3, 3), values(6, 3, 1, 1)
    attach(layer, "weight", LowRank(Dense(first).select(first > 0), Quantized.of(last, 4)))
    attach(layer, "bias", Quantized.of(layer.bias, 8))
    chain = chain_of(layer)
    assert isinstance(form_of(chain[0], "weight"), Masked)
    assert isinstance(form_of(chain[1], "weight"), Quantized)
    assert isinstance(form_of(chain[1], "bias"), Quantized)
    activation = values(1, 4, 5, 5)
    torch.testing.assert_close(chain(activation), layer(activation))


@pytest.mark.parametrize("mode", ["reflect", "circular"])
def test_layer_that_pads_with_more_than_zeros_has_no_chain(mode):
    layer = nn.Conv2d(4, 6, 3, padding=1, padding_mode=mode)
    attach(layer, "weight", pair(6, 2, 4, (3, 3)))
    assert chain_of(layer) is None and not has_factors(layer)


class Louder(nn.Linear):
    def forward(self, activation: Tensor) -> Tensor:
        return 2 * super().forward(activation)


def test_subclass_that_does_more_has_no_chain():
    layer = Louder(7, 5)
    attach(layer, "weight", pair(5, 3, 7, ()))
    assert chain_of(layer) is None
    assert isinstance(factored_network(nn.Sequential(layer))[0], Louder)


class Twice(nn.Module):
    """One layer in two places, and a block of a Transformer, which reads weights without calling their layers."""

    def __init__(self) -> None:
        super().__init__()
        self.shared = nn.Linear(6, 6)
        self.again = self.shared
        self.block = nn.TransformerEncoderLayer(6, 2, 8, dropout=0.0, batch_first=True)

    def forward(self, activation: Tensor) -> Tensor:
        return self.block(torch.relu(self.again(torch.relu(self.shared(activation)))))


def twice() -> nn.Module:
    network = Twice().eval()
    attach(network.shared, "weight", pair(6, 2, 6, ()))
    attach(network.block.linear1, "weight", pair(8, 3, 6, ()))
    attach(network.block.self_attn.out_proj, "weight", pair(6, 3, 6, ()))
    return network


def test_factored_copy_computes_the_same():
    network, activation = twice(), values(2, 5, 6)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    made = factored_network(network)
    for gradients in (True, False):
        with torch.set_grad_enabled(gradients):
            torch.testing.assert_close(made(activation), network(activation), rtol=1e-5, atol=1e-5)
    assert made.shared is made.again and isinstance(made.shared, Chain)
    assert isinstance(made.block.linear1, Chain) and type(network.shared).__name__ == "Linear"
    for name, value in network.state_dict().items():
        assert torch.equal(value, before[name])
    mine = {parameter.data_ptr() for parameter in network.parameters()}
    assert not mine & {parameter.data_ptr() for parameter in made.parameters()}


def test_training_the_copy_trains_the_network():
    network, activation = twice(), values(2, 5, 6)
    duplicate = factored_copy(network)
    assert {id(p) for p in duplicate.parameters()} == {id(p) for p in network.parameters()}
    duplicate(activation).square().sum().backward()
    with torch.no_grad():
        for parameter in duplicate.parameters():
            parameter -= 0.01 * parameter.grad
    torch.testing.assert_close(duplicate(activation), network(activation), rtol=1e-5, atol=1e-5)


def test_network_that_is_one_layer_becomes_its_chain():
    layer = nn.Linear(7, 5)
    attach(layer, "weight", pair(5, 3, 7, ()))
    assert isinstance(factored_network(layer), Chain)


def test_gradients_reach_every_factor_through_the_chain(attached):
    layer, activation = attached
    chain_of(layer)(activation).square().sum().backward()
    through = [parameter.grad.clone() for parameter in layer.parameters()]
    layer.zero_grad()
    layer(activation).square().sum().backward()
    for one, other in zip(through, [parameter.grad for parameter in layer.parameters()], strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


class Running(nn.Module):
    """Keeps a mean that it sets again at every call."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.inner = nn.Linear(6, 6), nn.Module()
        self.register_buffer("mean", torch.zeros(6))

    def forward(self, activation: Tensor) -> Tensor:
        self.mean = 0.9 * self.mean + 0.1 * activation.detach().mean(0)
        return self.one(activation - self.mean)


def test_state_of_the_copy_is_kept_by_the_network():
    network = Running()
    attach(network.one, "weight", pair(6, 2, 6, ()))
    factored_copy(network)(values(5, 6))
    torch.testing.assert_close(network.mean, 0.1 * values(5, 6).mean(0))
    assert dict(network.named_buffers())["mean"] is network.mean
