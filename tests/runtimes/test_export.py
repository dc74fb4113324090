"""Export: a folder that is whole or not there, and an error in words where outputs differ."""

import json
from dataclasses import replace
from typing import NamedTuple

import pytest
import torch
from torch import nn

import cortado.runtimes.export as export_file
from cortado.errors import BadNetwork, BadValue, OutputsDiffer
from cortado.runtimes.compare import blamed_layer, compare, same_decisions, shaped_like
from cortado.runtimes.export import export
from cortado.runtimes.runtime import Running, runtime_by_name
from cortado.runtimes.torch_eager import TorchEager, TorchSession
from cortado.task.measure import mean_score
from cortado.task.outputs.automatic import Automatic
from cortado.task.outputs.classes import Classes
from cortado.task.outputs.numbers import Numbers
from cortado.task.task import Data, Metric
from tests.laws.tiny_nets import BY_NAME
from tests.runtimes.networks import OneOfTwo, Wrong, pair_task
from tests.runtimes.test_runtimes import Rare

NET = BY_NAME["residual"]
RUNTIMES = ("torch_eager", "onnxruntime", "openvino")


def activated() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(12, 8), nn.Tanh(), nn.Linear(8, 8), nn.GELU(), nn.Linear(8, 4)).eval()


def test_export_writes_the_file_and_what_it_is(tmp_path):
    network, task = NET.make(), NET.task()
    row = export(network, task, runtime_by_name("onnxruntime"), tmp_path / "out")
    facts = json.loads((tmp_path / "out/export.json").read_text())
    assert facts["file"] == "net.onnx" and (tmp_path / "out/net.onnx").stat().st_size == row.size_bytes
    assert row.difference < 1e-5 and row.same_top == 1 and row.samples == len(task.validation)
    assert row.score == row.torch_score == pytest.approx(mean_score(network, task.validation, task.metric))
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_export_replaces_an_export_and_nothing_else(tmp_path):
    runtime = TorchEager()
    export(NET.make(), NET.task(), runtime, tmp_path / "out")
    export(NET.make(), NET.task(), runtime, tmp_path / "out")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/letter.txt").write_text("dear")
    with pytest.raises(BadValue, match="that export did not write"):
        export(NET.make(), NET.task(), runtime, tmp_path / "mine")
    assert (tmp_path / "mine/letter.txt").read_text() == "dear"
    with pytest.raises(BadValue, match="does not exist"):
        export(NET.make(), NET.task(), runtime, tmp_path / "no/such")


def test_export_takes_several_inputs(tmp_path):
    row = export(OneOfTwo().eval(), pair_task(), runtime_by_name("onnxruntime"), tmp_path / "out")
    assert row.samples == 10 and row.same_top == 1


class Starred(OneOfTwo):
    """All inputs by one name."""

    def forward(self, *parts):
        return self.pair(*parts)[0]


class HalfStarred(OneOfTwo):
    """The second input is one of any number."""

    def forward(self, left, *rest):
        return self.pair(left, *rest)[0]


@pytest.mark.parametrize("merge", [False, True])
@pytest.mark.parametrize("name", RUNTIMES)
@pytest.mark.parametrize("kind", [Starred, HalfStarred])
def test_export_takes_inputs_of_any_number(kind, name, merge, tmp_path):
    row = export(kind().eval(), pair_task(), runtime_by_name(name), tmp_path / "out", merge=merge)
    assert row.samples == 10 and row.difference < 1e-5


class Both(NamedTuple):
    """Outputs by name."""

    matmul: torch.Tensor
    made: torch.Tensor


GIVEN = {
    "dict": (lambda matmul, made: {"made": made, "product": matmul}, lambda outputs: outputs["product"]),
    "nested": (lambda matmul, made: [made, {"inner": (matmul, None)}], lambda outputs: outputs[1]["inner"][0]),
    "named": (Both, lambda outputs: outputs.matmul),
}


class Structured(OneOfTwo):
    """Two outputs in a structure."""

    def __init__(self, kind):
        super().__init__()
        self.kind = kind

    def forward(self, left, right):
        return GIVEN[self.kind][0](*self.pair(left, right))


@pytest.mark.parametrize(
    ("kind", "name"),
    [(kind, name) for kind in GIVEN for name in RUNTIMES if (kind, name) != ("named", "torch_eager")],
)
def test_file_is_scored_on_nested_outputs(kind, name, tmp_path):
    read = GIVEN[kind][1]
    score = Metric(each=lambda outputs, targets: (read(outputs).argmax(1) == targets).float())
    network, task = Structured(kind).eval(), replace(pair_task(), metric=score)
    row = export(network, task, runtime_by_name(name), tmp_path / "out")
    assert row.difference < 1e-5 and row.score == row.torch_score == mean_score(network, task.validation, score)


def test_outputs_that_torch_cannot_write_down_are_refused(tmp_path):
    with pytest.raises(BadNetwork, match="cannot be saved as an exported program"):
        export(Structured("named").eval(), pair_task(), TorchEager(), tmp_path / "out")


def test_outputs_keep_the_order_of_a_file_that_has_more_of_them():
    found = (torch.ones(1), torch.zeros(1))
    assert shaped_like({"only": torch.ones(1)}, found) is found
    assert shaped_like((torch.ones(1),) * 3, found) is found


