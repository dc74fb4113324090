"""transfer: what is made of a network's filters, what stays exact, what is refused, and what composes with it."""

import copy
from itertools import permutations

import pytest
import torch
from torch import nn

import cortado
from cortado.engine.recipe import read_recipe
from cortado.errors import NothingChanged
from cortado.lowering.lower import lowered
from cortado.methods.transfer.matching import best_assignment, best_copies, fitted_base
from cortado.network.profile.profile import profile
from cortado.network.view import View
from cortado.parts.blocks.orientation_max import OrientationMax
from cortado.parts.blocks.shared_norm import SharedNorm
from cortado.parts.forms.attach import form_of
from cortado.parts.forms.dense import Dense
from cortado.parts.forms.transferred import Transferred
from cortado.parts.forms.transforms import NEGATE, REPEAT, ROLL, ROTATE, TRANSLATE
from cortado.running.eval_mode import eval_mode
from cortado.runtimes.placements import placements
from cortado.runtimes.runtime import Running, runtime_by_name
from cortado.task.task import Data, Task
from cortado.training.loop import Training, train

SIZE = 9


class Small(nn.Module):
    """Two convolutions with norms, a depthwise one, a residual sum, and a linear layer on the means: (N, 3, 9, 9) to (N, 4)."""

    def __init__(self, width=8):
        super().__init__()
        self.stem, self.stem_norm = nn.Conv2d(3, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)
        self.deep, self.deep_norm = nn.Conv2d(width, width, 3, padding=1, groups=width), nn.BatchNorm2d(width)
        self.wide, self.wide_norm = nn.Conv2d(width, 2 * width, 1, bias=False), nn.BatchNorm2d(2 * width)
        self.back = nn.Conv2d(2 * width, width, 3, padding=1)
        self.head = nn.Linear(width, 4)

    def forward(self, images):
        first = torch.relu(self.stem_norm(self.stem(images)))
        inner = torch.relu(self.deep_norm(self.deep(first)))
        inner = torch.relu(self.wide_norm(self.wide(inner)))
        return self.head(torch.relu(first + self.back(inner)).mean((2, 3)))


def network(width=8):
    torch.manual_seed(0)
    made = Small(width)
    for norm in (made.stem_norm, made.deep_norm, made.wide_norm):
        with torch.no_grad():
            norm.weight.uniform_(0.5, 2)
            norm.bias.normal_()
            norm.running_mean.normal_()
            norm.running_var.uniform_(0.5, 2)
    return made.eval()


def task():
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(128, 3, SIZE, SIZE, generator=generator)
    labels = images.mean((1, 2, 3)).mul(9).long().clamp(-1, 2) + 1
    parts = [Data(images[start:end], labels[start:end]) for start, end in ((0, 64), (64, 96), (96, 128))]
    return Task(*parts, batch=16)


def after(recipe, made=None):
    made = network() if made is None else made
    view = View(copy.deepcopy(made), made, task().example)
    read_recipe(recipe).stages[0].apply(view, task())
    return view


def outputs(made, images):
    with torch.no_grad(), eval_mode(made):
        return made(images)


def quarter(images):
    return torch.rot90(images, 1, (2, 3))


@pytest.mark.parametrize("invariant", ["max", "mean"])
@pytest.mark.parametrize("start", ["fit", "fresh"])
def test_outputs_do_not_change_when_the_picture_turns(start, invariant):
    view = after(f"transfer/rotate start={start} invariant={invariant}")
    images = task().train.inputs
    straight = outputs(view.network, images)
    torch.testing.assert_close(outputs(view.network, quarter(images)), straight, rtol=1e-4, atol=1e-5)
    assert (outputs(network(), quarter(images)) - outputs(network(), images)).abs().max() > 0.01
    kinds = [form_of(layer, "weight").transform for layer in (view.network.stem, view.network.deep, view.network.wide)]
    assert kinds == [ROTATE, ROTATE, ROLL] and isinstance(view.network.stem_norm, SharedNorm)
    assert isinstance(view.network.head, OrientationMax) == (invariant == "max")
    assert "outputs change by" in view.notes[-1]


