"""Every paper of recipes/ on a tiny stand-in of its network: it loads, runs, and leaves what it says."""

import copy
from functools import cache
from pathlib import Path

import pytest
import torch
import yaml
from torch import nn

from cortado.engine.compress import compress
from cortado.engine.recipe import read_recipe
from cortado.nets.catalog import by_name
from cortado.nets.espnet import espnet
from cortado.nets.lenet import LeNet5, LeNet300100
from cortado.nets.msdnet import msdnet
from cortado.nets.resnet import CifarResNet
from cortado.nets.vgg import CifarVgg
from cortado.network.graph.where import choose
from cortado.network.weight import parameter_places
from cortado.parts.forms.codebook import Codebook
from cortado.parts.forms.masked import Masked
from cortado.task.outputs.words import Words
from cortado.task.overlap import mean_iou
from cortado.task.task import Data, Task
from cortado.tasks import cifar10
from cortado.tasks.camvid import loss as camvid_loss
from tests import tiny_detector

FOLDER = Path(__file__).parents[2] / "recipes"
PAPERS = sorted(path for path in FOLDER.glob("*.yaml") if not path.name.startswith("fewest_bytes"))
SAMPLES = 24
MASKING = ("repeat", "prune/weights", "finetune", "rewind")
MASKED = [path for path in PAPERS if "prune/weights" in path.read_text(encoding="utf8")]


def small_lenet_300_100():
    network = LeNet300100()
    network.fc1, network.fc2, network.fc3 = nn.Linear(784, 16), nn.Linear(16, 12), nn.Linear(12, 10)
    return network


def small_lenet_5():
    network = LeNet5()
    network.conv1, network.conv2 = nn.Conv2d(1, 4, 5), nn.Conv2d(4, 6, 5)
    network.fc1, network.fc2 = nn.Linear(96, 20), nn.Linear(20, 10)
    return network


STAND_INS = {
    "lenet_300_100": (small_lenet_300_100, (1, 28, 28)),
    "lenet_5": (small_lenet_5, (1, 28, 28)),
    "resnet_20": (lambda: CifarResNet(1, width=4), (3, 32, 32)),
    "resnet_56": (lambda: CifarResNet(1, width=4), (3, 32, 32)),
    "vgg_16_cifar": (lambda: CifarVgg(width=0.06), (3, 32, 32)),
    "espnet": (lambda: espnet(p=1, q=1), (3, 32, 48)),
    "msdnet": (lambda: msdnet(exits=3, even=True, width=2, growth=2, head=4), (3, 32, 32)),
    "bench.experts:network": (
        lambda: nn.Sequential(nn.Linear(12, 12), nn.Sequential(nn.Linear(12, 16), nn.GELU(), nn.Linear(16, 10))), (12,)
    ),
}  # fmt: skip
SENTENCES = Words(
    cifar10.NAMES,
    torch.nn.functional.normalize(torch.randn(10, 2, 12, generator=torch.Generator().manual_seed(5)), dim=2),
)
DEEPER = {"Spatially adaptive computation time, ResNet-56": lambda: CifarResNet(2, width=4)}
"""Recipes that need stages of two blocks."""
TERMS = {
    "attention_transfer_resnet_20": {"task", "attention"},
    "informative_neurons_resnet_20": {"task", "neurons"},
    "model_compression_lenet_300_100": {"logits"},
    "codistillation_lenet_5": {"task"},
    "msdnet": {"exit 1", "exit 2", "exit 3"},
    "msdnet_distilled": {"exit 1", "exit 2", "exit 3"},
    "ternary_gradients_lenet_5": {"task"},
    "structured_espnet": {"task", "logits", "pairwise", "holistic", "holistic critic"},
    "channel_wise_espnet": {"task", "channelwise"},
    "mimic_espnet": {"task", "features"},
    "ponder_resnet_56": {"task", "logits", "ponder"},
    "experts_minilm": {"task"},
    "clip_student_resnet_20": {"logits", "features"},
}
"""What the last stage of a recipe learns from; in one step, peers exchange nothing yet."""


