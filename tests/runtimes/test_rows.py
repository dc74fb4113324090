"""Rows in an ONNX graph: the same choices as in PyTorch for any batch, and work only for the rows that need it."""

import pytest
import torch
from torch import nn

from cortado.engine.recipe import read_recipe
from cortado.engine.stage import apply_stage, start
from cortado.lowering.graph import exported
from cortado.lowering.lower import lowered
from cortado.parts.blocks.rows import ChooseRows
from cortado.runtimes.compare import without_other_paths
from cortado.runtimes.onnx_file import write_onnx
from cortado.runtimes.rows import BRANCHES, COMPACTION
from cortado.runtimes.runtime import Running, runtime_by_name
from tests.laws.tiny_nets import BY_NAME
from tests.parts.blocks.test_exit import with_exits

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
RUNTIMES = [name for name in ("onnxruntime", "openvino") if runtime_by_name(name).available()]
INPUTS = torch.randn(32, 1, 8, 8, generator=torch.Generator().manual_seed(1))


class Reshaping(nn.Module):
    """Chosen rows pass through code that asks for the size of its batch, and another value comes along."""

    def __init__(self):
        super().__init__()
        self.choose, self.linear = ChooseRows(), nn.Linear(8, 8)

    def forward(self, values):
        count = values.shape[0]
        aside = values.mean((1, 2, 3))
        long = values.reshape(count, 8, 8)
        longer = self.linear(long).reshape(count * 8, 8).reshape(values.shape[0], 64) + aside[:, None]
        return self.choose(aside > 0, longer, values.flatten(1))


def same_everywhere(network, form, runtime, tmp_path):
    low = lowered(network, INPUTS[:2])
    file = runtime_by_name(runtime).with_paths(form).lower(low, INPUTS[:2], tmp_path)
    running = Running(runtime_by_name(runtime).load(file, 1))
    for batch in (1, 7, 32, 0):
        with torch.no_grad():
            assert torch.allclose(running(INPUTS[:batch]), network(INPUTS[:batch]), atol=1e-5)


def middle_of(network, name):
    """Set the threshold of an exit between two confidences in the middle."""
    head, seen = getattr(network, name), []
    handle = head.register_forward_hook(lambda m, given, made: seen.append(made))
    network(INPUTS)
    handle.remove()
    ordered = seen[0].softmax(1).amax(1).sort().values
    head.sure.thresholds.fill_(float(ordered[15:17].mean().detach()))


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("form", [COMPACTION, BRANCHES])
def test_exits_are_taken_as_in_pytorch(runtime, form, tmp_path):
    network, _ = with_exits()
    for name in ("exit_stem", "exit_second"):
        middle_of(network, name)
    same_everywhere(network, form, runtime, tmp_path)
    network(INPUTS)
    stops = network.exit_stem.sure.left_at()
    assert 0 < int(stops.sum()) < len(INPUTS)


@pytest.mark.parametrize("made", [lambda: with_exits()[0], lambda: Reshaping().eval()], ids=["exits", "sizes"])
def test_pytorchs_file_takes_the_same_paths_and_skips_the_rest(made, tmp_path):
    torch.manual_seed(0)
    network = made()
    if not isinstance(network, Reshaping):
        for name in ("exit_stem", "exit_second"):
            middle_of(network, name)
    same_everywhere(network, "", "torch_eager", tmp_path)
    graph = runtime_by_name("torch_eager").load(tmp_path / "net.pt2", 1).network
    assert not [node for node in graph.graph.nodes if node.target is torch.ops.aten.where.self]
    with torch.no_grad():
        sizes = [len(value) for value in Recording(graph).values(INPUTS)]
    whole = 8 * len(INPUTS) if isinstance(network, Reshaping) else len(INPUTS)
    assert 0 < min(sizes) < whole


class Recording(torch.fx.Interpreter):
    """What the linear layers of a graph return."""

    def values(self, inputs):
        self.kept = []
        self.run(inputs)
        return self.kept

    def run_node(self, n):
        value = super().run_node(n)
        if n.target in (torch.ops.aten.linear.default, torch.ops.aten.addmm.default):
            self.kept.append(value.reshape(-1, value.shape[-1]))
        return value


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("form", [COMPACTION, BRANCHES])
def test_sizes_of_the_batch_follow(runtime, form, tmp_path):
    torch.manual_seed(0)
    same_everywhere(Reshaping().eval(), form, runtime, tmp_path)


def test_what_follows_runs_for_the_undecided_alone(tmp_path):
    network, _ = with_exits(0.0)
    low = lowered(network, INPUTS[:2])
    file = write_onnx(low, exported(low, INPUTS[:2]), tmp_path / "net.onnx", "test", {})
    model = onnx.load(file)
    gathers = [node for node in model.graph.node if node.op_type == "Gather"]
    products = [node for node in model.graph.node if node.op_type in ("Conv", "Gemm")]
    after = {name for node in gathers for name in node.output}
    for node in model.graph.node:
        if set(node.input) & after:
            after.update(node.output)
    # The stem, and the head that reads it, run for all; everything else for those that go on.
    assert sorted(node.name for node in products if not set(node.output) & after) == ["exit_stem.linear", "stem"]
    assert not [node for node in model.graph.node if node.op_type == "Where"]


def test_few_samples_may_take_another_path_but_nothing_hides_there():
    near, far = torch.full((98,), 1e-6, dtype=torch.double), torch.tensor([0.5, 0.7], dtype=torch.double)
    assert without_other_paths(torch.cat([near, far]), 1e-3, few=2) == (pytest.approx(1e-6), 2)
    assert without_other_paths(torch.cat([near, far]), 1e-3, few=1) == (0.7, 0)
    assert without_other_paths(torch.cat([near, near]), 1e-3, few=2) == (pytest.approx(1e-6), 0)
    lost = torch.tensor([float("inf")], dtype=torch.double)
    assert without_other_paths(torch.cat([near, lost]), 1e-3, few=2) == (float("inf"), 0)


def test_codes_are_gathered_and_products_of_integers_stay(tmp_path):
    net = BY_NAME["residual"]
    network, original = with_exits()
    state = start(network, original, net.example)
    for stage in read_recipe("quantize/weights bits=8 | quantize/activations").stages:
        state = apply_stage(stage, state, net.task(), match_moments=False)
    runtime = runtime_by_name("onnxruntime")
    file = runtime.lower(lowered(state.network, net.example), net.example, tmp_path)
    layers = {"stem", "first", "second", "exit_stem.linear", "head"}
    assert layers <= {path for path, ran in runtime.placed(file).items() if ran.kernel == "int8"}
    model = onnx.load(file)
    made_by = {name: node.op_type for node in model.graph.node for name in node.output}
    gathered = [made_by.get(node.input[0]) for node in model.graph.node if node.op_type == "Gather"]
    assert gathered and "DequantizeLinear" not in gathered