def test_outputs_that_differ_are_an_error_that_names_the_layer(tmp_path):
    with pytest.raises(OutputsDiffer, match=r"Wrong: outputs differ .* It begins at 3 \(GELU\)"):
        export(activated(), BY_NAME["mlp"].task(), Wrong(), tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_tolerance_lets_more_through(tmp_path):
    row = export(activated(), BY_NAME["mlp"].task(), Wrong(), tmp_path / "out", tolerance=10.0)
    assert row.difference > 1e-3


@pytest.mark.parametrize("tolerance", [float("nan"), -1.0, -1e-9, float("inf")])
def test_tolerance_that_compares_nothing_is_refused(tolerance, tmp_path):
    with pytest.raises(BadValue, match="tolerance must be at least 0"):
        export(NET.make(), NET.task(), TorchEager(), tmp_path / "out", tolerance=tolerance)
    assert not list(tmp_path.iterdir())


def test_no_layer_is_blamed_where_none_is_wrong():
    assert blamed_layer(TorchEager(), activated(), torch.randn(4, 12), 1e-3) is None


@pytest.mark.parametrize("name", ["onnxruntime", "openvino"])
def test_nothing_is_left_when_a_runtime_lacks_an_operator(name, tmp_path):
    network = nn.Sequential(nn.Linear(12, 4), Rare()).eval()
    with pytest.raises(BadNetwork, match="bessel_y1"):
        export(network, BY_NAME["mlp"].task(), runtime_by_name(name), tmp_path / "out")
    assert not list(tmp_path.iterdir())


def in_type(task, dtype):
    """The task with its inputs in another type of floats."""
    return replace(task, calibration=None, **{
        name: Data(data.inputs.to(dtype), data.targets)
        for name, data in (("train", task.train), ("validation", task.validation), ("test", task.test))
    })  # fmt: skip


@pytest.mark.parametrize("name", ["onnxruntime", "openvino"])
def test_floats_that_a_runtime_does_not_take_are_refused_before_lowering(name, tmp_path, monkeypatch):
    monkeypatch.setattr(export_file, "lowered", lambda *given, **named: pytest.fail("lowered"))
    network, task = BY_NAME["mlp"].make().bfloat16(), in_type(BY_NAME["mlp"].task(), torch.bfloat16)
    with pytest.raises(BadNetwork, match=rf"{name}: Sequential holds bfloat16.*Call \.float\(\)"):
        export(network, task, runtime_by_name(name), tmp_path / "out")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("net", "operator"), [("residual", "Conv"), ("recurrent", "LSTM")])
def test_type_that_one_operator_lacks_is_named_with_the_way_out(net, operator, tmp_path, capfd):
    network, task = BY_NAME[net].make().double(), in_type(BY_NAME[net].task(), torch.float64)
    with pytest.raises(BadNetwork, match=rf"{operator}.*The network holds float64: call \.float\(\)") as caught:
        export(network, task, runtime_by_name("onnxruntime"), tmp_path / "out")
    assert str(tmp_path) not in str(caught.value) and "".join(capfd.readouterr()) == ""
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("name", "dtype"), [("onnxruntime", torch.float64), ("openvino", torch.float64), ("torch_eager", torch.bfloat16)]
)
def test_types_that_a_runtime_takes_are_exported(name, dtype, tmp_path):
    network, task = BY_NAME["mlp"].make().to(dtype), in_type(BY_NAME["mlp"].task(), dtype)
    assert export(network, task, runtime_by_name(name), tmp_path / "out").difference < 1e-6


def test_compare_counts_equal_tops():
    class Swapped(nn.Module):
        """Right for every second sample of a batch."""

        def forward(self, activation):
            made = activation.clone()
            made[::2] = made[::2].flip(1)
            return made

    data = BY_NAME["mlp"].task().validation
    agreement = compare(TorchSession(Swapped(), (), 1), nn.Identity(), data)
    assert agreement.same_top == 0.5 and agreement.score is None and agreement.difference > 0.1


def test_running_a_session_is_scored_like_a_network(tmp_path):
    network, task = NET.make(), NET.task()
    runtime = TorchEager()
    session = runtime.load(runtime.lower(network, task.example, tmp_path), 1)
    assert mean_score(Running(session), task.validation, task.metric) == mean_score(
        network, task.validation, task.metric
    )


@pytest.mark.parametrize(
    ("targets", "wanted"),
    [
        (torch.tensor([0, 2]), 1.0),
        (torch.zeros(2), None),
        (torch.zeros(2, 3), None),
        (torch.zeros(2, 3, dtype=torch.long), None),
    ],
)
def test_decisions_of_an_unstated_kind_are_known_only_beside_labels(targets, wanted):
    found, outputs = torch.tensor([[0.0, 2.0, 1.0], [0.0, 1.0, 2.0]]), torch.tensor([[0.0, 2.0, 1.0], [3.0, 1.0, 2.0]])
    same = same_decisions(Automatic(), found, outputs, targets)
    assert same is None if wanted is None else float(same.sum()) == wanted
    assert same_decisions(Classes(), found, outputs, targets).tolist() == [1.0, 0.0]
    assert same_decisions(Numbers(), found, outputs, targets) is None
