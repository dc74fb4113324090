"""Move: pictures, masks and maps of any size go the same way."""

import contextlib
from functools import partial

import pytest
import torch

from cortado.errors import BadTask
from cortado.task.ignored import ignored_label
from cortado.task.move import Move
from cortado.task.task import Data, Task


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def test_mirrored_masks_are_mirrored_exactly_and_numbers_stay():
    pictures, masks, numbers = torch.randn(32, 3, 6, 8), torch.randint(0, 11, (32, 12, 16)), torch.arange(32)
    move = Move(void=11)
    moved, targets = move(pictures, {"mask": masks, "number": numbers}, seeded())
    mirrored = move.drawn(32, seeded())[:, 0, 0] < 0
    assert 5 < int(mirrored.sum()) < 27
    torch.testing.assert_close(moved, torch.where(mirrored[:, None, None, None], pictures.flip(-1), pictures))
    assert torch.equal(targets["mask"], torch.where(mirrored[:, None, None], masks.flip(-1), masks))
    assert torch.equal(targets["number"], numbers)


def test_halved_picture_lies_on_void():
    """At zoom 1/2 a quarter of the place is the picture: each of its 2 x 2 blocks gives one pixel."""
    masks = torch.arange(8 * 8).view(1, 8, 8).expand(16, 8, 8).contiguous()
    _, moved = Move(mirror=False, zoom=(0.5, 0.5), void=-100)(torch.ones(16, 1, 8, 8), masks, seeded())
    inside = (moved != -100).flatten(1).sum(1)
    assert bool((inside <= 16).all()) and bool((inside >= 12).all())


def test_maps_of_another_size_follow_the_picture():
    """Each half as large as the picture, an averaged map moves as the average of the moved picture does, to rounding."""
    across = torch.linspace(0, 6.0, 64)
    smooth = torch.stack([(across[:, None] * k / 4 + across[None, :]).cos() for k in range(8)])[:, None]
    move = Move(zoom=(0.8, 1.5), shift=0.05)
    maps = move.drawn(8, seeded())
    elsewhere = move.moved(torch.nn.functional.avg_pool2d(smooth, 2), move.drawn(8, seeded(1)))
    pooled = torch.nn.functional.avg_pool2d(move.moved(smooth, maps), 2)
    other = move.moved(torch.nn.functional.avg_pool2d(smooth, 2), maps)
    inner = (slice(None), slice(None), slice(4, -4), slice(4, -4))
    assert float((pooled - other)[inner].abs().max()) < 0.1 < float((pooled - elsewhere)[inner].abs().mean())


def test_magnified_pictures_are_cut_from_inside():
    _, moved = Move(zoom=(1.2, 3.0), void=-1)(torch.ones(64, 1, 8, 8), torch.ones(64, 8, 8).long(), seeded())
    assert bool((moved == 1).all())


CROSS_ENTROPY = torch.nn.functional.cross_entropy


@pytest.mark.parametrize(
    ("void", "loss", "says"),
    [
        (
            -100,
            torch.nn.CrossEntropyLoss(ignore_index=255),
            "void=-100, and the loss ignores the label 255.* Write Move\\(void=255",
        ),
        (255, CROSS_ENTROPY, "void=255, and the loss ignores the label -100.* the loss ignore_index=255"),
        (-100, partial(CROSS_ENTROPY, ignore_index=3), "void=-100, and the loss ignores the label 3"),
        (-100, CROSS_ENTROPY, None),
        (255, partial(CROSS_ENTROPY, ignore_index=255), None),
        (0, partial(CROSS_ENTROPY, ignore_index=255), None),
        (-7, lambda outputs, targets: outputs.sum(), None),
    ],
    ids=["default", "no default", "partial", "both default", "both set", "a class", "own loss"],
)
def test_void_that_the_loss_would_read_is_refused_with_both_labels(void, loss, says):
    pictures, masks = torch.zeros(4, 1, 4, 4), torch.tensor([0, 1, 2, 255]).view(4, 1, 1).expand(4, 4, 4).clone()
    masks[masks == 255] = ignored_label(loss)
    task = partial(Task, validation=(pictures, masks), test=(pictures, masks), loss=loss)
    inside = Data(pictures, masks, vary=Move(zoom=(1.0, 1.5), void=void))
    task(train=inside)
    moved = Data(pictures, masks, vary=Move(zoom=(0.5, 1.5), void=void))
    with pytest.raises(BadTask, match=says) if says else contextlib.nullcontext():
        task(train=moved)
    task(train=Data(pictures, torch.zeros(4), vary=moved.vary))


def test_large_labels_stay_exact():
    labels = torch.full((2, 4, 4), 2**30 + 1)
    assert torch.equal(Move()(torch.zeros(2, 1, 4, 4), labels, seeded())[1], labels)


@pytest.mark.parametrize(
    "knobs",
    [
        {"zoom": (0.0, 1.0)}, {"zoom": (2.0, 1.0)}, {"zoom": (1.0, float("inf"))}, {"zoom": 2}, {"zoom": ("a", 1)},
        {"shift": -0.1}, {"shift": 5.0}, {"shift": float("nan")}, {"void": None},
    ],
)  # fmt: skip
def test_ranges_that_are_none_are_refused(knobs):
    with pytest.raises(BadTask, match=r"a Move needs 0.05 <= zoom\[0\] <= zoom\[1\] .* got zoom=.* Write Move\("):
        Move(**knobs)
