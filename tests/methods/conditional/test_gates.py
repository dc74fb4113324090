"""conditional/gates: shares near the target, what is noted, what later stages make of gated networks, what is refused."""

import copy

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from cortado.engine.compress import compress
from cortado.errors import BadNetwork, BadRecipe, BadValue, NothingChanged
from cortado.file.artifact import decode, encode
from cortado.methods.conditional.gates import ConditionalGates, with_gates
from cortado.network.view import View
from cortado.parts.blocks.block import blocks_in
from cortado.parts.blocks.bypass import Bypass
from cortado.parts.blocks.gate import Gate
from cortado.runtimes.export import export
from cortado.task.task import Data, Task


class Step(nn.Module):
    """A residual block of two convolutions."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(channels)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, values: Tensor) -> Tensor:
        return torch.relu(values + self.second(torch.relu(self.norm(self.first(values)))))


class Steps(nn.Module):
    """A convolution, three residual blocks, a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 8, 3, padding=1)
        self.body = nn.Sequential(Step(8), Step(8), Step(8))
        self.head = nn.Linear(8, 4)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.body(torch.relu(self.stem(images))).mean((2, 3)))


class TimeFirst(nn.Module):
    """Two encoder layers over (N, 5, 6), whose own values are (5, N, 8)."""

    def __init__(self) -> None:
        super().__init__()
        self.enter, self.head = nn.Linear(6, 8), nn.Linear(8, 4)
        self.layers = nn.ModuleList(nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0) for _ in range(2))

    def forward(self, sequence: Tensor) -> Tensor:
        values = self.enter(sequence).transpose(0, 1)
        for layer in self.layers:
            values = layer(values)
        return self.head(values.mean(0))


def net() -> Steps:
    torch.manual_seed(1)
    return Steps().eval()


def task(shape: tuple[int, ...] = (1, 6, 6)) -> Task:
    """The class is in the sign of two sums."""
    inputs = torch.randn(512, *shape, generator=torch.Generator().manual_seed(2))
    flat = inputs.flatten(1)
    half = flat.shape[1] // 2
    targets = (flat[:, :half].sum(1) > 0).long() * 2 + (flat[:, half:].sum(1) > 0).long()
    parts = [Data(inputs[a:b], targets[a:b]) for a, b in ((0, 320), (320, 416), (416, 512))]
    return Task(*parts, batch=32, name="signs")


def gated(**knobs) -> View:
    """The network with gates, and the view that has the notes."""
    network = net()
    view = View(network, net(), task().example)
    ConditionalGates(**({"epochs": 6, "lr": 0.01} | knobs)).apply(view, task())
    return view


def gates(network: nn.Module) -> list[str]:
    return [path for path, block in blocks_in(network) if isinstance(block, Gate)]


@pytest.mark.parametrize("target", [0.3, 0.7])
def test_shares_come_near_the_target(target):
    view = gated(target=target, strength=30.0, epochs=10, lr=0.005)
    assert view.curves["share of open gates"][-1] == pytest.approx(target, abs=0.15)
    (note,) = [note for note in view.notes if "gates, open for" in note]
    assert f"(target {target:.0%}): body.0 " in note and "of 96 validation samples" in note


def test_some_samples_skip_and_others_do_not():
    network = gated(start=0.5).network
    with torch.no_grad():
        network(task().validation.inputs)
    shares = [float(block.gate_rows.ran.rows.float().mean()) for _, block in blocks_in(network)]
    assert any(0 < share < 1 for share in shares)


def test_gates_never_shut_come_off_and_the_network_computes_the_same():
    view = gated(start=0.99, epochs=0.1, lr=1e-6)
    assert not gates(view.network) and "always open, so that the gate was taken off: body.0, body.1" in view.notes[-1]
    assert view.hindrances == ["no gate is ever shut: raise strength, epochs or lr, or lower target"]
    assert list(view.network.state_dict()) == list(net().state_dict())


def test_gates_never_open_are_noted():
    view = gated(start=0.01, epochs=0.1, lr=1e-6)
    assert len(gates(view.network)) == 3
    assert "never open on these samples: body.0, body.1, body.2. prune/blocks can remove" in view.notes[-1]


def test_shut_gates_give_what_their_blocks_removed_give():
    network, bare = gated(start=0.01, epochs=0.1, lr=1e-6).network, net()
    bare.load_state_dict({name: network.state_dict()[name] for name in bare.state_dict()})
    bare.body = nn.Sequential(Bypass(), Bypass(), Bypass())
    inputs = task().test.inputs
    assert torch.allclose(network(inputs), bare(inputs), atol=1e-6)


def test_where_selects_the_blocks_and_what_learns():
    view, before = gated(where="body.1.*", start=0.5), net().state_dict()
    assert gates(view.network) == ["body.1"]
    changed = {
        name for name, value in view.network.state_dict().items() if not torch.equal(value, before.get(name, value))
    }
    assert changed and all(name.startswith("body.1.") or "running" in name or "batches" in name for name in changed)


