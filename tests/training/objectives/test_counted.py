"""What counts: nothing that a network gives for void pixels or for padding is learned from."""

from functools import partial

import pytest
import torch
from torch import nn
from torch.nn import functional

from cortado.task.ignored import ignored_label
from cortado.task.outputs.classes import Classes
from cortado.task.outputs.tokens import Tokens
from cortado.tasks import camvid
from cortado.training.objectives.attention import Attention
from cortado.training.objectives.channelwise import Channelwise
from cortado.training.objectives.contrastive import Contrastive
from cortado.training.objectives.counted import mean_over
from cortado.training.objectives.decoupled import Decoupled
from cortado.training.objectives.dist import Dist
from cortado.training.objectives.features import Features
from cortado.training.objectives.holistic import Holistic
from cortado.training.objectives.logits import Logits
from cortado.training.objectives.pairwise import Pairwise
from cortado.training.objectives.relational import Relational
from cortado.training.objectives.relations import Relations
from tests.training.objectives.given import given_step, random_numbers, total, with_modules

ON_OUTPUTS = (
    Logits(), Logits(direction="reverse"), Logits(standardised=True), Decoupled(), Dist(), Channelwise(), Relational(),
    Holistic(), Contrastive(),
)  # fmt: skip
ON_MAPS = (
    Features(at="a"), Features(at="a", regressor="always"), Attention(at="a"), Channelwise(at="a"), Pairwise(at="a", cells=4),
    Relational(at="a"), Contrastive(at="a"),
)  # fmt: skip
ON_TOKENS = (
    Features(at="a"), Attention(at="a"), Channelwise(at="a"), Relational(at="a"), Contrastive(at="a"),
    Relations(at="a, a, a", heads=2), Relations(at="a, a, a", heads=2, products="own", causal=True),
)  # fmt: skip


def labels_with_void(void: int) -> torch.Tensor:
    labels = torch.arange(3 * 4 * 6).reshape(3, 4, 6) % 5
    labels[:, :2, :3] = void
    return labels


def check_forgets(objective, step, tensor, where):
    """Neither value nor gradient depends on `tensor` at the places of `where` (N, ...), and both do elsewhere."""
    axis = 1 if tensor.dim() == 4 else -1
    step = with_modules(objective, step)
    value = total(objective, step)
    (gradient,) = torch.autograd.grad(value, tensor)
    by_place = gradient.abs().sum(axis)
    assert float(by_place[where].abs().max()) < 1e-12 and float(by_place[~where].max()) > 1e-9
    with torch.no_grad():
        tensor += 3 * random_numbers(*tensor.shape, seed=7) * where.unsqueeze(axis)
    torch.testing.assert_close(total(objective, step), value, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("objective", ON_OUTPUTS, ids=str)
@pytest.mark.parametrize(("void", "ignored"), [(255, -100), (-100, -100), (4, 4), (-1, -1)])
def test_void_pixels_of_outputs_do_not_count(objective, void, ignored):
    outputs, labels = random_numbers(3, 5, 4, 6).requires_grad_(), labels_with_void(void)
    step = given_step(
        outputs, random_numbers(3, 5, 4, 6, seed=1), targets=labels, ignored=ignored, inputs=random_numbers(3, 3, 8, 12)
    )
    check_forgets(objective, step, outputs, (labels == void) if void == 4 else (labels < 0) | (labels > 4))


@pytest.mark.parametrize("objective", ON_MAPS, ids=str)
@pytest.mark.parametrize("smaller", [1, 2])
def test_void_pixels_of_maps_do_not_count(objective, smaller):
    labels = labels_with_void(255)
    where = (labels == 255).repeat_interleave(smaller, 1).repeat_interleave(smaller, 2)
    labels = torch.where(where, 255, 1)
    taps = {"a": random_numbers(3, 6, 4, 6).requires_grad_()}
    step = given_step(
        random_numbers(3, 5, 8, 8), taps=taps, taught_taps={"a": random_numbers(3, 6, 4, 6, seed=1)}, targets=labels
    )
    check_forgets(objective, step, taps["a"], where[:, ::smaller, ::smaller])


@pytest.mark.parametrize("objective", ON_TOKENS, ids=str)
def test_padding_does_not_count(objective):
    mask = torch.tensor([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1], [1, 1, 0, 0, 0]])
    taps, taught = {"a": random_numbers(3, 5, 4).requires_grad_()}, {"a": random_numbers(3, 5, 4, seed=1)}
    step = given_step(taps=taps, taught_taps=taught, inputs={"input_ids": None, "attention_mask": mask})
    check_forgets(objective, step, taps["a"], mask == 0)


