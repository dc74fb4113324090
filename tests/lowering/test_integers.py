"""Rounded networks as integer arithmetic: the same answers, in the operators that runtimes fuse."""

import copy
from collections import Counter

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from cortado.errors import BadValue
from cortado.lowering.graph import exported
from cortado.lowering.integers import DEQUANTIZE, QUANTIZE, Codes, codes_of_form, moved_sources, regridded
from cortado.lowering.lower import lowered
from cortado.methods.factorize.svd import FactorizeSvd
from cortado.methods.prune.weights import PruneWeights
from cortado.methods.quantize.activations import QuantizeActivations
from cortado.methods.quantize.weights import QuantizeWeights
from cortado.network.view import View
from cortado.parts.activations.affine import Affine
from cortado.parts.activations.quantizer import put_quantizer, sites
from cortado.parts.forms.attach import attach, form_of
from cortado.parts.forms.codebook import Codebook
from cortado.parts.forms.dense import Dense
from cortado.parts.forms.quantized import Quantized
from cortado.runtimes.onnxruntime import Onnxruntime
from cortado.task.task import Data, Task
from tests.network.quantizers.test_placement import Fire, Residual

BITS = 7
"""Weights of 7 bits run over on no processor."""


def task_of(*shape: int) -> Task:
    drawn = torch.randn(96, *shape, generator=torch.Generator().manual_seed(3))
    parts = [Data(drawn[a:b], torch.zeros(b - a, dtype=torch.long)) for a, b in ((0, 64), (64, 80), (80, 96))]
    return Task(*parts)


def seeded(make) -> nn.Module:
    """A network with norms that have seen something, some of their gains negative, one zero."""
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(0)
        made = make()
        for layer in made.modules():
            if isinstance(layer, nn.BatchNorm2d):
                layer.running_mean.normal_(0, 0.3)
                layer.running_var.uniform_(0.3, 2.0)
                layer.weight.data.uniform_(-1.0, 1.5)
                layer.weight.data[0] = 0.0
                layer.bias.data.normal_(0, 0.3)
    return made.eval()


def rounded(make, shape=(3, 8, 8), bits: int = BITS, before=(), **knobs) -> tuple[nn.Module, Task]:
    """The network with weights and activations on grids."""
    original, task = seeded(make), task_of(*shape)
    network = copy.deepcopy(original)
    for method in (*before, QuantizeWeights(bits=bits, clip="range"), QuantizeActivations(range="full", **knobs)):
        method.apply(View(network, original, task.example), task)
    return network, task


