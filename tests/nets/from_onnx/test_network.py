"""A network from an ONNX file: what it computes, what it consists of, and what is refused."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

import cortado
from cortado.errors import BadFile, BadNetwork, BadValue
from cortado.lowering.lower import lowered
from cortado.methods.quantize.activations import QuantizeActivations
from cortado.methods.quantize.weights import QuantizeWeights
from cortado.nets.catalog import by_name
from cortado.nets.from_onnx.network import load_onnx, onnx_example
from cortado.network.view import View
from cortado.parts.activations.quantizer import sites
from cortado.runtimes.onnxruntime import Onnxruntime
from tests.laws.tiny_nets import BY_NAME

onnx = pytest.importorskip("onnx")
helper, arrays, FLOAT = onnx.helper, onnx.numpy_helper, onnx.TensorProto.FLOAT


def file_of(folder, nodes, inputs, outputs, constants=(), opset=17):
    """Write a file; inputs are (name, shape), a number or a name for each axis."""
    given = [helper.make_tensor_value_info(name, FLOAT, shape) for name, shape in inputs]
    results = [helper.make_tensor_value_info(name, FLOAT, None) for name in outputs]
    kept = [arrays.from_array(np.asarray(value), name) for name, value in dict(constants).items()]
    graph = helper.make_graph(nodes, "net", given, results, kept)
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8), folder / "net.onnx"
    )
    return folder / "net.onnx"


def outputs_of(network, *given):
    with torch.no_grad():
        return network(*given)


@pytest.mark.parametrize("name", ["lenet_5", "resnet_8", "digits_net"])
def test_a_network_comes_back_from_its_own_file(name, tmp_path):
    network = by_name(name).eval()
    given = torch.rand(3, *{"lenet_5": (1, 28, 28), "resnet_8": (3, 32, 32), "digits_net": (1, 8, 8)}[name])
    file = Onnxruntime().lower(lowered(network, given), given, tmp_path)
    again = load_onnx(file)
    torch.testing.assert_close(outputs_of(again, given), outputs_of(network, given), rtol=1e-5, atol=1e-5)
    layers = {path for path, layer in network.named_modules() if isinstance(layer, (nn.Conv2d, nn.Linear))}
    assert layers <= {path for path, _ in again.named_modules()}


@pytest.mark.parametrize("name", ["attention", "residual"])
def test_tiny_networks_come_back_and_are_traced(name, tmp_path):
    made = BY_NAME[name]
    network = made.make().eval()
    file = Onnxruntime().lower(lowered(network, made.example), made.example, tmp_path)
    again = load_onnx(file)
    torch.testing.assert_close(outputs_of(again, made.example), outputs_of(network, made.example), rtol=1e-4, atol=1e-5)
    program = torch.export.export(again, (made.example,), dynamic_shapes=({0: torch.export.Dim("batch")},))
    two = made.example[:2]
    torch.testing.assert_close(program.module()(two), outputs_of(again, two), rtol=1e-4, atol=1e-5)


def test_a_compressed_file_restores_on_the_network_of_the_onnx_file(tmp_path):
    network = BY_NAME["residual"].make().eval()
    example = BY_NAME["residual"].example
    file = Onnxruntime().lower(lowered(network, example), example, tmp_path)
    original = load_onnx(file)
    small = copy.deepcopy(original)
    QuantizeWeights(bits=4).apply(View(small, original, example), BY_NAME["residual"].task())
    cortado.save(small, tmp_path / "net.cortado", original=original)
    again = cortado.load(tmp_path / "net.cortado", original=lambda: load_onnx(file))
    assert torch.equal(outputs_of(again, example), outputs_of(small, example))
    assert not torch.equal(outputs_of(again, example), outputs_of(original, example))


def test_an_integer_file_comes_back_with_its_quantizers(tmp_path):
    made = BY_NAME["residual"]
    network = made.make().eval()
    small, task = copy.deepcopy(network), made.task()
    QuantizeWeights(bits=8).apply(View(small, network, made.example), task)
    QuantizeActivations(images=32).apply(View(small, network, made.example), task)
    file = Onnxruntime().lower(lowered(small, made.example), made.example, tmp_path)
    again = load_onnx(file)
    assert len(sites(again)) >= 3
    given = made.example
    spread = outputs_of(network, given).std()
    assert (outputs_of(again, given) - outputs_of(small, given)).abs().max() < 0.1 * spread


def test_a_fixed_batch_is_opened(tmp_path):
    nodes = [
        helper.make_node("Reshape", ["given", "shape"], ["flat"]),
        helper.make_node("Concat", ["token", "flat"], ["joined"], axis=1),
    ]
    constants = {"shape": np.array([1, 4, -1]), "token": np.ones((1, 1, 3), np.float32)}
    network = load_onnx(file_of(tmp_path, nodes, [("given", [1, 2, 6])], ["joined"], constants))
    given = torch.rand(5, 2, 6)
    assert torch.equal(outputs_of(network, given), torch.cat([torch.ones(5, 1, 3), given.reshape(5, 4, 3)], 1))


def test_sizes_that_are_computed_from_the_input_are_folded_and_the_batch_stays_open(tmp_path):
    nodes = [
        helper.make_node("Shape", ["given"], ["shape"]), helper.make_node("Gather", ["shape", "zero"], ["batch"]),
        helper.make_node("Gather", ["shape", "one"], ["rows"]), helper.make_node("Mul", ["rows", "two"], ["twice"]),
        helper.make_node("Unsqueeze", ["batch", "zeros"], ["first"]), helper.make_node("Unsqueeze", ["twice", "zeros"], ["second"]),
        helper.make_node("Concat", ["first", "second", "minus"], ["wanted"], axis=0), helper.make_node("Reshape", ["given", "wanted"], ["made"]),
        helper.make_node("ConstantOfShape", ["wanted_ones"], ["noughts"]), helper.make_node("Concat", ["first", "tail"], ["wanted_ones"], axis=0),
        helper.make_node("Add", ["made", "noughts"], ["sum"]), helper.make_node("Range", ["zero", "six", "one"], ["steps"]),
        helper.make_node("Cast", ["steps"], ["floats"], to=1), helper.make_node("Greater", ["sum", "floats"], ["above"]),
        helper.make_node("Not", ["above"], ["below"]), helper.make_node("Where", ["below", "sum", "floats"], ["out"]),
    ]  # fmt: skip
    # Nodes stand in the order in which they run.
    nodes[8], nodes[9] = nodes[9], nodes[8]
    whole = {name: np.array(value) for name, value in {"zero": 0, "one": 1, "two": 2, "six": 6}.items()}
    constants = {**whole, "zeros": np.array([0]), "minus": np.array([-1]), "tail": np.array([8, 6])}
    network = load_onnx(file_of(tmp_path, nodes, [("given", ["n", 4, 12])], ["out"], constants))
    given = torch.randn(7, 4, 12)
    wanted = torch.minimum(given.reshape(7, 8, 6), torch.arange(6.0))
    assert torch.equal(outputs_of(network, given), wanted)
    assert not any(node.op == "call_method" for node in network.graph.nodes)


def test_a_hard_swish_a_silu_and_a_linear_layer_are_found_in_their_parts(tmp_path):
    nodes = [
        helper.make_node("MatMul", ["given", "matrix"], ["product"], "/fc/MatMul"), helper.make_node("Add", ["bias", "product"], ["linear"]),
        helper.make_node("Add", ["linear", "three"], ["shifted"]), helper.make_node("Clip", ["shifted", "zero", "six"], ["clipped"]),
        helper.make_node("Mul", ["linear", "clipped"], ["whole"]), helper.make_node("Div", ["whole", "six"], ["swish"]),
        helper.make_node("Sigmoid", ["swish"], ["gate"]), helper.make_node("Mul", ["gate", "swish"], ["out"]),
    ]  # fmt: skip
    numbers = {name: np.float32(value) for name, value in {"three": 3, "zero": 0, "six": 6}.items()}
    matrix, bias = np.random.default_rng(0).standard_normal((4, 5)).astype(np.float32), np.arange(5, dtype=np.float32)
    network = load_onnx(
        file_of(tmp_path, nodes, [("given", ["n", 4])], ["out"], {**numbers, "matrix": matrix, "bias": bias})
    )
    assert [type(one).__name__ for one in network.modules() if not list(one.children())] == [
        "Linear",
        "Hardswish",
        "SiLU",
    ]
    given = torch.randn(3, 4)
    linear = given @ torch.from_numpy(matrix) + torch.from_numpy(bias)
    wanted = nn.functional.silu(nn.functional.hardswish(linear))
    torch.testing.assert_close(outputs_of(network, given), wanted)
    assert torch.equal(network.fc.bias, torch.from_numpy(bias))


def test_layers_that_share_an_initializer_stay_tied(tmp_path):
    nodes = [
        helper.make_node("Conv", ["given", "weight"], ["once"], "/head/Conv"), helper.make_node("Conv", ["once", "weight"], ["twice"], "/head/Conv_1"),
    ]  # fmt: skip
    weight = np.ones((2, 2, 1, 1), np.float32)
    network = load_onnx(file_of(tmp_path, nodes, [("given", ["n", 2, 3, 3])], ["twice"], {"weight": weight}))
    assert (
        len([one for one in network.modules() if isinstance(one, nn.Conv2d)]) == 2
        and len(list(network.parameters())) == 1
    )


def test_external_data_are_read(tmp_path):
    nodes = [helper.make_node("Add", ["given", "big"], ["out"])]
    file = file_of(tmp_path, nodes, [("given", ["n", 600])], ["out"], {"big": np.arange(600, dtype=np.float32)})
    onnx.save(onnx.load(file), tmp_path / "outside.onnx", save_as_external_data=True, location="outside.bin")
    assert torch.equal(outputs_of(load_onnx(tmp_path / "outside.onnx"), torch.zeros(1, 600))[0], torch.arange(600.0))


def test_open_axes_are_asked_for(tmp_path):
    file = file_of(tmp_path, [helper.make_node("Relu", ["image"], ["out"])], [("image", ["n", 3, "h", "w"])], ["out"])
    with pytest.raises(BadValue, match="has open axes besides the batch.*shapes="):
        load_onnx(file)
    assert onnx_example(file, {"image": (1, 3, 4, 5)}, batch=2).shape == (2, 3, 4, 5)
    with pytest.raises(BadValue, match="no input 'picture'. It has: image"):
        load_onnx(file, {"picture": (1, 3, 4, 5)})


@pytest.mark.parametrize("names", (["out"], ["mask"]))
def test_an_output_that_is_not_made_is_named(tmp_path, names):
    nodes = [
        helper.make_node("Dropout", ["given"], ["kept", "mask"], "/drop"),
        helper.make_node("Cast", ["mask"], ["out"], to=1),
    ]
    used = nodes if names == ["out"] else nodes[:1]
    with pytest.raises(BadNetwork, match=r"reads 'mask', output 2 of Dropout \(/drop\), which Cortado does not make"):
        load_onnx(file_of(tmp_path, used, [("given", ["n", 3])], names))


def test_what_nothing_makes_is_named_with_its_reader(tmp_path):
    with pytest.raises(BadNetwork, match=r"Relu \(/relu\) reads 'lost', which nothing makes before"):
        load_onnx(
            file_of(tmp_path, [helper.make_node("Relu", ["lost"], ["out"], "/relu")], [("given", ["n", 3])], ["out"])
        )


def test_what_is_not_read_is_named_with_its_node(tmp_path):
    unknown = [
        helper.make_node("NonZero", ["given"], ["places"], "/head/NonZero"),
        helper.make_node("Cast", ["places"], ["out"], to=1),
    ]
    with pytest.raises(BadNetwork, match=r"the operator NonZero \(/head/NonZero\) is not read.*extract_model"):
        load_onnx(file_of(tmp_path, unknown, [("given", ["n", 3])], ["out"]))
    dynamic = [helper.make_node("TopK", ["given", "count"], ["out", ""], "/top")]
    with pytest.raises(BadNetwork, match=r"TopK \(/top\) takes its input number 1 from the data"):
        load_onnx(file_of(tmp_path, dynamic, [("given", ["n", 3]), ("count", [1])], ["out"]))
    with pytest.raises(BadNetwork, match="has opset 8, and opsets 9 to 21 are read"):
        load_onnx(
            file_of(tmp_path, [helper.make_node("Relu", ["given"], ["out"])], [("given", ["n", 3])], ["out"], opset=8)
        )
    (tmp_path / "broken.onnx").write_bytes(b"no model")
    with pytest.raises(BadFile, match="is not a whole ONNX model"):
        load_onnx(tmp_path / "broken.onnx")
    with pytest.raises(BadFile, match="cannot be read. Check the path"):
        load_onnx(tmp_path / "missing.onnx")
