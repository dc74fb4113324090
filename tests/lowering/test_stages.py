"""Stages compute what the whole network does, for each sample only what it needs; weights stand in one part each."""

import pytest
import torch
from torch import nn

from cortado.engine.recipe import read_recipe
from cortado.engine.stage import apply_stage, start
from cortado.errors import BadNetwork
from cortado.lowering.graph import exported, one_sample
from cortado.lowering.integers import QUANTIZE
from cortado.lowering.lower import lowered
from cortado.lowering.signed import unrounded_matmuls
from cortado.lowering.stages import StageChoice, StagePart, cut_in_stages
from cortado.nets.cascade import Cascade
from cortado.parts.blocks.gate import Gate
from cortado.parts.blocks.rows import ChooseRows
from tests.laws.tiny_nets import BY_NAME
from tests.parts.blocks.test_exit import with_exits
from tests.runtimes.test_rows import INPUTS, middle_of


class Tokens(nn.Module):
    """Chooses among the positions of a sample, in the middle of the network."""

    def __init__(self):
        super().__init__()
        self.choose, self.before, self.inside, self.after = ChooseRows(), *(nn.Linear(8, 8) for _ in range(3))

    def forward(self, images):
        rows = self.before(images.flatten(0, 2))
        made = self.choose(rows.mean(1) > 0.1, self.inside(rows).relu(), rows)
        return self.after(made).unflatten(0, images.shape[:3]).mean((1, 2)), images.mean((1, 2, 3))


class Blocks(nn.Module):
    """Two residual blocks in a row, each with a gate."""

    def __init__(self):
        super().__init__()
        self.stem, self.head = nn.Conv2d(1, 4, 3, padding=1), nn.Linear(4, 4)
        inner = [nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 4, 3, padding=1)) for _ in "ab"]
        self.blocks = nn.Sequential(*(Gate(one, 4, 5) for one in inner))

    def forward(self, images):
        return self.head(self.blocks(self.stem(images).relu()).mean((2, 3)))