class Moving(nn.Module):
    """Slices, pads, pools, splits and shuffles between convolutions, as shortcuts without weights do."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.norm = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.three = nn.Conv2d(8, 6, 1)
        self.head = nn.Linear(6 * 4, 5)

    def forward(self, images: Tensor) -> Tensor:
        quantizer = functional.relu(self.one(images))
        short = functional.pad(quantizer[:, :, ::2, ::2], (0, 0, 0, 0, 2, 2))
        first, second = functional.max_pool2d(quantizer, 2).chunk(2, 1)
        branch = self.norm(self.two(torch.cat([second, first, first, second], 1)))
        quantizer = functional.relu(branch + short)
        quantizer = functional.relu(self.three(quantizer))
        return self.head(functional.max_pool2d(quantizer, 2).flatten(1))


class Perceptron(nn.Sequential):
    """Linear layers."""

    def __init__(self) -> None:
        super().__init__(nn.Linear(12, 20), nn.ReLU(), nn.Linear(20, 16), nn.ReLU(), nn.Linear(16, 4))


NETS = {"residual": (Residual, (3, 8, 8)), "fire": (Fire, (3, 8, 8)), "moving": (Moving, (3, 8, 8)),
        "perceptron": (Perceptron, (12,))}  # fmt: skip
every_net = pytest.mark.parametrize("name", NETS)


def far(one: Tensor, other: Tensor) -> float:
    return float((one - other).abs().max() / other.abs().max())


@every_net
def test_lowered_network_agrees_but_at_edges_of_steps(name):
    network, task = rounded(*NETS[name])
    inputs = task.validation.inputs
    with torch.no_grad():
        wanted, found = network(inputs), lowered(network, task.example)(inputs)
    assert far(found, wanted) < 0.05
    assert float((found - wanted).abs().mean() / wanted.abs().mean()) < 0.005


@every_net
def test_onnx_runtime_computes_all_products_in_integers(name, tmp_path):
    network, task = rounded(*NETS[name])
    runtime = Onnxruntime()
    file = runtime.lower(lowered(network, task.example), task.example, tmp_path)
    (found,) = runtime.load(file, 1)(task.validation.inputs)
    with torch.no_grad():
        assert far(found, network(task.validation.inputs)) < 0.05
    layers = {path for path, layer in network.named_modules() if isinstance(layer, (nn.Conv2d, nn.Linear))}
    logits = {"residual": {"head"}, "moving": {"head"}, "perceptron": {"4"}, "fire": set()}[name]
    assert {path for path, ran in runtime.placed(file).items() if ran.kernel == "int8"} >= layers - logits


def operators_of(network: nn.Module, example: Tensor) -> Counter:
    program = exported(lowered(network, example), example)
    return Counter(node.target for node in program.graph.nodes if node.op == "call_function")


def test_every_move_stands_between_two_pairs_of_one_grid():
    network, task = rounded(Moving)
    graph = exported(lowered(network, task.example), task.example).graph
    moves = [
        node
        for node in graph.nodes
        if any(word in node.name for word in ("slice", "pad", "max_pool", "cat", "getitem"))
    ]
    assert len(moves) >= 7
    for node in moves:
        assert {user.target for user in node.users} == {QUANTIZE}, node
        before = moved_sources(node)
        grids = {one.args[1:] for one in before}
        assert {one.target for one in before} == {DEQUANTIZE} and len(grids) == 1, node
        assert {tuple(user.args[1:]) for user in node.users} == grids, node


class Edged(nn.Module):
    """Pads with a number beyond every value that was seen."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 3, 3)

    def forward(self, images: Tensor) -> Tensor:
        return self.two(functional.pad(functional.relu(self.one(images)), (1, 1, 1, 1), value=50.0))


def test_edges_of_a_number_beyond_the_grid_before_them_are_not_cut_off():
    network, task = rounded(Edged)
    inputs = task.validation.inputs
    with torch.no_grad():
        assert far(lowered(network, task.example)(inputs), network(inputs)) < 0.05
        assert far(network(inputs), seeded(Edged)(inputs)) < 0.05
    program = exported(lowered(network, task.example), task.example)
    with torch.no_grad():
        assert far(program.module()(inputs), network(inputs)) < 0.05


def test_no_pair_stands_twice_on_one_value():
    network, task = rounded(Moving)
    graph = exported(lowered(network, task.example), task.example).graph
    pairs = [(node.target, *node.args) for node in graph.nodes if node.target in (QUANTIZE, DEQUANTIZE)]
    assert len(pairs) == len(set(pairs))


def test_relu_on_a_grid_that_begins_at_zero_is_gone():
    network, task = rounded(Fire)
    counts = operators_of(network, task.example)
    assert counts[torch.ops.aten.relu.default] == 1, "the one after squeeze, which is rounded behind it"


def test_norms_are_folded_into_steps_and_weights_stay_codes():
    network, task = rounded(Residual)
    low = lowered(network, task.example)
    assert not any(isinstance(layer, nn.BatchNorm2d) for layer in low.modules())
    for path in ("stem", "block.one", "block.two", "head"):
        form = form_of(low.get_submodule(path), "weight")
        assert isinstance(form, Codes) and form.codes.dtype == torch.int8
        assert bool((form.scale > 0).all())
        assert int(form.codes.abs().max()) <= 2 ** (BITS - 1) - 1


def test_rows_turned_around_or_lost_in_a_norm_are_still_codes():
    codes = torch.tensor([[3, -5, 0], [1, 2, -4], [0, 0, 0], [7, 1, 1]], dtype=torch.int8)
    factors = torch.tensor([-0.5, 0.0, 3.0, 0.25])
    found = regridded(codes, codes * factors[:, None])
    assert found.codes.tolist() == [[-3, 5, 0], [0, 0, 0], [0, 0, 0], [7, 1, 1]]
    torch.testing.assert_close(found.dense(), codes * factors[:, None])
    assert regridded(codes, torch.randn(4, 3)) is None


