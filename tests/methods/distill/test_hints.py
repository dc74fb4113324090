"""distill/hints: first a hidden layer of the teacher, and then its outputs and the labels."""

import copy

import pytest
import torch
from torch import nn

from cortado.errors import BadNetwork, BadValue
from cortado.methods.distill.hints import DistillHints
from cortado.methods.finetune import Finetune
from cortado.methods.prune.channels import PruneChannels
from cortado.methods.quantize.activations import QuantizeActivations
from cortado.methods.quantize.binary_connect import QuantizeBinaryConnect
from cortado.methods.quantize.weights import QuantizeWeights
from cortado.network.view import View
from cortado.task.data import Data
from cortado.task.task import Task
from cortado.training.objectives.logits import Logits
from tests.laws.tiny_nets import BY_NAME
from tests.training.objectives.given import given_step, random_numbers

NET = BY_NAME["residual"]


class Wide(nn.Module):
    """A teacher of another width and with other names."""

    def __init__(self) -> None:
        super().__init__()
        self.enter, self.inner = nn.Conv2d(1, 12, 3, padding=1), nn.Conv2d(12, 10, 3, padding=1)
        self.head = nn.Linear(10, 4)

    def forward(self, images):
        return self.head(torch.relu(self.inner(torch.relu(self.enter(images)))).mean((2, 3)))


def wide() -> nn.Module:
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(1)
        return Wide().eval()


def viewed(*before) -> View:
    """A network after some stages."""
    network = NET.make()
    view = View(network, copy.deepcopy(network), NET.example)
    for method in before:
        method.apply(view, NET.task())
        view.forget()
    return view


def state(network: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in network.state_dict().items()}


EARLY = ("stem", "norm", "first", "first_norm")
HINTS_ALONE = {"epochs": 0, "hint_epochs": 2, "lr": 0.01, "decay": 0.01, "at": "first_norm"}


@pytest.mark.parametrize(
    "before",
    [(), (QuantizeWeights(),), (QuantizeActivations(),), (QuantizeBinaryConnect(),), (PruneChannels(keep=0.5),)],
    ids=["dense", "quantized", "activations", "binary", "cut"],
)
def test_what_runs_after_the_guided_layer_is_bit_equal_after_the_first_stage(before):
    """Weights, parts and the statistics of batch norms; all that runs before it has learned."""
    view = viewed(*before)
    with torch.no_grad():
        # Far outside the bounds that some forms keep after each step.
        view.network.head.bias.mul_(100)
    start = state(view.network)
    DistillHints(**HINTS_ALONE, of="enter", teacher=wide()).apply(view, NET.task())
    moved = {name for name, value in state(view.network).items() if not torch.equal(value, start[name])}
    early = {name for name in start if name.split(".")[0] in EARLY}
    assert moved <= early and {name.split(".")[0] for name in moved} == set(EARLY)
    assert "first_norm.running_mean" in moved and list(view.curves) == ["features"]


def test_the_first_stage_nears_the_hint_and_its_regressor_is_thrown_away():
    view = viewed()
    start = state(view.network)
    DistillHints(**HINTS_ALONE | {"hint_epochs": 30}, of="inner", teacher=wide()).apply(view, NET.task())
    errors = view.curves["features"]
    assert errors[-1] < 0.5 * errors[0]
    assert list(state(view.network)) == list(start)
    assert not any(module._forward_hooks for module in view.network.modules())
    assert all(one.requires_grad for one in view.network.parameters())


def test_without_hints_it_is_the_second_stage_bit_for_bit():
    found, teacher = [], wide()
    logits = {"logits": {"weight": 0.8, "temperature": 2.0, "falling": 0.5}}
    for method in (
        DistillHints(epochs=2, hint_epochs=0, teacher=teacher, temperature=2.0, hard=0.6, soft=0.8, falling=0.5),
        Finetune(epochs=2, teacher=teacher, objectives=[{"task": {"weight": 0.6}}, logits]),
    ):
        view = viewed()
        method.apply(view, NET.task())
        found.append(state(view.network))
    assert all(torch.equal(value, found[1][name]) for name, value in found[0].items())


def test_both_stages_teach_more_than_the_second_knows():
    """The curves of a run: the hints' error, then the task and the logits."""
    view = viewed()
    DistillHints(epochs=2, hint_epochs=3, at="first_norm", of="enter", teacher=wide()).apply(view, NET.task())
    assert {name: len(values) for name, values in view.curves.items()} == {"features": 3, "task": 2, "logits": 2}
    assert "guided layer first_norm, hint layer enter of the teacher" in view.notes