class Small(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.conv, self.head = nn.Conv2d(1, width, 3), nn.Linear(width, 4)

    def forward(self, images):
        return self.head(self.conv(images).relu().mean((2, 3)))


def middle(values):
    """The number in the widest gap near the middle: rounding cannot change on which side a value is."""
    near = values.detach().sort().values[8:24]
    place = int(near.diff().argmax())
    return near[place : place + 2].mean()


def exits():
    network, _ = with_exits()
    for name in ("exit_stem", "exit_second"):
        middle_of(network, name)
    return network


def gates():
    torch.manual_seed(1)
    network = Blocks().eval()
    values = network.stem(INPUTS).relu()
    for gate in network.blocks:
        # Open for about half of the samples.
        gate.gate_opens.prepare(values.detach(), 0.5)
        logits = gate.gate_opens.decide(torch.relu(gate.gate_opens.read(gate.gate_opens.means(values))))
        gate.gate_opens.decide.bias.data.sub_(middle(logits.flatten()))
        values = gate(values)
    return network


def cascade():
    torch.manual_seed(2)
    network = Cascade([Small(3), Small(5), Small(8)], [nn.Identity() for _ in range(3)]).eval()
    for place, member in enumerate(network.members[:2]):
        network.sure.thresholds[place] = middle(member(INPUTS).softmax(1).amax(1))
    return network


def tokens():
    torch.manual_seed(0)
    return Tokens().eval()


NETWORKS = {"exits": exits, "gates": gates, "cascade": cascade, "tokens": tokens}


def staged(network, example=INPUTS):
    return cut_in_stages(exported(network, one_sample(example), any_batch=False), type(network).__name__)


def follow(steps, values, ran):
    """Run the steps for one sample, and note which parts ran."""
    for step in steps:
        if isinstance(step, StagePart):
            ran.append(step)
            values.update(zip(step.makes, step.network(*[values[name] for name in step.reads]), strict=True))
        elif values[step.rows].any():
            follow(step.steps, values, ran)
            values[step.result] = values[step.chosen]
        else:
            values[step.result] = values[step.otherwise]


def outputs(stages, *inputs):
    ran, values = [], dict(zip(stages.inputs, inputs, strict=True))
    with torch.no_grad():
        follow(stages.steps, values, ran)
    return [values[name] for name in stages.outputs], ran


@pytest.mark.parametrize("name", NETWORKS)
def test_each_sample_gets_what_the_network_computes_for_it(name):
    network = NETWORKS[name]()
    stages, paths = staged(lowered(network, INPUTS[:2])), set()
    for image in INPUTS.split(1):
        found, ran = outputs(stages, image)
        with torch.no_grad():
            wanted = network(image)
        for made, right in zip(found, wanted if isinstance(wanted, tuple) else [wanted], strict=True):
            assert torch.allclose(made, right, atol=1e-6)
        paths.add(tuple(ran))
    assert len(paths) > 1 or name == "tokens"


def test_samples_run_as_many_parts_as_answers_they_pass():
    network = exits()
    stages = staged(lowered(network, INPUTS[:2]))
    network(INPUTS)
    early, late = network.exit_stem.sure.left_at(), network.exit_second.sure.left_at()
    for image, first, second in zip(INPUTS.split(1), early, late, strict=True):
        assert len(outputs(stages, image)[1]) == (1 if first == 0 else 2 if second == 0 else 3)


def test_a_gate_in_the_middle_is_cut_before_inside_and_after():
    kinds = [type(step) for step in staged(gates()).steps]
    assert kinds == [StagePart, StageChoice, StagePart, StageChoice, StagePart]


@pytest.mark.parametrize("name", NETWORKS)
def test_every_weight_stands_in_one_part(name):
    network = NETWORKS[name]()
    weights = [weight for part in staged(network).parts() for weight in part.network.parameters()]
    # Only those of later answers may be shared, and none is here.
    assert sorted(one.numel() for one in weights) == sorted(one.numel() for one in network.parameters())


def in_integers(network, original=None):
    net = BY_NAME["residual"]
    state = start(network, original or network, net.example)
    for stage in read_recipe("quantize/weights bits=8 | quantize/activations").stages:
        state = apply_stage(stage, state, net.task(), match_moments=False)
    return state.network


def test_integers_cross_as_values_of_their_grid():
    network = in_integers(*with_exits())
    low = lowered(network, BY_NAME["residual"].example)
    whole = exported(low, one_sample(BY_NAME["residual"].example), any_batch=False)
    stages = cut_in_stages(whole, "exits")
    inputs, module, passed = BY_NAME["residual"].task().test.inputs[:16], whole.module(), 0
    for image in inputs.split(1):
        found, ran = outputs(stages, image)
        passed += len(ran)
        assert torch.equal(found[0], module(image))
    assert passed == 3 * 16
    # What is a product of integers in the whole network is one in its part.
    floats = set(unrounded_matmuls(whole))
    for part in stages.parts():
        given = [torch.zeros(node.meta["val"].shape) for node in part.network.graph.nodes if node.op == "placeholder"]
        assert set(unrounded_matmuls(exported(part.network, tuple(given), any_batch=False))) <= floats
        assert any(node.target == QUANTIZE for node in part.network.graph.nodes)


class Picks(nn.Module):
    """Chooses between values that it has anyway."""

    def __init__(self):
        super().__init__()
        self.choose, self.linear = ChooseRows(), nn.Linear(36, 4)

    def forward(self, images):
        made = self.linear(images.flatten(1))
        return self.choose(made[:, 0] > 0, made.relu(), made)


class Starts(Picks):
    """Gives some samples a value that is always the same."""

    def forward(self, images):
        return self.choose(images.mean((1, 2, 3)) > 0, self.linear(images.flatten(1)), torch.ones(1, 4))


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (Picks(), "Picks cannot be cut .* none of them skips a product"),
        (Starts(), "picks a value that no input changes"),
    ],
)
def test_what_cannot_be_cut_is_refused_in_words(network, message):
    with pytest.raises(BadNetwork, match=message):
        staged(network.eval(), torch.randn(2, 1, 6, 6))


class Writes(nn.Module):
    """Adds to a value in place that an operator before reads, where only some samples need the sum."""

    def __init__(self):
        super().__init__()
        self.choose, self.stem, self.linear = ChooseRows(), nn.Linear(64, 8), nn.Linear(8, 8)

    def forward(self, images):
        values = self.stem(images.flatten(1)).relu_()
        mask = values.mean(1) > 0.25
        values.add_(1)
        return self.choose(mask, self.linear(values).relu_(), values)


def test_values_that_are_written_into_are_those_of_the_moment():
    torch.manual_seed(0)
    network = Writes().eval()
    stages, counts = staged(network), set()
    for image in INPUTS.split(1):
        found, ran = outputs(stages, image)
        counts.add(len(ran))
        assert torch.equal(found[0], network(image))
    assert counts == {1, 2}


def test_many_parts_are_refused(monkeypatch):
    monkeypatch.setattr("cortado.lowering.stages.MOST", 4)
    with pytest.raises(BadNetwork, match="5 parts, and at most 4 are written"):
        staged(gates())