def test_what_is_rounded_before_a_norm_keeps_it():
    network, task = rounded(Residual)
    put_quantizer(network.block.one, "output", Affine(0.05, 128, 8))
    low = lowered(network, task.example)
    assert isinstance(low.block.norm1, nn.BatchNorm2d) and not isinstance(low.block.norm2, nn.BatchNorm2d)
    with torch.no_grad():
        assert far(low(task.validation.inputs), network(task.validation.inputs)) < 0.05


def test_weights_that_are_no_whole_numbers_stay_floats_in_the_file():
    """What a runtime does with them is its own: ONNX Runtime rounds weights that stand between rounded activations itself."""
    network, task = rounded(Residual)
    weight = form_of(network.block.two, "weight")
    codes = (weight.codes % 4).to(torch.uint8)
    attach(network.block.two, "weight", Codebook(torch.tensor([-0.31, -0.017, 0.1, 0.293]), codes))
    low = lowered(network, task.example)
    assert low.block.two.weight.dtype == torch.float32 and not isinstance(form_of(low.block.two, "weight"), Codes)
    assert isinstance(form_of(low.block.one, "weight"), Codes)


def test_survivors_of_a_mask_are_codes_too():
    values = torch.tensor([[0.5, 0.0, -1.0], [0.0, 0.25, 0.0]])
    form = Dense(values).select(values != 0).map_values(lambda kept: Quantized.of(kept, 4))
    codes = codes_of_form(form)
    assert codes.dtype == torch.int8 and torch.equal(codes == 0, values == 0)
    network, task = rounded(Residual, before=(PruneWeights(keep=0.5),))
    low = lowered(network, task.example)
    assert all(isinstance(form_of(low.get_submodule(path), "weight"), Codes) for path in ("stem", "block.one", "head"))


def test_weights_beyond_8_bits_have_no_codes():
    assert codes_of_form(Quantized(torch.tensor([[300, -2]]), torch.ones(1))) is None
    shifted = Quantized(torch.tensor([[0, 255]]), torch.ones(1), torch.tensor([0]))
    assert codes_of_form(shifted) is None
    assert codes_of_form(Quantized(torch.tensor([[0, 200]]), torch.ones(1), torch.tensor([90]))).tolist() == [
        [-90, 110]
    ]


def test_activations_of_few_bits_run_on_grids_of_8():
    task = task_of(3, 8, 8)
    coarse = copy.deepcopy(seeded(Residual))
    for method in (QuantizeWeights(bits=4), QuantizeActivations(bits=3, sums=3)):
        method.apply(View(coarse, seeded(Residual), task.example), task)
    inputs = task.validation.inputs
    low = lowered(coarse, task.example)
    with torch.no_grad():
        assert far(low(inputs), coarse(inputs)) < 0.3
        inner = low.block(torch.randn(2, 4, 4, 4, generator=torch.Generator().manual_seed(0)))
    assert len(inner.unique()) <= 2**3


def test_factors_take_the_roundings_of_their_layer():
    network, task = rounded(Residual, before=(FactorizeSvd(where="block.one.weight", rank=2),))
    assert ("block.two", "input") in sites(network)
    low = lowered(network, task.example)
    assert isinstance(low.block.one, nn.Sequential)
    with torch.no_grad():
        assert far(low(task.validation.inputs), network(task.validation.inputs)) < 0.05


def test_merging_and_gathering_are_for_floats():
    network, task = rounded(Fire)
    with pytest.raises(BadValue, match="a network with activation quantizers runs in integers. Omit gather and merge"):
        lowered(network, task.example, merge=True)


def test_network_without_quantizers_is_lowered_to_floats():
    network, task = seeded(Residual), task_of(3, 8, 8)
    QuantizeWeights(bits=8).apply(View(network, seeded(Residual), task.example), task)
    assert not any(node in operators_of(network, task.example) for node in (QUANTIZE, DEQUANTIZE))