def test_the_middle_of_both_networks_is_the_default():
    view = viewed()
    DistillHints(epochs=0, teacher=wide()).apply(view, NET.task())
    assert "guided layer first_norm, hint layer inner of the teacher" in view.notes
    view = viewed()
    DistillHints(epochs=0).apply(view, NET.task())
    assert "guided layer first_norm, hint layer first_norm of the teacher" in view.notes


def test_a_layer_that_runs_twice_is_guided_in_its_call():
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.enter, self.again, self.head = nn.Linear(12, 8), nn.Linear(8, 8), nn.Linear(8, 4)

        def forward(self, inputs):
            return self.head(self.again(torch.relu(self.again(torch.relu(self.enter(inputs))))))

    net = BY_NAME["mlp"]
    network = Twice()
    view = View(network, copy.deepcopy(network), net.example)
    DistillHints(epochs=0).apply(view, net.task())
    assert "guided layer again#1, hint layer again#1 of the teacher" in view.notes


def test_weights_outside_where_stay():
    view = viewed()
    start = state(view.network)
    DistillHints(epochs=1, at="second_norm", of="enter", teacher=wide(), where="first").apply(view, NET.task())
    moved = {name for name, value in state(view.network).items() if not torch.equal(value, start[name])}
    assert {name for name in moved if "running" not in name and "num_batches" not in name} == {"first.weight"}


def test_layers_that_cannot_be_used_are_refused_before_any_training():
    def refused(kind, match, **knobs):
        view = viewed()
        start = state(view.network)
        with pytest.raises(kind, match=match):
            DistillHints(**{"teacher": wide(), "of": "enter"} | knobs).apply(view, NET.task())
        assert all(torch.equal(value, start[name]) for name, value in state(view.network).items())

    refused(BadNetwork, r"first gives shape \(2, 8, 6, 6\), the teacher's head \(2, 4\)", at="first", of="head")
    refused(BadValue, "the network has no module 'fist' to tap. Near names: first", at="fist")
    refused(BadValue, "the teacher has no module 'first'", at="first", of="")
    refused(BadNetwork, "everything that trains feeds the guided layer head.*earlier layer", at="head", of="head")
    refused(BadNetwork, "nothing that trains feeds the guided layer first.*widen where", at="first", where="second")


def test_the_weight_of_logits_falls_linearly():
    outputs, taught = random_numbers(6, 5, seed=1), random_numbers(6, 5, seed=2)
    whole = Logits().terms(given_step(outputs, taught))["logits"]
    for progress, share in ((0.0, 1.0), (0.5, 0.625), (1.0, 0.25)):
        found = Logits(falling=0.75).terms(given_step(outputs, taught, progress=progress))["logits"]
        assert float(found) == pytest.approx(share * float(whole))
    assert Logits().recordable and not Logits(falling=0.75).recordable


def test_a_block_of_a_transformer_is_guided_by_its_path():
    transformers = pytest.importorskip("transformers")
    sizes = {"vocab_size": 30, "num_attention_heads": 2, "max_position_embeddings": 8, "num_labels": 3}

    def made(width: int, blocks: int) -> nn.Module:
        torch.manual_seed(0)
        own = {"hidden_size": width, "intermediate_size": 2 * width, "num_hidden_layers": blocks}
        return transformers.BertForSequenceClassification(transformers.BertConfig(**sizes, **own)).eval()

    tokens = torch.randint(0, 30, (16, 6), generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(tokens)
    mask[::2, 4:] = 0
    data = Data({"input_ids": tokens, "attention_mask": mask}, tokens[:, 0] % 3)
    task = Task(
        data,
        data,
        data,
        batch=8,
        trial=True,
        device="cpu",
        loss=lambda out, wanted: nn.functional.cross_entropy(out.logits, wanted),
    )
    network = made(8, 3)
    view = View(network, copy.deepcopy(network), task.example)
    start = state(network)
    path = "bert.encoder.layer"
    DistillHints(epochs=0, hint_epochs=1, at=f"{path}.1", of=f"{path}.3", teacher=made(16, 4)).apply(view, task)
    moved = {name for name, value in state(network).items() if not torch.equal(value, start[name])}
    assert any(name.startswith(f"{path}.1.") for name in moved) and any("embeddings" in name for name in moved)
    assert not any(name.startswith((f"{path}.2.", "bert.pooler", "classifier")) for name in moved)