def tiny(recipe):
    torch.manual_seed(0)
    if recipe.task == "bccd":
        return tiny_detector.network().eval(), tiny_detector.task()
    if recipe.network == "cifar_resnet":
        data = Data(torch.randn(SAMPLES, 3, 32, 32), torch.arange(SAMPLES) % 10)
        words = {"outputs": SENTENCES, "loss": SENTENCES.loss, "metric": SENTENCES.accuracy()}
        return CifarResNet(1, classes=12, width=4).eval(), Task(data, data, data, batch=8, trial=True, **words)
    make, shape = STAND_INS[recipe.network]
    make = DEEPER.get(recipe.name, make)
    classes = torch.arange(SAMPLES) % 10
    maps = recipe.network == "espnet"
    data = Data(torch.randn(SAMPLES, *shape), torch.randint(0, 11, (SAMPLES, *shape[1:])) if maps else classes)
    metric = {"metric": mean_iou(11), "loss": camvid_loss} if maps else {}
    return make().eval(), Task(
        data, data, data, calibration=data, batch=8, trial=True, unlabelled=data.inputs, **metric
    )


def shortened(data):
    """The same stages with trainings of a third of an epoch: one step."""
    if isinstance(data, list):
        return [shortened(part) for part in data]
    if not isinstance(data, dict):
        return data
    short = {key: shortened(value) for key, value in data.items()}
    return short | {name: 0.34 for name in ("epochs", "hint_epochs") if name in short}


def last_prunings(stages):
    """(where, keep) of each prune/weights in the last round it runs."""
    found = {}
    for stage in stages:
        for name, knobs in stage.items() if isinstance(stage, dict) else ():
            if name == "repeat":
                found |= last_prunings(knobs["do"])
            elif name == "prune/weights":
                keep = knobs["keep"]
                found[knobs.get("where", "*"), knobs.get("across", False)] = (
                    keep[-1] if isinstance(keep, list) else keep
                )
    return found


@cache
def result(name):
    """The network that a recipe leaves, the original, its task and report: one run for all tests."""
    data = yaml.safe_load((FOLDER / f"{name}.yaml").read_text(encoding="utf8"))
    original, task = tiny(read_recipe(copy.deepcopy(data)))
    for stage in data["stages"]:
        if "factorize/cp" in stage:
            stage["factorize/cp"] |= {"starts": 1, "sweeps": 3, "rounds": 1}
    network, report = compress(original, task, shortened(data))
    return network, original, task, report


def only_masked(data):
    """The network after the stages that make and keep masks."""
    stages = [stage for stage in data["stages"] if isinstance(stage, dict) and next(iter(stage)) in MASKING]
    return compress(*tiny(read_recipe(copy.deepcopy(data))), {**data, "stages": stages})[0]


@pytest.mark.parametrize("path", PAPERS, ids=lambda path: path.stem)
def test_recipe_says_what_it_is(path):
    recipe = read_recipe(path)
    assert recipe.name and recipe.paper and recipe.notes
    assert set(recipe.figures) <= {"paper", "ours"}
    if ":" not in recipe.network:
        with torch.device("meta"):
            assert isinstance(by_name(recipe.network), nn.Module)


@pytest.mark.parametrize("name", TERMS)
def test_recipe_learns_from_what_it_says(name):
    text = (FOLDER / f"{name}.yaml").read_text(encoding="utf8")
    data = shortened(yaml.safe_load(text.replace("cortado.nets.resnet:trained_resnet_56", f"{__name__}:wider")))
    original, task = tiny(read_recipe(copy.deepcopy(data)))
    _, report = compress(original, task, data)
    assert set(report.stages[-1].curves) == TERMS[name]


