"""student: the stages after it train and compress another network, and the original still teaches."""

import copy
import importlib
import linecache
import sys

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from cortado.engine.compress import compress
from cortado.engine.recipe import read_recipe
from cortado.engine.stage import apply_stage, begin, view_of
from cortado.errors import BadNetwork, BadRecipe, BadValue
from cortado.file.artifact import decode, encode
from cortado.methods.finetune import Finetune
from cortado.methods.prune.channels import PruneChannels
from cortado.methods.prune.weights import PruneWeights
from cortado.methods.quantize.weights import QuantizeWeights
from cortado.methods.rewind import Rewind
from cortado.methods.student import Student
from cortado.training.objectives.features import Features
from cortado.training.objectives.logits import Logits
from cortado.training.objectives.matching import tapped_survivors
from tests.laws.tiny_nets import BY_NAME, CLASSES, Depthwise, Residual

NET = BY_NAME["residual"]
OWN = "tests.laws.tiny_nets"
TAUGHT = Finetune(epochs=1, objectives=("task", Logits(temperature=4.0)))


def states_equal(one, other) -> bool:
    return list(one) == list(other) and all(torch.equal(one[key], other[key]) for key in one)


def after(*stages):
    """The state after some stages."""
    state = begin(NET.make(), NET.example)
    for stage in stages:
        state = apply_stage(stage, state, NET.task())
    return state


def test_student_comes_as_its_maker_makes_it_with_the_seed():
    by_name, by_class = (after(Student(network=one)).network for one in (f"{OWN}:Depthwise", Depthwise))
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(NET.task().seed)
        wanted = Depthwise()
    assert states_equal(by_name.state_dict(), wanted.state_dict())
    assert states_equal(by_class.state_dict(), wanted.state_dict())
    other = after(Student(network=Depthwise, seed=5)).network
    assert not torch.equal(other.head.weight, wanted.head.weight)


def test_the_users_networks_are_never_changed():
    student, original = Depthwise().eval(), NET.make()
    before = [copy.deepcopy(one.state_dict()) for one in (student, original)]
    small, _ = compress(original, NET.task(), [Student(network=student), TAUGHT, PruneWeights(keep=0.5)])
    assert states_equal(student.state_dict(), before[0]) and states_equal(original.state_dict(), before[1])
    assert not torch.equal(small.head.weight, student.head.weight)


def test_options_and_weights_reach_the_maker(tmp_path):
    trained = nn.Sequential(nn.Flatten(), nn.Linear(36, CLASSES))
    save_file(trained.state_dict(), tmp_path / "small.safetensors")
    made = {"network": "tests.methods.test_student:flat", "options": {"classes": CLASSES}}
    (tmp_path / "recipe.yaml").write_text(f"- student: {made | {'weights': 'small.safetensors'}}\n")
    found = after(*read_recipe(tmp_path / "recipe.yaml").stages).network
    assert states_equal(found.state_dict(), trained.state_dict())


def flat(classes):
    """A linear layer over all pixels."""
    return nn.Sequential(nn.Flatten(), nn.Linear(36, classes))


def test_the_original_teaches_and_the_file_is_written_against_the_student():
    state = after(Student(network=Depthwise))
    assert isinstance(state.original, Residual) and isinstance(state.base, Depthwise)
    assert state.reference is state.base and state.survivors == {} and state.fresh
    original, task = NET.make(), NET.task()
    small, report = compress(original, task, [Student(network=Depthwise), TAUGHT, QuantizeWeights(bits=4)])
    assert set(report.stages[1].curves) == {"task", "logits"}
    body = encode(small, Depthwise)
    assert len(body) == report.size_bytes
    assert torch.equal(decode(body, Depthwise)(NET.example), small(NET.example))
    with pytest.raises(BadNetwork):
        encode(small, original)


def test_student_learns_the_originals_outputs():
    """Where all that is learned from is the original, the student's outputs come closer to it."""
    original, task = NET.make(), NET.task()
    train = Finetune(epochs=20, lr=0.02, objectives=(Logits(temperature=1.0),))
    apart = []
    for stages in ([Student(network=Depthwise)], [Student(network=Depthwise), train]):
        small, _ = compress(original, task, stages)
        with torch.no_grad():
            shares = [net(task.train.inputs).softmax(1) for net in (original, small)]
        apart.append(float((shares[0] - shares[1]).abs().mean()))
    assert apart[1] < 0.7 * apart[0]


