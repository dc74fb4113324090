"""Folding batch norms: equal outputs, and hands off wherever something else could see the activation."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional

from cortado.lowering.fold import fold_norms
from cortado.lowering.lower import lowered
from cortado.lowering.products import LoweredWeight
from cortado.nets.resnet import resnet_20
from cortado.parts.forms.attach import attach, form_of
from cortado.parts.forms.codebook import Codebook


def seen(network: nn.Module) -> nn.Module:
    """The network in eval mode with batch norms that have seen something."""
    generator = torch.Generator().manual_seed(0)
    for module in network.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.running_mean is not None:
            module.running_mean.normal_(0, 0.5, generator=generator)
            module.running_var.uniform_(0.3, 2.0, generator=generator)
            if module.affine:
                module.weight.data.uniform_(-1.5, 1.5, generator=generator)
                module.bias.data.normal_(0, 0.5, generator=generator)
    return network.eval()


def same_after_folding(network: nn.Module, *inputs: torch.Tensor) -> tuple[str, ...]:
    """Fold a copy, compare both on the inputs, and give what was folded."""
    folded = copy.deepcopy(network)
    paths = fold_norms(folded, inputs if len(inputs) > 1 else inputs[0])
    with torch.no_grad():
        wanted, found = network(*inputs), folded(*inputs)
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5 * float(wanted.abs().max()))
    for path in paths:
        assert isinstance(folded.get_submodule(path), nn.Identity)
    return paths


@pytest.mark.parametrize(
    ("maker", "norm", "shape"),
    [
        (nn.Linear(5, 6), nn.BatchNorm1d(6), (4, 5)),
        (nn.Conv1d(4, 6, 3, groups=2), nn.BatchNorm1d(6), (4, 4, 9)),
        (nn.Conv2d(4, 6, 3, bias=False), nn.BatchNorm2d(6, eps=0.1), (4, 4, 7, 7)),
        (nn.Conv2d(6, 6, 3, groups=6, dilation=2), nn.BatchNorm2d(6, affine=False), (2, 6, 8, 8)),
        (nn.Conv3d(2, 4, 2), nn.BatchNorm3d(4), (2, 2, 4, 4, 4)),
        (nn.ConvTranspose1d(4, 6, 3, groups=2, stride=2), nn.BatchNorm1d(6), (2, 4, 5)),
        (nn.ConvTranspose2d(4, 6, 3, groups=2, bias=False), nn.BatchNorm2d(6), (2, 4, 5, 5)),
        (nn.ConvTranspose3d(4, 2, 2), nn.BatchNorm3d(2), (2, 4, 3, 3, 3)),
        (nn.Conv2d(3, 5, 3, padding="same", padding_mode="circular"), nn.BatchNorm2d(5), (2, 3, 6, 6)),
    ],
    ids=lambda part: type(part).__name__ if isinstance(part, nn.Module) else "",
)
def test_fold_gives_the_same_outputs(maker, norm, shape):
    network = seen(nn.Sequential(maker, nn.Dropout(0.5), norm, nn.ReLU()))
    assert same_after_folding(network, torch.randn(shape, generator=torch.Generator().manual_seed(1))) == ("2",)


def test_fold_takes_every_norm_of_resnet_20():
    network = seen(resnet_20())
    assert len(same_after_folding(network, torch.randn(2, 3, 32, 32))) == 19


def test_a_held_weight_is_left_alone_and_folded_when_lowered():
    network = seen(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)))
    attach(network[0], "weight", Codebook(torch.tensor([-0.5, -0.1, 0.2, 0.7]), torch.randint(0, 4, (4, 3, 3, 3))))
    inputs = torch.randn(2, 3, 6, 6)
    assert same_after_folding(network, inputs) == ()
    made = lowered(network, inputs)
    assert isinstance(made[1], nn.Identity) and type(form_of(made[0], "weight")) is LoweredWeight
    torch.testing.assert_close(made(inputs), network(inputs))
    assert form_of(network[0], "weight") is not None


class Seen(nn.Module):
    """A convolution and a norm, with another reader of what is between them, or with either used twice."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how
        self.conv, self.norm = nn.Conv2d(3, 3, 3, padding=1), nn.BatchNorm2d(3)

    def forward(self, activation):
        made = self.conv(activation)
        if self.how == "also added":
            return self.norm(made) + made
        if self.how == "also given back":
            return torch.cat([self.norm(made), made])
        if self.how == "changed in place before":
            return self.norm(made.relu_())
        if self.how == "convolution used twice":
            return self.norm(made) + self.conv(activation * 2)
        if self.how == "norm used twice":
            return self.norm(made) + self.norm(activation)
        if self.how == "weight read from outside":
            return self.norm(made) + functional.conv2d(activation, self.conv.weight, padding=1)
        if self.how == "norm's gain read from outside":
            return self.norm(made) * self.norm.weight.sum()
        return self.norm(activation)


