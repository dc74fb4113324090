"""What has to be rounded so that a network runs in integers, on networks whose answer can be told by hand."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from cortado.layers.roles import CLIP, JOIN, MATMUL
from cortado.network.graph.flow import flow_of
from cortado.network.graph.trace import trace
from cortado.network.quantizers.on_grid import inputs_on_grid
from cortado.network.quantizers.placement import QuantizerSite, quantizer_sites
from cortado.parts.activations.affine import Affine
from cortado.parts.activations.quantizer import put_quantizer, sites
from tests.laws.tiny_nets import BY_NAME

IMAGE = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def places(network: nn.Module, example: Tensor = IMAGE, matmul_layers: set[str] | None = None) -> list[list[str]]:
    """The places of each wish as "path side"."""
    network.eval()
    found = quantizer_sites(network, flow_of(trace(network, example)), matmul_layers)
    return [[" ".join(place) for place in site.places] for site in found.quantizer_sites]


def unquantized(network: nn.Module, example: Tensor = IMAGE) -> list[tuple[str, str]]:
    """Path and name of the steps that stay in floats."""
    network.eval()
    return [(step.path, step.name) for step in quantizer_sites(network, flow_of(trace(network, example))).unquantized]


class Residual(nn.Module):
    """A stem, a block whose activation is one module used twice, a mean and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.stem_norm = nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.block = Block()
        self.head = nn.Linear(4, 5)

    def forward(self, images: Tensor) -> Tensor:
        quantizer = functional.max_pool2d(functional.relu(self.stem_norm(self.stem(images)), inplace=True), 2)
        return self.head(self.block(quantizer).mean((2, 3)))


class Block(nn.Module):
    """conv, norm, relu, conv, norm, plus shortcut, relu."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.norm1 = nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.two, self.norm2 = nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, quantizer: Tensor) -> Tensor:
        branch = self.norm2(self.two(self.relu(self.norm1(self.one(quantizer)))))
        branch += quantizer
        return self.relu(branch)


def test_residual_network_is_rounded_behind_what_runtimes_fuse():
    assert places(Residual()) == [
        ["stem input"],
        # No layer stands behind the activation: the grid begins at zero and does its work. The pool only takes values.
        ["stem_norm output"],
        ["block.two input"],
        ["block.norm2 output"],
        ["block output"],
        ["head input"],
    ]
    assert unquantized(Residual()) == []


def test_products_that_are_not_wanted_are_left_out():
    assert places(Residual(), matmul_layers={"head"}) == [["head input"]]
    assert places(Residual(), matmul_layers={"stem"}) == [["stem input"], ["stem_norm output"]]


class Fire(nn.Module):
    """Two convolutions side by side, and an activation over both."""

    def __init__(self) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(3, 4, 1)
        self.one, self.three = nn.Conv2d(4, 3, 1), nn.Conv2d(4, 5, 3, padding=1)
        self.last = nn.Conv2d(8, 2, 1)

    def forward(self, images: Tensor) -> Tensor:
        quantizer = functional.relu(self.squeeze(images))
        quantizer = functional.relu(torch.cat([self.one(quantizer), self.three(quantizer)], 1))
        return self.last(quantizer)


def test_what_stands_side_by_side_shares_a_grid_that_does_the_activation():
    network = Fire().eval()
    found = quantizer_sites(network, flow_of(trace(network, IMAGE))).quantizer_sites
    side = QuantizerSite(
        (("one", "output"), ("three", "output")), (("one", "output"), ("three", "output")), 0.0, ("last",)
    )
    assert side in found
    assert [site.places for site in found if site != side] == [
        (("squeeze", "input"),),
        (("one", "input"), ("three", "input")),
        (("last", "output"),),
    ]


def test_a_wish_names_the_products_that_read_it_and_none_for_sums():
    network = BY_NAME["residual"].make()
    found = {
        site.places[0]: site.readers
        for site in quantizer_sites(network, flow_of(trace(network, BY_NAME["residual"].example))).quantizer_sites
    }
    assert found["stem", "input"] == ("stem",)
    assert any(readers == () for readers in found.values())


def test_input_of_two_readers_has_one_grid_at_both():
    assert ["one input", "three input"] in places(Fire())


class Gated(nn.Module):
    """Squeeze and excitation, with an activation that runtimes do not fuse."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.down, self.up = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 2, 1), nn.Conv2d(2, 4, 1)
        self.act, self.gate, self.last = nn.SiLU(), nn.Sigmoid(), nn.Conv2d(4, 4, 1)

    def forward(self, images: Tensor) -> Tensor:
        quantizer = self.act(self.conv(images))
        gate = self.gate(self.up(self.act(self.down(functional.adaptive_avg_pool2d(quantizer, 1)))))
        return self.last(quantizer * gate)


def test_inputs_and_outputs_of_a_float_activation_are_rounded():
    found = places(Gated())
    assert found == [
        ["conv input"], ["conv output"], ["down input"], ["down output"], ["up input"], ["up output"],
        ["last input"], ["last output"],
    ]  # fmt: skip


class Chained(nn.Module):
    """Sums of sums: the one between has no layer of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1)
        self.last = nn.Conv2d(3, 2, 1)

    def forward(self, images: Tensor) -> Tensor:
        return self.last((self.a(images) + self.b(images)) + self.c(images))


def test_step_where_no_layer_stands_is_named():
    assert unquantized(Chained()) == [("", "add"), ("", "add")]
    assert ["last input"] in places(Chained())


class Shared(nn.Module):
    """One convolution called twice."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1)

    def forward(self, images: Tensor) -> Tensor:
        return self.conv(self.conv(images).relu())