def test_gates_learn_whatever_where_says():
    assert with_gates("*") == "*" and with_gates("not head") == "not head"
    assert with_gates("body.1.*, not head") == "body.1.*, not head, *.gate_opens.*, *.gate_opens.*.bias"
    fresh, trained = gated(epochs=0.0001, lr=1e-9, where="body.1.*", start=0.5), gated(where="body.1.*", start=0.5)
    one, other = (view.network.body[1].gate_opens for view in (fresh, trained))
    assert all(not torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


@pytest.mark.parametrize(
    "after",
    ["prune/weights keep=0.5", "quantize/weights bits=4", "quantize/weights bits=8 | quantize/activations", "simplify/norms",
     "prune/channels keep=0.7", "finetune epochs=0.5"],
)  # fmt: skip
def test_later_stages_work_on_a_gated_network_and_the_file_holds_it(after):
    original = net()
    network, report = compress(original, task(), f"conditional/gates epochs=2 lr=0.01 start=0.6 | {after}")
    assert gates(network) and report.execution
    again = decode(encode(network, original), original)
    assert gates(again) == gates(network)
    assert torch.equal(again(task().test.inputs), network(task().test.inputs))


def test_a_second_time_finds_no_block_without_a_gate():
    network, other = net(), task()
    with pytest.raises(
        NothingChanged, match="stage 2 .* it needs a block without a gate, whose output has the shape of"
    ):
        compress(network, other, "conditional/gates epochs=1 start=0.5 | conditional/gates epochs=1")


def test_a_removed_block_goes_with_its_gate():
    network, _ = compress(net(), task(), "conditional/gates epochs=1 start=0.5 | prune/blocks count=1")
    assert len(gates(network)) == 2 and sum(isinstance(one, Bypass) for one in network.modules()) == 1


def test_a_teacher_teaches_the_network_with_gates():
    assert "logits" in gated(teacher=0.9, epochs=1).curves
    assert "logits" in gated(teacher="before", objectives=["logits"], epochs=1).curves


def test_all_of_the_training_may_draw_or_none():
    for drawn in (0.0, 1.0):
        assert len(gated(drawn=drawn, epochs=1).curves["open_share"]) == 1


def test_a_network_without_residual_blocks_is_refused_in_words():
    plain = nn.Sequential(nn.Flatten(), nn.Linear(36, 8), nn.ReLU(), nn.Linear(8, 4))
    with pytest.raises(NothingChanged, match="gates: it needs a block without a gate.* or use prune/channels or prune"):
        ConditionalGates().apply(View(plain, copy.deepcopy(plain), task().example), task())


def test_rows_that_are_no_samples_are_refused():
    torch.manual_seed(0)
    network, data = TimeFirst().eval(), task((5, 6))
    with pytest.raises(BadNetwork, match=r"what enters layers.0 has 5 entries for 2 samples.* where: not layers.0\.\*"):
        ConditionalGates().apply(View(network, copy.deepcopy(network), data.example), data)


def test_a_block_with_a_name_of_the_gates_is_left_out():
    network = net()
    network.body[1].add_module("inner", nn.Identity())
    view = View(network, copy.deepcopy(network), task().example)
    ConditionalGates(epochs=0.5, start=0.5).apply(view, task())
    assert gates(view.network) == ["body.0", "body.2"]
    assert "left without a gate, since a name in them is also one of a gate's: body.1" in view.notes


@pytest.mark.parametrize(
    ("knobs", "error", "words"),
    [
        ({"target": 1.5}, BadValue, "target must"),
        ({"hidden": 0}, BadValue, "hidden must"),
        ({"temperature": 0.0}, BadValue, "temperature must"),
        ({"start": 1.0}, BadValue, "start must"),
        ({"teacher": "before"}, BadValue, "a teacher is given, and no objective learns from it"),
        ({"objectives": ["nothing such"]}, BadRecipe, "there is no objective 'nothing such'"),
    ],
)
def test_bad_knobs_are_refused_in_words(knobs, error, words):
    with pytest.raises(error, match=words):
        ConditionalGates(**knobs)


@pytest.mark.parametrize("batch", [1, 7])
def test_the_file_of_a_runtime_computes_the_same(batch, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    network = gated(start=0.5).network
    row = export(network, task(), "onnxruntime", tmp_path / "out")
    assert "gates skip " in row.paths
    session = onnxruntime.InferenceSession(tmp_path / "out" / "net.onnx", providers=["CPUExecutionProvider"])
    for start in range(0, 28, batch):
        inputs = task().test.inputs[start : start + batch]
        (found,) = session.run(None, {session.get_inputs()[0].name: inputs.numpy()})
        assert np.abs(found - network(inputs).detach().numpy()).max() < 1e-4