def test_lossy_stages_restore_the_moments_of_the_student():
    state = after(Student(network=Depthwise), TAUGHT)
    trained = copy.deepcopy(state.network)
    state = apply_stage(QuantizeWeights(bits=3), state, NET.task())
    assert states_equal(state.reference.state_dict(), trained.state_dict())


def test_rewind_goes_back_to_the_student_as_it_came():
    state = after(Student(network=Depthwise, seed=3), TAUGHT, Rewind())
    assert states_equal(state.network.state_dict(), state.base.state_dict())


def test_survivors_of_a_students_cut_are_not_those_of_the_original():
    """The original's layer has other channels: a linear map is learned, where a cut original's survivors are known."""
    features = Features(at="body.0", of="first")
    stages = [Student(network=Depthwise), TAUGHT, PruneChannels(keep=0.5, multiple=1)]
    state = after(*stages)
    assert len(state.survivors["body.0"]) < 6
    assert not tapped_survivors(["body.0"], [state.original], view_of(state))
    assert tapped_survivors(["body.0"], [state.base], view_of(state))
    made = apply_stage(Finetune(epochs=1, objectives=("task", features)), state, NET.task())
    assert made.curves["features"]


@pytest.mark.parametrize("before", [PruneChannels(keep=0.5, multiple=1), QuantizeWeights(bits=4)])
def test_student_after_other_stages_starts_from_nothing(before):
    state = after(before, Student(network=Depthwise))
    assert states_equal(state.network.state_dict(), after(Student(network=Depthwise)).network.state_dict())
    assert state.kept == {} and state.survivors == {}


def test_second_student_replaces_the_first(tmp_path):
    recipe = [Student(network=Depthwise), TAUGHT, Student(network=f"{OWN}:Residual", seed=9), TAUGHT]
    small, report = compress(NET.make(), NET.task(), recipe, folder=tmp_path)
    assert isinstance(small, Residual) and report.stages[0].parameters != report.stages[2].parameters
    again, second = compress(NET.make(), NET.task(), recipe, folder=tmp_path, resume=True)
    assert states_equal(small.state_dict(), again.state_dict())
    assert [one.seconds for one in report.stages] == [one.seconds for one in second.stages]


def test_maker_of_another_architecture_runs_again_on_resume(tmp_path):
    small, _ = compress(NET.make(), NET.task(), [Student(network=wider), TAUGHT], folder=tmp_path)
    WIDTH[0] = 5
    try:
        again, report = compress(NET.make(), NET.task(), [Student(network=wider), TAUGHT], folder=tmp_path, resume=True)
    finally:
        WIDTH[0] = 3
    assert (small[0].out_channels, again[0].out_channels) == (3, 5)
    assert "is from another run" in report.warnings[0]


def test_edited_code_runs_again_on_resume(tmp_path, monkeypatch):
    """The tensors are the same, so only the code tells: of a student, or of the network itself."""
    monkeypatch.syspath_prepend(str(tmp_path))
    for number, (of, recipe) in enumerate(
        [("student", [Student(network="edited:small"), TAUGHT]), ("network", [TAUGHT])]
    ):
        folder, runs = tmp_path / str(number), []
        for act in ("relu", "relu", "tanh"):
            (tmp_path / "edited.py").write_text(EDITED.format(act=act))
            linecache.checkcache()
            sys.modules.pop("edited", None)
            importlib.invalidate_caches()
            sys.dont_write_bytecode, kept = True, sys.dont_write_bytecode
            network = NET.make() if of == "student" else importlib.import_module("edited").small()
            sys.dont_write_bytecode = kept
            runs.append(compress(network, NET.task(), recipe, folder=folder, resume=bool(runs))[1])
        assert runs[0].stages[-1].seconds == runs[1].stages[-1].seconds and not runs[1].warnings
        assert runs[2].stages[-1].seconds != runs[0].stages[-1].seconds
        assert "is from another run (recipe, network or its code" in runs[2].warnings[0]