def test_outputs_still_do_not_change_after_training_and_cuts():
    view = after("transfer/rotate start=fresh")
    train(view.network, task(), Training(epochs=2, lr=0.01))
    cut = View(view.network, view.network, task().example)
    groups = {group.name: group for group in cut.groups.free}
    assert {name: group.count for name, group in groups.items()} == {"stem": 2, "wide": 4}
    cut.cut({groups["stem"]: torch.tensor([1]), groups["wide"]: torch.tensor([0, 3])})
    assert form_of(cut.network.wide, "weight").base.shape == (2, 4, 1, 1)
    images = task().train.inputs
    torch.testing.assert_close(
        outputs(cut.network, quarter(images)), outputs(cut.network, images), rtol=1e-4, atol=1e-5
    )


def test_layers_that_lose_places_are_noted_as_not_exact():
    view = after("transfer/rotate start=fresh", nn.Sequential(
        nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4)).eval())  # fmt: skip
    assert float(view.notes[-1].split("change by ")[1].split()[0]) < 1e-5
    even = Task(*(Data(torch.randn(8, 3, 8, 8), torch.zeros(8).long()) for _ in range(3)))
    view = View(copy.deepcopy(view.original), view.original, even.example)
    read_recipe("transfer/rotate start=fresh").stages[0].apply(view, even)
    assert float(view.notes[-1].split("change by ")[1].split()[0]) > 1e-3


@pytest.mark.parametrize(("name", "transform"), [("negate", NEGATE), ("repeat", REPEAT), ("translate", TRANSLATE)])
def test_filters_are_matched_and_the_network_computes_what_they_give(name, transform):
    view = after(f"transfer/{name}")
    made = [path for path, part in view.network.named_modules() if isinstance(part, Transferred)]
    wanted = ["stem", "back"] if name == "translate" else ["stem", "wide"]
    assert [path.partition(".")[0] for path in made] == wanted
    for path in wanted:
        form = form_of(view.network.get_submodule(path), "weight")
        assert form.transform == transform and form.entries() < form.shape.numel()
    low = lowered(view.network, task().example)
    torch.testing.assert_close(
        outputs(low, task().example), outputs(view.network, task().example), rtol=1e-4, atol=1e-4
    )


def test_filters_that_are_copies_already_are_found_exactly():
    """Norms and signs move into the batch norm behind, other layers follow the new order: outputs stay the same."""
    made = network()
    with torch.no_grad():
        half = torch.randn(8, 8, 1, 1)
        shuffled = torch.cat([half, -half * torch.rand(8, 1, 1, 1).add(0.5)])[torch.randperm(16)]
        made.wide.weight.copy_(shuffled)
    view = after("transfer/negate where=wide", made)
    images = task().train.inputs
    torch.testing.assert_close(outputs(view.network, images), outputs(made, images), rtol=1e-4, atol=1e-4)
    assert form_of(view.network.wide, "weight").factors() is not None
    costs = profile(view.network, task().example)
    assert costs.row("wide").parameters == 64 and costs.row("wide").multiply_adds == (64 + 16) * SIZE**2


def test_fresh_copies_of_repeated_filters_start_with_biases_apart():
    view = after("transfer/repeat start=fresh copies=4 spread=0.3 where=wide")
    moved = view.network.wide_norm.bias - network().wide_norm.bias
    torch.testing.assert_close(moved, torch.linspace(-0.3, 0.3, 4).repeat(4))
    torch.testing.assert_close(form_of(view.network.wide, "weight").base.values, network().wide.weight[::4])


def test_larger_filters_start_as_widely_spread_as_the_layer():
    base = form_of(after("transfer/translate start=fresh").network.back, "weight").base.values.detach()
    assert base.shape == (2, 16, 4, 4) and abs(float(base.std() / network().back.weight.detach().std()) - 1) < 0.1