class Around(nn.Module):
    """An activation that a convolution reads and a sum that no layer stands behind."""

    def __init__(self, activation: nn.Module) -> None:
        super().__init__()
        self.one, self.activation = nn.Conv2d(3, 4, 3, padding=1), activation
        self.two, self.norm, self.last = nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4), nn.PReLU(4)

    def forward(self, images: Tensor) -> Tensor:
        quantizer = self.activation(self.one(images))
        return self.last(self.norm(quantizer + self.two(quantizer)))


def test_what_a_sum_reads_in_floats_is_rounded_for_the_product_alone():
    assert unquantized(Around(nn.PReLU(4))) == [("", "add")]
    assert places(Around(nn.PReLU(4))) == [["one input"], ["one output"], ["two input"], ["two output"]]


def test_output_of_an_integer_layer_is_rounded_for_all_readers():
    """The convolution in front takes the ReLU in, and has to give whole numbers behind it."""
    assert places(Around(nn.ReLU())) == [["one input"], ["activation output"], ["two output"]]


def test_layer_that_runs_twice_has_one_grid_for_both():
    found = places(Shared())
    assert all(len(site) == len(set(site)) for site in found)
    assert [one for site in found for one in site].count("conv output") == 1


def test_hidden_outputs_are_rounded_and_logits_are_not():
    network = nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 4), nn.Linear(4, 3))
    assert places(network, torch.randn(2, 6)) == [["0 input"], ["1 output"], ["2 output"]]


def test_flow_sees_layers_as_one_step_and_weights_not_at_all():
    flow = flow_of(trace(Residual().eval(), IMAGE))
    assert [step.kind for step in flow.steps].count(MATMUL) == 4
    assert {step.name for step in flow.steps if step.kind == JOIN} == {"add_", "mean"}
    assert [step.path for step in flow.steps if step.kind == CLIP] == ["", "block.relu", "block.relu"]
    assert all(len(step.inputs) == (2 if step.name == "add_" else 1) for step in flow.steps)


def test_flow_is_that_of_the_network_without_its_roundings():
    network = Residual().eval()
    before = flow_of(trace(network, IMAGE))
    put_quantizer(network.block, "input", Affine(0.1, 0, 8))
    put_quantizer(network.stem, "output", Affine(0.1, 128, 8))
    assert flow_of(trace(network, IMAGE)).steps == before.steps
    assert len(sites(network)) == 2


def test_on_grid_follows_moves_and_inputs_of_containers():
    network = Residual().eval()
    put_quantizer(network.block, "input", Affine(0.1, 0, 8))
    flow = flow_of(trace(network, IMAGE))
    reads = {path for path, _ in inputs_on_grid(flow, sites(network))}
    assert "block.one" in reads and "block" in reads and "block.two" not in reads and "stem" not in reads
    put_quantizer(network.stem_norm, "output", Affine(0.1, 0, 8))
    whole = inputs_on_grid(flow_of(trace(network, IMAGE)), sites(network))
    pools = [step for step in flow.steps if step.name.startswith("max_pool")]
    assert pools and all((step.path, step.inputs[0]) in whole for step in pools)


@pytest.mark.parametrize("make", [Residual, Fire, Gated, Shared])
def test_whatever_is_wished_for_can_be_put_on_and_runs(make):
    network = make().eval()
    for site in quantizer_sites(network, flow_of(trace(network, IMAGE))).quantizer_sites:
        quantizer = Affine(0.05, 128, 8)
        for path, side in site.places:
            put_quantizer(network.get_submodule(path), side, quantizer)
    reads = {path for path, _ in inputs_on_grid(flow_of(trace(network, IMAGE)), sites(network))}
    assert {path for path, layer in network.named_modules() if isinstance(layer, (nn.Conv2d, nn.Linear))} <= reads
    assert torch.isfinite(network(IMAGE)).all()


class Leaky(nn.Module):
    """One leaky activation behind each of three convolutions, with pooling between."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.three = (nn.Conv2d(3, 3, 3, padding=1) for _ in range(3))
        self.activation = nn.LeakyReLU(0.1)

    def forward(self, images: Tensor) -> Tensor:
        quantizer = functional.max_pool2d(self.activation(self.one(images)), 2)
        return self.three(functional.max_pool2d(self.activation(self.two(quantizer)), 2))


def test_activation_that_runs_twice_is_rounded_at_its_readers():
    found = places(Leaky())
    assert (
        ["two input"] in found
        and ["three input"] in found
        and not any("activation" in place for one in found for place in one)
    )


def test_sites_know_how_much_passes_below_zero():
    network = Leaky().eval()
    below = {
        site.places[0]: site.below for site in quantizer_sites(network, flow_of(trace(network, IMAGE))).quantizer_sites
    }
    assert below["one", "output"] == below["two", "output"] == pytest.approx(0.1) and below["two", "input"] == 1
    network.activation = nn.PReLU(1, 0.25)
    below = {
        site.places[0]: site.below for site in quantizer_sites(network, flow_of(trace(network, IMAGE))).quantizer_sites
    }
    assert below["one", "output"] == pytest.approx(0.25)
