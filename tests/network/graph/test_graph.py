"""A graph numbers the values of a run: a tensor has a new one once something writes to it or to a view of it."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from cortado.network.graph.flow import flow_of
from cortado.network.graph.trace import trace
from cortado.parts.activations.affine import Affine
from cortado.parts.activations.quantizer import INPUT, OUTPUT, put_quantizer
from cortado.parts.forms.attach import attach
from cortado.parts.forms.quantized import Quantized


class Net(nn.Module):
    """Two layers and a function of both and the input."""

    def __init__(self, between):
        super().__init__()
        self.first, self.second, self.between = nn.Linear(4, 4), nn.Linear(4, 4), between

    def forward(self, values):
        return self.between(self, values)


def graph_of_run(between, network=None):
    network = network or Net(between).eval()
    return network, trace(network, torch.randn(3, 4))


def given_to_second(between):
    """The values that the first layer returns, and those that the second reads."""
    network, graph = graph_of_run(between)
    return graph, graph.made_by(network.first), [call.reads[0] for call in graph.calls_of(network.second)]


def written_in_place(net, x):
    made = net.first(x)
    made.relu_()
    return net.second(made)


def written_through_a_view(net, x):
    made = net.first(x)
    made[:, :2].zero_()
    return net.second(made)


def written_through_a_view_of_a_view(net, x):
    made = net.first(x)
    made.view(3, 2, 2)[:, 0].mul_(2)
    return net.second(made)


def test_a_value_passes_from_the_layer_that_makes_it_to_the_one_that_reads_it():
    graph, made, read = given_to_second(lambda net, x: net.second(net.first(x)))
    assert made == read and len(made) == 1
    assert made[0] not in graph.constants | graph.given | graph.results
    assert [operator.short_name for operator in graph.readers[made[0]]] == ["addmm"]


@pytest.mark.parametrize("between", [written_in_place, written_through_a_view, written_through_a_view_of_a_view])
def test_a_tensor_that_was_written_to_holds_another_value(between):
    graph, made, read = given_to_second(between)
    assert made != read
    assert any(read[0] in operator.makes for operator in graph.operators), "some operator made it"


def test_a_view_alone_is_another_value_and_leaves_the_first():
    def between(net, x):
        made = net.first(x)
        made.view(2, 6)
        return net.second(made)

    _, made, read = given_to_second(between)
    assert made == read


def test_weights_and_what_is_computed_from_them_alone_are_constants():
    network, graph = graph_of_run(lambda net, x: functional.linear(x, net.first.weight.t() * 2, net.first.bias))
    (product,) = [operator for operator in graph.operators if operator.short_name == "addmm"]
    assert sum(value in graph.constants for value in product.reads) == 2
    assert graph.given & set(product.reads)
    flow = flow_of(graph)
    assert [(step.name, len(step.inputs)) for step in flow.steps] == [("addmm", 1)]


def test_trained_weights_that_were_written_to_are_constants_too():
    network = Net(lambda net, x: functional.prelu(x, net.first.bias))
    with torch.no_grad():
        network.first.bias.fill_(0.5)
    _, graph = graph_of_run(None, network.eval())
    assert [len(step.inputs) for step in flow_of(graph).steps if "prelu" in step.name] == [1]


def test_a_layer_keeps_to_itself_unless_another_reads_its_weight():
    def reading(net, x):
        return net.second(x) + x @ net.first.weight

    network, graph = graph_of_run(lambda net, x: net.second(net.first(x)))
    assert graph.keeps_to_itself(network.first)
    network, graph = graph_of_run(reading)
    assert not graph.keeps_to_itself(network.first) and graph.keeps_to_itself(network.second)
    network, graph = graph_of_run(lambda net, x: (net.second(x), net.second.bias))
    assert not graph.keeps_to_itself(network.second), "its bias is an output"
    network = Net(lambda net, x: net.second(net.first(x)))
    network.second.weight = network.first.weight
    _, graph = graph_of_run(None, network.eval())
    assert graph.keeps_to_itself(network.first), "a tied weight is read by its owners alone"


def test_only_one_layer_reads_a_value():
    network, graph = graph_of_run(lambda net, x: net.second(net.first(x)))
    assert graph.read_only_by(graph.made_by(network.first)[0], network.second)
    assert not graph.read_only_by(graph.made_by(network.second)[0], network.second), "it is an output"
    network, graph = graph_of_run(lambda net, x: net.second(made := net.first(x)) + made)
    assert not graph.read_only_by(graph.made_by(network.first)[0], network.second)


def test_quantizers_and_forms_change_no_value():
    network = Net(lambda net, x: net.second(torch.relu(net.first(x)))).eval()
    before = trace(network, torch.randn(3, 4))
    put_quantizer(network.first, OUTPUT, Affine(0.05, 128, 8))
    put_quantizer(network.second, INPUT, Affine(0.1, 0, 8))
    after = trace(network, torch.randn(3, 4))
    assert flow_of(after) == flow_of(before)
    assert any(one.rounding for call in after.calls for one in call.operators)
    attach(network.first, "weight", Quantized.of(network.first.weight, 4))
    assert [step.name for step in flow_of(trace(network, torch.randn(3, 4))).steps] == ["Linear", "relu", "Linear"]


def test_operators_name_the_line_of_the_users_code():
    _, graph = graph_of_run(written_in_place)
    (relu,) = [operator for operator in graph.operators if operator.short_name == "relu"]
    line = written_in_place.__code__.co_firstlineno + 2
    assert relu.line == f"test_graph.py:{line}"


def test_a_run_on_the_meta_device_has_the_same_flow():
    with torch.device("meta"):
        meta = Net(written_in_place).eval()
    wanted = flow_of(trace(Net(written_in_place).eval(), torch.zeros(3, 4)))
    assert flow_of(trace(meta, torch.zeros(3, 4))) == wanted


def test_no_activation_is_kept_alive():
    import gc
    import weakref

    seen = []

    def between(net, x):
        made = net.first(x)
        seen.append(weakref.ref(made))
        return net.second(made)

    graph_of_run(between)
    gc.collect()
    assert seen[0]() is None