@pytest.mark.parametrize("transform", [NEGATE, REPEAT, TRANSLATE])
def test_matching_beats_the_order_as_it_is(transform):
    torch.manual_seed(2)
    values, slots = torch.randn(16, 3, 3, 3), 4 if transform == TRANSLATE else 2
    codes, signs = best_copies(values, transform, slots, torch.Generator().manual_seed(0), False)

    def error(codes):
        base = fitted_base(values, transform, slots, codes, 16 // slots)
        form = Transferred(Dense(base), transform, slots, codes, torch.arange(3), (3, 3))
        return float((form.dense().detach() - values).square().sum())

    assert sorted(codes.tolist()) == list(range(16)) and bool((signs == 1).all())
    assert error(codes) < 0.95 * error(torch.arange(16))


def test_assignment_is_the_best_one():
    torch.manual_seed(0)
    likeness = torch.rand(5, 5)
    best = max(sum(float(likeness[i, p]) for i, p in enumerate(order)) for order in permutations(range(5)))
    found = best_assignment(likeness)
    assert sum(float(likeness[i, p]) for i, p in enumerate(found.tolist())) >= 0.97 * best
    assert sorted(found.tolist()) == list(range(5))


@pytest.mark.parametrize("recipe", [
    "transfer/rotate start=fresh | finetune epochs=1 | prune/channels keep=0.5 multiple=1 | quantize/weights bits=4",
    "transfer/rotate | prune/weights keep=0.5 | finetune epochs=1 | share/kmeans bits=3",
    "transfer/negate | finetune epochs=1 | prune/weights keep=0.4 | quantize/weights bits=8 | quantize/activations",
    "transfer/repeat copies=2 | finetune epochs=1 | prune/channels keep=0.5 multiple=1",
    "transfer/translate | share/kmeans bits=4 | finetune epochs=1",
])  # fmt: skip
def test_filters_stay_made_from_fewer_in_recipes_and_files(recipe, tmp_path):
    small, report = cortado.compress(network(), task(), recipe)
    made = {path for path, part in small.named_modules() if isinstance(part, Transferred)}
    assert made, report
    cortado.save(small, tmp_path / "net.cortado", original=network())
    again = cortado.load(tmp_path / "net.cortado", original=network).eval()
    assert torch.equal(outputs(again, task().example), outputs(small, task().example))
    if "rotate" in recipe:
        images = task().train.inputs
        torch.testing.assert_close(outputs(small, quarter(images)), outputs(small, images), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
@pytest.mark.parametrize("name", ["rotate", "negate"])
def test_integer_files_compute_the_same(name, runtime, tmp_path):
    small, _ = cortado.compress(network(), task(), f"transfer/{name} | quantize/weights bits=8 | quantize/activations")
    chosen, low = runtime_by_name(runtime), lowered(small, task().example)
    file = chosen.lower(low, task().example, tmp_path)
    images = task().train.inputs
    found = Running(chosen.load(file, 1))(images)
    torch.testing.assert_close(found, outputs(small, images), rtol=1e-4, atol=1e-5)
    assert {one.kernel for one in placements(chosen, file, small, task().example, low)} == {"int8"}


def test_pruned_copies_keep_the_share_that_was_asked():
    small, _ = cortado.compress(
        network(), task(), "transfer/rotate where='not head' | prune/weights keep=0.5 where=wide"
    )
    form = form_of(small.wide, "weight")
    assert form.nonzeros() == form.entries() / 2 and isinstance(form, Transferred)


@pytest.mark.parametrize(
    ("recipe", "says"),
    [
        ("transfer/negate where=back", "before a nonlinearity"),
        ("transfer/repeat where=deep", "before a nonlinearity"),
        ("transfer/translate where=wide", "kernel larger than 1 x 1"),
        ("transfer/rotate where=head", "square kernel"),
    ],
)
def test_what_is_missing_is_said(recipe, says):
    with pytest.raises(NothingChanged, match=says):
        cortado.compress(network(), task(), recipe)


def test_channels_that_are_no_multiple_of_four_stay_and_are_named():
    view = after("transfer/rotate start=fresh", network(6))
    assert form_of(view.network.wide, "weight").transform == ROTATE
    assert any("stem" in note and "no multiple of 4" in note for note in view.notes)