@pytest.mark.parametrize(
    "how",
    [
        "also added", "also given back", "changed in place before", "convolution used twice", "norm used twice",
        "weight read from outside", "norm's gain read from outside", "not after a convolution",
    ],
)  # fmt: skip
def test_fold_leaves_alone_what_another_can_see(how):
    assert same_after_folding(seen(Seen(how)), torch.randn(2, 3, 5, 5)) == ()


def test_fold_leaves_alone_a_convolution_whose_output_is_given_back():
    class Both(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.norm = nn.Conv2d(3, 3, 3), nn.BatchNorm2d(3)

        def forward(self, activation):
            made = self.conv(activation)
            return self.norm(made), made

    assert fold_norms(seen(Both()), torch.randn(2, 3, 5, 5)) == ()


@pytest.mark.parametrize("kind", ["hook", "subclass", "batch statistics", "channels last"])
def test_fold_leaves_alone_what_is_not_plain(kind):
    class Own(nn.Conv2d):
        def forward(self, activation):
            return super().forward(activation) * 2

    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, track_running_stats=kind != "batch statistics"))
    inputs = torch.randn(2, 3, 6, 6)
    if kind == "hook":
        network[0].register_forward_hook(lambda layer, inputs, output: output + 1)
    if kind == "subclass":
        network[0] = Own(3, 4, 3)
    if kind == "channels last":
        network, inputs = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(5)), torch.randn(2, 5, 3)
    assert same_after_folding(seen(network), inputs) == ()


def test_fold_leaves_a_tied_weight_to_the_other_layer():
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.norm = nn.Conv2d(3, 3, 3, padding=1), nn.BatchNorm2d(3)
            self.second = nn.Conv2d(3, 3, 3, padding=1)
            self.second.weight = self.first.weight

        def forward(self, activation):
            return self.second(torch.relu(self.norm(self.first(activation))))

    network = seen(Tied())
    same_after_folding(network, torch.randn(2, 3, 5, 5))


class Shared(nn.Module):
    """Convolutions and norms that run several times: in a loop, one norm behind two, tied weights, a norm for each call."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how, self.first, self.second = how, nn.Conv2d(3, 3, 3, padding=1), nn.Conv2d(3, 3, 3, padding=1)
        self.norm, self.other = nn.BatchNorm2d(3), nn.BatchNorm2d(3)
        if how == "tied":
            self.second.weight = self.first.weight

    def forward(self, activation):
        if self.how == "loop":
            for _ in range(3):
                activation = torch.relu(self.norm(self.first(activation)))
            return activation
        if self.how == "one norm behind two":
            return torch.cat([self.norm(self.first(activation)), self.norm(self.second(activation * 2))])
        if self.how == "tied":
            return self.other(self.second(torch.relu(self.norm(self.first(activation)))))
        return self.other(self.first(torch.relu(self.norm(self.first(activation)))))


@pytest.mark.parametrize(
    ("how", "folded"),
    [
        ("loop", ("norm",)), ("one norm behind two", ("norm",)), ("tied", ("norm", "other")), ("a norm for each call", ()),
    ],
)  # fmt: skip
def test_fold_takes_a_norm_into_every_layer_it_reads(how, folded):
    assert same_after_folding(seen(Shared(how)), torch.randn(2, 3, 5, 5)) == folded


def test_fold_works_where_a_module_has_two_names():
    network = seen(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)))
    folded = copy.deepcopy(nn.ModuleDict({"body": nn.Sequential(*network[:2]), "alias": network[1]}))

    class Named(nn.Module):
        def __init__(self, parts) -> None:
            super().__init__()
            self.parts = parts

        def forward(self, activation):
            return self.parts["alias"](self.parts["body"][0](activation))

    assert same_after_folding(Named(folded).eval(), torch.randn(2, 3, 6, 6))