EDITED = """import torch
from torch import nn


class Small(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.head = nn.Conv2d(1, 3, 3), nn.Linear(3, 4)

    def forward(self, images):
        return self.head(torch.{act}(self.conv(images)).mean((2, 3)))


def small():
    return Small().eval()
"""
WIDTH = [3]


def wider():
    """A network whose width depends on more than the recipe says."""
    return nn.Sequential(
        nn.Conv2d(1, WIDTH[0], 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(WIDTH[0], CLASSES)
    )


def failing():
    raise KeyError("layers")


@pytest.mark.parametrize(
    ("network", "kind", "says"),
    [
        (
            "no_such_module:small",
            BadRecipe,
            r"student: 'no_such_module:small' cannot be loaded .* package.module:maker",
        ),
        ("tests.laws.tiny_nets:nothing", BadRecipe, "student: .*nothing' cannot be loaded"),
        ("resnet_21", BadRecipe, "student: .*no network 'resnet_21'.* Did you mean resnet_20.*package.module:maker"),
        ("tests.methods.test_student:failing", BadRecipe, "student: .*failing raised KeyError: 'layers'"),
        (failing, BadRecipe, "student: tests.methods.test_student:failing raised KeyError"),
        ("tests.laws.tiny_nets:CLASSES", BadRecipe, "student: tests.laws.tiny_nets:CLASSES does not take"),
        (lambda: 3, BadNetwork, "student: .*<lambda> made int, not a network"),
        (
            "tests.methods.test_student:flat",
            BadRecipe,
            r"flat does not take \[\] \(missing a required argument: 'classes'",
        ),
        (nn.Sequential(nn.Flatten(), nn.Linear(36, 9)), BadNetwork, r"returns a tensor of floats \(2, 9\) .*\(2, 4\)"),
        (lambda: BY_NAME["mlp"].make(), BadNetwork, "student: Sequential cannot take the task's inputs"),
    ],
)
def test_student_that_does_not_fit_is_refused_in_words(network, kind, says):
    with pytest.raises(kind, match=says):
        after(Student(network=network))


class Two(nn.Module):
    """Two outputs where the original has one."""

    def forward(self, images):
        return {"logits": images.flatten(1)[:, :CLASSES], "more": images}


def test_outputs_of_another_structure_are_refused():
    with pytest.raises(BadNetwork, match=r"student: Two returns logits of floats \(2, 4\), more of floats .* original"):
        after(Student(network=Two))


def test_student_that_is_compressed_already_is_refused():
    small, _ = compress(NET.make(), NET.task(), [QuantizeWeights(bits=4)])
    with pytest.raises(BadNetwork, match=r"is held in a form\. Pass the network as it came"):
        after(Student(network=small))


@pytest.mark.parametrize(
    ("knobs", "says"),
    [
        ({"network": ""}, "student: network is empty. Write network: package.module:maker"),
        ({"network": 3}, "student: network must"),
        ({"network": Depthwise, "where": "head"}, r"student: where must be \*, got 'head'"),
        ({"network": Depthwise, "seed": -1}, "student: seed must lie in 0"),
        ({"network": Depthwise, "options": 3}, "student: options must"),
    ],
)
def test_wrong_knobs_are_refused(knobs, says):
    with pytest.raises(BadValue, match=says):
        after(Student(**knobs))


def test_weights_that_do_not_fit_the_student_are_refused(tmp_path):
    save_file({"other": torch.zeros(1)}, tmp_path / "small.safetensors")
    with pytest.raises(BadNetwork, match=r"student: small.safetensors does not fit Depthwise: missing"):
        after(Student(network=Depthwise, weights=str(tmp_path / "small.safetensors")))
    with pytest.raises(BadNetwork, match="student: the weights .* do not exist"):
        after(Student(network=Depthwise, weights=str(tmp_path / "none.safetensors")))


def test_the_planners_stage_works_on_the_student():
    recipe = [Student(network=Depthwise), TAUGHT, {"allocate": {"size": 150}}]
    small, report = compress(NET.make(), NET.task(), recipe)
    again = decode(encode(small, Depthwise), Depthwise)
    assert torch.equal(again(NET.example), small(NET.example))
    assert report.stages[2].size_bytes < report.stages[1].size_bytes
