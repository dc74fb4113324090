"""Where trainings run: what is asked for, what is there, and that the network comes back."""

import dataclasses

import pytest
import torch

from cortado.engine.compress import compress
from cortado.engine.recipe import read_recipe
from cortado.errors import BadNetwork, BadTask
from cortado.file.artifact import encode
from cortado.methods.needs import Leaves
from cortado.running.devices import on_device, own_device, place_of_training, training_device
from cortado.training.loop import Training, train
from tests.laws.tiny_nets import BY_NAME

SEES_GPU = torch.cuda.is_available()
on_gpu = pytest.mark.skipif(not SEES_GPU, reason="torch sees no GPU here")
TRAININGS = (
    "finetune epochs=1",
    "distill/logits epochs=1",
    "prune/weights keep=0.5 | finetune epochs=1",
    "share/kmeans bits=2 | finetune epochs=1",
    "quantize/aware bits=2 activations=2 | finetune epochs=1 teacher=0.5 average=0.1",
    "quantize/ternary | finetune epochs=1",
    "quantize/xnor | finetune epochs=1",
    "quantize/dorefa bits=1 activations=2 gradients=6 | finetune epochs=1",
    "quantize/pact bits=4 activations=4 | finetune epochs=1",
    "quantize/compact_binary terms=2 | finetune epochs=1 objectives=[task, bipolar: {weight: 1.0e-4}]",
    "quantize/binary_connect stochastic=true | finetune epochs=1",
    "quantize/clip | finetune epochs=1",
    "finetune epochs=1 objectives=[task, group_lasso: {weight: 1.0e-4}, norm_gains: {weight: 1.0e-4}, nuclear_norm: {weight: 1.0e-4}]",
    "prune/rate_distortion epochs=1 finish=1",
)
NEVER_RECORDED = ("bipolar", "group_lasso", "prune/rate_distortion", "quantize/clip")
BY_CHANCE = ("stochastic", "dorefa")


def takes_signs(recipe: str) -> bool:
    """Whether a stage takes signs of activations, of which `residual` has none of both kinds."""
    return any(Leaves.SIGNS in stage.leaves for stage in read_recipe(recipe).stages)


TRAINED = [
    (name, recipe)
    for name in ("residual", "recurrent", "signed")
    for recipe in TRAININGS
    if name != "residual" or not takes_signs(recipe)
]


def test_auto_is_the_cpu_where_there_is_no_gpu():
    network = BY_NAME["mlp"].make()
    assert training_device(network, "auto").type == ("cuda" if SEES_GPU else "cpu")
    assert training_device(network, "cpu") == torch.device("cpu")
    assert place_of_training(network, "cpu") == []


@pytest.mark.parametrize(("asked", "says"), [("gpu", "device must be auto"), ("cuda:99", "is not available")])
def test_device_is_refused_in_words_when_it_is_not_there(asked, says):
    task = dataclasses.replace(BY_NAME["mlp"].task(), device=asked)
    with pytest.raises(BadTask, match=says):
        train(BY_NAME["mlp"].make(), task, Training())


def test_network_on_another_device_stays_there():
    network = BY_NAME["mlp"].make().to("meta")
    assert training_device(network, "cpu") == torch.device("meta")


def test_moved_gives_the_network_back_when_training_fails():
    network = BY_NAME["mlp"].make()
    before = [id(parameter) for parameter in network.parameters()]
    with pytest.raises(RuntimeError, match="stop"), on_device(network, torch.device("cuda" if SEES_GPU else "cpu")):
        raise RuntimeError("stop")
    assert own_device(network) == torch.device("cpu")
    assert [id(parameter) for parameter in network.parameters()] == before


@on_gpu
@pytest.mark.parametrize(("name", "recipe"), TRAINED)
def test_recipe_trains_on_a_gpu_and_ends_on_the_cpu(name, recipe):
    original, task = BY_NAME[name].make(), BY_NAME[name].task()
    small, report = compress(original, task, recipe)
    assert {value.device.type for value in small.state_dict().values()} == {"cpu"}
    trained = [stage for stage in report.stages if stage.name in ("finetune", "distill/logits")]
    assert all(note.startswith("trained on ") for stage in trained for note in stage.notes[-1:])
    assert encode(small, original)


@on_gpu
@pytest.mark.parametrize("recipe", [line for line in TRAININGS if not any(word in line for word in NEVER_RECORDED)])
def test_recorded_training_is_near_to_the_same_step_by_step(recipe):
    tiny, ends = BY_NAME["signed" if takes_signs(recipe) else "residual"], []
    lines = recipe.replace("finetune epochs=1", "finetune epochs=2 precision=float32 optimizer=sgd lr=0.01")
    for recorded in ("", " recorded=true"):
        small, _ = compress(tiny.make(), tiny.task(), lines + recorded)
        ends.append(torch.cat([value.flatten().float() for value in small.state_dict().values()]))
    assert ends[0].shape == ends[1].shape
    assert float((ends[0] - ends[1]).norm() / ends[0].norm()) < (
        0.3 if any(word in recipe for word in BY_CHANCE) else 0.02
    )


@on_gpu
def test_step_that_asks_for_a_number_is_refused_in_words_when_recorded():
    with pytest.raises(BadNetwork, match="cannot be recorded"):
        compress(BY_NAME["residual"].make(), BY_NAME["residual"].task(), "quantize/clip | tune recorded=true")


@on_gpu
def test_training_on_a_gpu_is_near_to_that_on_a_cpu():
    tiny, ends = BY_NAME["mlp"], []
    for device in ("cpu", "cuda"):
        network, task = tiny.make(), dataclasses.replace(tiny.task(), device=device)
        train(network, task, Training(epochs=2, lr=0.05, optimizer="sgd", precision="float32"))
        ends.append(torch.cat([parameter.flatten() for parameter in network.parameters()]).detach())
    assert torch.allclose(*ends, atol=1e-3)