@pytest.mark.parametrize("path", MASKED, ids=lambda path: path.stem)
def test_recipe_keeps_the_shares_it_names(path):
    data = shortened(yaml.safe_load(path.read_text(encoding="utf8")))
    network = only_masked(data) if {"release", "prune/units"} & {*map(str, data["stages"])} else result(path.stem)[0]
    weights = {weight.path: weight for weight in parameter_places(network)}
    for (where, across), keep in last_prunings(data["stages"]).items():
        chosen = [weights[name] for name in choose(where, {n: len(w.shape) for n, w in weights.items()})]
        groups = [chosen] if across else [[weight] for weight in chosen]
        for group in groups:
            entries = sum(weight.shape.numel() for weight in group)
            assert sum(int(weight.form.mask.sum()) for weight in group) == round(keep * entries), where


@pytest.mark.parametrize("path", [p for p in PAPERS if "deep_compression" in p.name], ids=lambda path: path.stem)
def test_deep_compression_ends_with_masks_and_shared_values(path):
    data = yaml.safe_load(path.read_text(encoding="utf8"))
    network, _, _, report = result(path.stem)
    knobs = next(stage["share/kmeans"] for stage in data["stages"] if "share/kmeans" in stage)
    most = 2 ** max(knobs["bits"], knobs.get("conv_bits", 0))
    masked = 0
    for weight in parameter_places(network):
        if len(weight.shape) > 1:
            masked += isinstance(weight.form, Masked)
            inner = weight.form.kept if isinstance(weight.form, Masked) else weight.form
            assert isinstance(inner, Codebook) and len(inner.codebook) <= most
    assert masked
    assert report.size_bytes < report.original_bytes / 3


def test_dense_sparse_dense_ends_dense():
    report = result("dense_sparse_dense")[3]
    assert report.stages[0].nonzero == pytest.approx(0.5, abs=0.01)
    assert report.stages[-1].nonzero > 0.9


def test_control_differs_from_the_ticket_in_its_values_alone():
    ticket, control = (result(name)[0] for name in ("lottery_ticket", "lottery_control"))
    for mine, other in zip(parameter_places(ticket), parameter_places(control), strict=True):
        if len(mine.shape) > 1:
            assert torch.equal(mine.form.mask, other.form.mask)
            assert not torch.equal(mine.dense(), other.dense())


def wider():
    """A teacher for the stand-in of ResNet-20."""
    torch.manual_seed(1)
    return CifarResNet(1, width=6).eval()


def test_fitnets_learn_a_layer_of_a_wider_teacher_and_then_its_outputs():
    data = shortened(yaml.safe_load((FOLDER / "fitnets_resnet_20.yaml").read_text(encoding="utf8")))
    data["stages"][-1]["distill/hints"]["teacher"] = f"{__name__}:wider"
    original, task = tiny(read_recipe(copy.deepcopy(data)))
    _, report = compress(original, task, data)
    assert "guided layer layer2, hint layer layer2 of the teacher" in report.stages[-1].notes
    assert list(report.stages[-1].curves) == ["features", "task", "logits"]


def test_student_of_resnet_56_is_the_small_network_in_8_bits():
    network, _, _, report = result("student_of_resnet_56")
    assert report.stages[0].parameters == 75_290 and len(network.layer3) == 1
    assert set(report.stages[1].curves) == {"task", "logits"}
    assert {weight.form.code_bits() for weight in parameter_places(network) if len(weight.shape) > 1} == {8}


def test_pictures_and_words_end_pruned_in_six_bits_and_learn_from_sentences():
    network, _, _, report = result("clip_resnet_20")
    assert set(report.stages[0].curves) == set(report.stages[2].curves) == {"captions", "temperature"}
    pruned = [weight.form for weight in parameter_places(network) if len(weight.shape) > 1]
    assert all(isinstance(form, Masked) and form.code_bits() == 6 for form in pruned)


def test_a_detector_is_taught_classes_and_boxes_and_ends_in_integers():
    network, original, _, report = result("int8_ssdlite")
    assert set(report.stages[1].curves) == {"task", "logits"}
    assert sum(map(torch.numel, network.parameters())) < sum(map(torch.numel, original.parameters()))
    assert {weight.form.code_bits() for weight in parameter_places(network) if len(weight.shape) > 1} == {7}
