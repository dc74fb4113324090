"""conditional/cascade: named members before the network, compressed, stored in a bundle and loaded again."""

import pytest
import torch

import cortado
from cortado.engine.compress import compress
from cortado.engine.job import Job
from cortado.engine.recipe import read_recipe
from cortado.errors import BadNetwork, BadRecipe, BadValue
from cortado.methods.conditional.cascade import ConditionalCascade
from cortado.methods.prune.weights import PruneWeights
from cortado.nets.cascade import Adapter, cascade
from cortado.network.view import View
from tests.laws.tiny_nets import BY_NAME, Depthwise

NET = BY_NAME["residual"]
MEMBER = "tests.laws.tiny_nets:Depthwise"
RECIPE = [
    {"conditional/cascade": {"members": [{"network": MEMBER, "scale": 2.0, "shift": [0.5]}]}},
    {"quantize/weights": {"bits": 8}},
    {"conditional/thresholds": {"lose": 60.0, "seen": True}},
]


def test_a_cascade_is_compressed_stored_and_exported(tmp_path):
    original, task = NET.make(), NET.task()
    small, report = compress(original, task, RECIPE)
    assert small.sure.thresholds[0] < 1 and "what follows answer 1" in str(report)
    job = Job(make=NET.maker, make_task=NET.task, recipe=read_recipe(RECIPE))
    cortado.save(small, tmp_path / "net.cortado", original=job.architecture())
    again = cortado.load(tmp_path / "net.cortado", original=job.architecture())
    inputs = task.test.inputs
    assert torch.equal(again(inputs), small(inputs))
    row = cortado.export(small, task, "onnxruntime", tmp_path / "onnx")
    assert row.difference < 1e-3 and "one at a time" in row.paths


def test_everyone_goes_to_the_end_before_thresholds():
    view = View(NET.make(), NET.make(), NET.example)
    ConditionalCascade(members=[MEMBER]).apply(view, NET.task())
    inputs = NET.task().test.inputs
    assert torch.equal(view.network(inputs), NET.make()(inputs))


def test_inputs_are_adapted_for_a_member():
    given = torch.rand(2, 3, 8, 8)
    made = Adapter(scale=[1.0, 2.0, 3.0], shift=1.0, size=4)(given)
    wanted = (
        torch.nn.functional.interpolate(given, size=4, mode="bilinear") * torch.tensor([1.0, 2, 3])[:, None, None] + 1
    )
    assert torch.equal(made, wanted)


def test_what_cannot_be_is_refused_in_words():
    task = NET.task()
    with pytest.raises(BadValue, match="members is empty"):
        ConditionalCascade()
    with pytest.raises(BadRecipe, match="nowhere"):
        ConditionalCascade(members=["nowhere"]).apply(View(NET.make(), NET.make(), NET.example), task)
    pruned = View(NET.make(), NET.make(), NET.example)
    PruneWeights(keep=0.5).apply(pruned, task)
    with pytest.raises(BadNetwork, match="Put this stage first"):
        ConditionalCascade(members=[MEMBER]).apply(pruned, task)
    other = View(NET.make(), NET.make(), NET.example)
    with pytest.raises(BadNetwork, match="the original network"):
        ConditionalCascade(members=[WithTwoClasses]).apply(other, task)
    with pytest.raises(BadValue, match="two members or more"):
        cascade([MEMBER])


class WithTwoClasses(Depthwise):
    def __init__(self):
        super().__init__()
        self.head = torch.nn.Linear(8, 2)