@pytest.mark.parametrize("objective", [Logits(), Logits(direction="jensen"), Dist()], ids=str)
def test_padding_of_outputs_does_not_count(objective):
    mask = torch.tensor([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1], [1, 1, 0, 0, 0]])
    outputs = random_numbers(3, 5, 4).float().requires_grad_()
    taught = random_numbers(3, 5, 4, seed=1).float()
    step = given_step(outputs, taught, inputs={"attention_mask": mask}, kind=Tokens())
    (gradient,) = torch.autograd.grad(total(objective, step), outputs)
    assert not bool(gradient[mask == 0].any()) and bool(gradient[mask == 1].any())
    kept = given_step(outputs[mask == 1][None], taught[mask == 1][None], kind=Tokens())
    torch.testing.assert_close(total(objective, step), total(objective, kept))


@pytest.mark.parametrize("kind", [None, Classes()], ids=str)
def test_mean_over_what_counts_is_that_of_the_pixels_alone(kind):
    outputs, taught, labels = random_numbers(3, 5, 4, 6), random_numbers(3, 5, 4, 6, seed=1), labels_with_void(255)
    rows = [one.movedim(1, -1)[labels < 5] for one in (outputs, taught)]
    found = total(Logits(), given_step(outputs, taught, targets=labels, kind=kind))
    torch.testing.assert_close(found.double(), total(Logits(), given_step(*rows)), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("objective", [*ON_OUTPUTS, *ON_MAPS], ids=str)
def test_picture_of_nothing_but_void_gives_zero_or_at_least_numbers(objective):
    outputs, labels = random_numbers(2, 5, 4, 6).requires_grad_(), torch.full((2, 4, 6), 255)
    step = given_step(
        outputs, random_numbers(2, 5, 4, 6, seed=1), taps={"a": outputs}, taught_taps={"a": random_numbers(2, 5, 4, 6, seed=2)},
        targets=labels, inputs=random_numbers(2, 3, 4, 6),
    )  # fmt: skip
    value = total(objective, with_modules(objective, step))
    (gradient,) = torch.autograd.grad(value, outputs)
    assert bool(torch.isfinite(value)) and bool(torch.isfinite(gradient).all())


def test_ignored_label_is_the_losses():
    assert ignored_label(nn.CrossEntropyLoss(ignore_index=7)) == 7
    assert ignored_label(partial(functional.cross_entropy, ignore_index=255)) == 255
    assert ignored_label(camvid.loss) == camvid.CLASSES
    assert ignored_label(functional.cross_entropy) == ignored_label(lambda outputs, targets: outputs.sum()) == -100


def test_mean_over_nothing_is_zero():
    assert mean_over(torch.tensor([torch.nan, 2.0]), torch.tensor([False, True])) == 2
    assert mean_over(torch.ones(2), torch.zeros(2, dtype=torch.bool)) == 0


SHAPES = {"samples": (6, 5), "maps": (6, 5, 4, 6), "tokens": (6, 7, 5)}
ON_LAYERS = {
    Features(at="a"): SHAPES, Attention(at="a"): ("maps", "tokens"), Relational(at="a"): SHAPES,
    Channelwise(at="a"): ("maps", "tokens"), Pairwise(at="a", cells=3): ("maps",),
    Relations(at="a, a, a", heads=5): ("tokens",), Relations(at="a, a, a", heads=1, products="own"): ("tokens",),
}  # fmt: skip


@pytest.mark.parametrize(
    ("objective", "shape"), [(one, shape) for one, shapes in ON_LAYERS.items() for shape in shapes], ids=str
)
def test_layer_that_equals_the_teachers_has_nothing_to_learn(objective, shape):
    for seed in (0, 1):
        mine, wanted = random_numbers(*SHAPES[shape]).requires_grad_(), random_numbers(*SHAPES[shape], seed=seed)
        value = total(objective, given_step(taps={"a": mine}, taught_taps={"a": wanted}))
        (gradient,) = torch.autograd.grad(value, mine)
        if seed:
            assert value > 1e-3 and gradient.norm() > 1e-6
        else:
            assert abs(value.item()) < 1e-12 and gradient.norm() < 1e-9
