"""Signed codes and weights rounded in the graph: another spelling of the same network."""

import copy

import pytest
import torch
from torch import nn

from cortado.lowering.graph import exported, float_graph
from cortado.lowering.integers import DEQUANTIZE, QUANTIZE, Codes
from cortado.lowering.lower import lowered
from cortado.lowering.signed import ROUND, UNROUND, round_weights, unrounded_matmuls, with_floats, with_signed_codes
from cortado.methods.quantize.activations import QuantizeActivations
from cortado.methods.quantize.weights import QuantizeWeights
from cortado.network.view import View
from cortado.parts.forms.attach import form_of
from cortado.runtimes.litert import input_codes, values_of
from cortado.runtimes.runtime import runtime_by_name
from cortado.task.task import Data, Task


def rounded_low() -> tuple[nn.Module, nn.Module, Task]:
    """A perceptron whose logits go on in floats: as it is and lowered."""
    torch.manual_seed(0)
    original = nn.Sequential(nn.Linear(12, 20), nn.ReLU(), nn.Linear(20, 16), nn.ReLU(), nn.Linear(16, 4)).eval()
    values = torch.randn(48, 12)
    task = Task(*[Data(values[a:b], torch.zeros(b - a).long()) for a, b in ((0, 16), (16, 32), (32, 48))])
    network = copy.deepcopy(original)
    for method in (QuantizeWeights(bits=7, clip="range"), QuantizeActivations(range="full")):
        method.apply(View(network, original, task.example), task)
    return network, lowered(network, task.example), task


def test_signed_codes_stand_for_the_same_values():
    _, low, task = rounded_low()
    program = exported(low, task.example)
    with_signed_codes(program.graph)
    program.graph_module.recompile()
    grids = [node.args[1:] for node in program.graph.nodes if node.target in (QUANTIZE, DEQUANTIZE)]
    assert grids and all(grid[2:] == (-128, 127, torch.int8) for grid in grids)
    with torch.no_grad():
        assert torch.equal(program.module()(task.validation.inputs), low(task.validation.inputs))


def test_products_that_go_on_in_floats_are_found_and_take_floats():
    _, low, task = rounded_low()
    assert unrounded_matmuls(exported(low, task.example)) == ["4"]
    made = with_floats(low, ["4"])
    assert form_of(made[4], "weight") is None and isinstance(form_of(low[4], "weight"), Codes)
    assert unrounded_matmuls(exported(made, task.example)) == [] and with_floats(low, []) is low
    with torch.no_grad():
        assert torch.equal(made(task.validation.inputs), low(task.validation.inputs))


def test_weights_rounded_in_the_graph_have_the_same_codes():
    _, low, task = rounded_low()
    graph = float_graph(exported(low, task.example))
    round_weights(graph)
    counts = [sum(node.target == kind for node in graph.graph.nodes) for kind in (ROUND, UNROUND)]
    assert counts == [3, 3]
    with torch.no_grad():
        assert torch.equal(graph(task.validation.inputs), low(task.validation.inputs))


def test_inputs_in_codes_are_made_of_floats_and_back():
    detail = {"quantization": (0.5, -3), "dtype": torch.zeros(0, dtype=torch.int8).numpy().dtype}
    values = torch.tensor([0.0, 1.0, -0.74, 1000.0, -1000.0]).numpy()
    assert input_codes(detail, values).tolist() == [-3, -1, -4, 127, -128]
    assert values_of(detail, input_codes(detail, values)).tolist() == [0.0, 1.0, -0.5, 65.0, -62.5]
    original = {"quantization": (0.0, 0), "dtype": detail["dtype"]}
    assert input_codes(original, values) is values and values_of(original, values) is values


@pytest.mark.parametrize("name", ["litert", "executorch"])
def test_runtimes_of_phones_run_it_in_integers(name, tmp_path):
    runtime = runtime_by_name(name)
    if not (runtime.available() and runtime.lowers()):
        pytest.skip(f"{name} is not installed here")
    network, low, task = rounded_low()
    session = runtime.load(runtime.lower(low, task.example, tmp_path), 1)
    inputs = task.validation.inputs
    assert session.inputs[0].dtype == torch.float32
    with torch.no_grad():
        for sample in inputs.split(1):
            wanted = network(sample)
            assert float((session(sample)[0] - wanted).abs().max()) < 0.05 * float(network(inputs).abs().max())
