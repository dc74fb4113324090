"""Losses of truths that are not exact: up to scale and shift, ordinal pairs, noisy labels."""

import pytest
import torch
from torch.nn import functional

from cortado.errors import BadTask
from cortado.task.aligned_loss import UpToScaleAndShift
from cortado.task.noisy_loss import NoisyLabels
from cortado.task.ordinal_loss import OrdinalPairs

GENERATOR = torch.Generator().manual_seed(0)
DEPTH = torch.rand(3, 9, 8, generator=GENERATOR, dtype=torch.float64).float()
OTHER = torch.rand(3, 9, 8, generator=GENERATOR)


def test_a_scale_and_a_shift_cost_nothing():
    loss = UpToScaleAndShift()
    scales, shifts = torch.tensor([0.1, 2.0, 30.0]).view(3, 1, 1), torch.tensor([-4.0, 0.0, 9.0]).view(3, 1, 1)
    assert float(loss(DEPTH, scales * DEPTH + shifts)) == pytest.approx(0, abs=1e-5)
    torch.testing.assert_close(loss(scales * OTHER + shifts, DEPTH), loss(OTHER, DEPTH), rtol=1e-4, atol=1e-6)
    assert float(loss(OTHER, DEPTH)) > 0.1 and float(loss(-DEPTH, DEPTH)) > 0.1


@pytest.mark.parametrize("trim", [0.0, 0.2])
def test_errors_are_those_of_the_paper_place_by_place(trim):
    found, wanted = OTHER.clone(), DEPTH.clone()
    wanted[0, :2] = torch.nan
    each = []
    for mine, true in zip(found, wanted, strict=True):
        known = true.isfinite()
        both = []
        for values in (mine[known], true[known]):
            middle = values.sort().values[(len(values) - 1) // 2]
            both.append((values - middle) / (values - middle).abs().mean())
        errors = (both[0] - both[1]).abs().sort().values
        count = len(errors)
        kept = errors[: int(-(-(1 - trim) * count // 1))]
        each.append(float(kept.sum()) / (2 * count))
    assert float(UpToScaleAndShift(trim, 0.0)(found, wanted)) == pytest.approx(sum(each) / 3, rel=1e-4)


def test_unknown_places_have_no_gradient_and_a_map_without_truth_adds_nothing():
    found, wanted = OTHER.clone().requires_grad_(), DEPTH.clone()
    wanted[0], wanted[1, 4:] = torch.nan, 0.0
    UpToScaleAndShift(trim=0.0, gradients=0.0, void=0.0)(found, wanted).backward()
    assert not bool(found.grad[0].any()) and not bool(found.grad[1, 4:].any()) and bool(found.grad[2].any())
    nothing = UpToScaleAndShift()(OTHER.clone().requires_grad_(), torch.full_like(DEPTH, torch.nan))
    assert float(nothing.detach()) == 0


def test_gradients_tell_edges_apart_where_values_agree():
    """Each scale adds the steepness of the error among every second, fourth and eighth place."""
    sharp = UpToScaleAndShift(0.0, 1.0)(OTHER, DEPTH) - UpToScaleAndShift(0.0, 0.0)(OTHER, DEPTH)
    total = 0.0
    for mine, true in zip(OTHER, DEPTH, strict=True):
        error = standard(mine) - standard(true)
        for step in (1, 2, 4, 8):
            some = error[::step, ::step]
            total += float(some.diff(dim=0).abs().sum() + some.diff(dim=1).abs().sum()) / some.numel()
    assert float(sharp) == pytest.approx(total / 3, rel=1e-4)


def standard(values):
    flat = values.flatten()
    middle = flat.sort().values[(len(flat) - 1) // 2]
    return (values - middle) / (flat - middle).abs().mean()


def test_ordinal_pairs_are_ranked():
    maps = torch.tensor([[[0.0, 1.0], [3.0, 1.0]]], requires_grad=True)
    pairs = torch.tensor([[[1, 0, 0, 0, 1], [0, 1, 1, 0, 1], [0, 1, 1, 1, 0], [0, 0, 0, 1, -1], [0, 0, 1, 1, 2]]])
    losses = [functional.softplus(torch.tensor(value)) for value in (-3.0, 2.0, -1.0)]
    found = OrdinalPairs()(maps, pairs)
    torch.testing.assert_close(found, (losses[0] + losses[1] + losses[2]) / 4)
    found.backward()
    assert float(maps.grad[0, 0, 1]) < 0 < float(maps.grad[0, 0, 0])
    torch.testing.assert_close(OrdinalPairs()(maps[:, None], pairs), found)
    assert float(OrdinalPairs()(maps, pairs[:, 4:]).detach()) == 0


def test_noisy_labels_are_fitted_by_what_one_would_see():
    logits, labels = torch.randn(2, 4, 3, 5, generator=GENERATOR), torch.randint(4, (2, 3, 5), generator=GENERATOR)
    labels[0, 0] = -100
    torch.testing.assert_close(NoisyLabels(0.0)(logits, labels), functional.cross_entropy(logits, labels))
    mix = torch.full((4, 4), 0.3 / 3) + torch.eye(4) * (0.7 - 0.1)
    seen = torch.einsum("nchw,dc->ndhw", logits.softmax(1), mix).log()
    torch.testing.assert_close(NoisyLabels(0.3)(logits, labels), functional.nll_loss(seen, labels))
    each = functional.nll_loss(seen, labels, reduction="none")[labels >= 0].sort().values
    torch.testing.assert_close(NoisyLabels(0.3, trim=0.4)(logits, labels), each[: round(0.6 * len(each))].mean())
    assert float(NoisyLabels()(logits, torch.full_like(labels, -100))) == 0


@pytest.mark.parametrize(
    ("loss", "given", "says"),
    [
        (UpToScaleAndShift(), (OTHER, DEPTH[:, :4]), "one number for each place"),
        (OrdinalPairs(), (OTHER, torch.zeros(3, 2, 4).long()), r"whole numbers \(N, pairs, 5\)"),
        (OrdinalPairs(), (OTHER, torch.tensor([[[9, 0, 0, 0, 1]]]).expand(3, 1, 5)), "outside of maps of 9 x 8"),
        (OrdinalPairs(), (OTHER, torch.tensor([[[0, 0, 0, 1, -3]]]).expand(3, 1, 5)), "must be 1, 0, -1"),
        (NoisyLabels(), (torch.randn(2, 3), torch.tensor([0, 3])), r"0..2, got 0..3.*ignored=3"),
    ],
)  # fmt: skip
def test_truths_that_do_not_fit_are_refused(loss, given, says):
    with pytest.raises(BadTask, match=says):
        loss(*given)


@pytest.mark.parametrize("make", [lambda: UpToScaleAndShift(trim=1.0), lambda: UpToScaleAndShift(gradients=-1.0),
                                  lambda: NoisyLabels(wrong=1.0), lambda: NoisyLabels(trim=-0.1)])  # fmt: skip
def test_shares_out_of_range_are_refused(make):
    with pytest.raises(BadTask, match="Write "):
        make()
