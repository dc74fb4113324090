"""Metrics: each against an independent computation, and intervals against the mathematics."""

import math
from itertools import pairwise

import pytest
import torch
from scipy import stats
from torch import Tensor, nn

from cortado.errors import BadTask, BadValue
from cortado.report.report import paired_interval
from cortado.task.average_precision import (
    COCO_OVERLAPS,
    ONE_OVERLAP,
    average_precision,
    mean_average_precision,
    precision_without,
)
from cortado.task.data import Data
from cortado.task.measure import mean_score, scores
from cortado.task.metric import MOST_GROUPS, Metric
from cortado.task.perplexity import perplexity
from cortado.task.spearman import spearman
from cortado.task.word_errors import word_error_rate, word_errors


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def values(outputs: Tensor, targets: Tensor) -> Tensor:
    """Rows that are the outputs themselves."""
    return outputs[:, None] if outputs.dim() == 1 else outputs


MEAN = Metric("mean", "", values, scale=1.0, value=lambda rows: float(rows.mean()))
MEDIAN = Metric("median", "", values, scale=1.0, value=lambda rows: float(rows.median()), interval="bootstrap")


def error_of(shares: Tensor) -> float:
    """Standard error of the mean of the numbers of all samples."""
    return float(shares.double().std()) / math.sqrt(len(shares))


@pytest.mark.parametrize("count", [40, MOST_GROUPS, 5 * MOST_GROUPS])
def test_jackknife_of_a_mean_has_the_standard_error_of_the_mean(count):
    rows = torch.randn(count, 1, generator=seeded(), dtype=torch.float64)
    found = MEAN.shares(rows)
    assert float(found.mean()) == pytest.approx(float(rows.mean()))
    if count <= MOST_GROUPS:
        torch.testing.assert_close(found, rows[:, 0])
    assert error_of(found) == pytest.approx(error_of(rows[:, 0]), rel=0.0 if count <= MOST_GROUPS else 0.15, abs=1e-12)


@pytest.mark.parametrize("count", [200, 1000])
def test_bootstrap_of_a_median_has_the_standard_error_of_the_median(count):
    """Of normal samples: sqrt(pi / 2) times that of the mean."""
    rows = torch.randn(count, 1, generator=seeded(1), dtype=torch.float64)
    found = MEDIAN.shares(rows)
    assert len(found) == count and float(found.mean()) == pytest.approx(float(rows.median()))
    assert error_of(found) == pytest.approx(math.sqrt(math.pi / 2 / count), rel=0.25)


def boxes_of(generator: torch.Generator, count: int) -> Tensor:
    corner = torch.rand(count, 2, generator=generator) * 6
    return torch.cat([corner, corner + 1 + 3 * torch.rand(count, 2, generator=generator)], 1)


def pictures(seed: int, count: int = 40, classes: int = 3) -> tuple[list, list]:
    """Detections that are true boxes, moved, with others added and some left out; and the true boxes."""
    generator, found, truth = seeded(seed), [], []
    for _ in range(count):
        true = int(torch.randint(0, 5, (), generator=generator))
        boxes, labels = boxes_of(generator, true), torch.randint(0, classes, (true,), generator=generator)
        kept = torch.rand(true, generator=generator) < 0.8
        moved = boxes[kept] + 0.3 * torch.randn(int(kept.sum()), 4, generator=generator)
        added = boxes_of(generator, 2)
        found.append({
            "boxes": torch.cat([moved, added]), "labels": torch.cat([labels[kept], torch.tensor([0, 1])]),
            "scores": torch.rand(len(moved) + 2, generator=generator),
        })  # fmt: skip
        truth.append({"boxes": boxes, "labels": labels})
    return found, truth


def slow_precision(found: list, truth: list, label: int, least: float) -> float | None:
    """Average precision of one class as in its definition, one detection at a time and one recall at a time."""

    def iou(a: list, b: list) -> float:
        wide, high = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
        common = max(wide, 0) * max(high, 0)
        area = [max(c[2] - c[0], 0) * max(c[3] - c[1], 0) for c in (a, b)]
        return common / (area[0] + area[1] - common) if common else 0.0

    true = [[b.tolist() for b, k in zip(one["boxes"], one["labels"], strict=True) if k == label] for one in truth]
    total = sum(map(len, true))
    if not total:
        return None
    all_found = [
        (float(score), picture, box.tolist())
        for picture, one in enumerate(found)
        for box, score, k in zip(one["boxes"], one["scores"], one["labels"], strict=True)
        if k == label
    ]
    used, points, right = [set() for _ in true], [], 0
    for number, (_, picture, box) in enumerate(sorted(all_found, key=lambda one: -one[0]), 1):
        free = [(iou(box, other), place) for place, other in enumerate(true[picture]) if place not in used[picture]]
        best = max(free, default=(0.0, -1))
        if best[0] >= least and best[1] >= 0:
            used[picture].add(best[1])
            right += 1
        points.append((right / total, right / number))
    read = [max((p for r, p in points if r >= recall / 100 - 1e-12), default=0.0) for recall in range(101)]
    return sum(read) / 101


@pytest.mark.parametrize("overlaps", [ONE_OVERLAP, COCO_OVERLAPS])
def test_average_precision_is_that_of_its_definition(overlaps):
    found, truth = pictures(0)
    metric = mean_average_precision(3, overlaps=overlaps)
    wanted = [slow_precision(found, truth, label, least) for label in range(3) for least in overlaps]
    assert metric.score(metric.rows(found, truth)) == pytest.approx(100 * sum(wanted) / len(wanted), abs=1e-9)


def test_average_precision_of_true_boxes_is_100_and_of_none_0():
    _, truth = pictures(1)
    metric = mean_average_precision(5)
    same = [{**one, "scores": torch.ones(len(one["labels"]))} for one in truth]
    assert metric.score(metric.rows(same, truth)) == pytest.approx(100)
    nothing = [{"boxes": torch.zeros(0, 4), "labels": torch.zeros(0), "scores": torch.zeros(0)} for _ in truth]
    assert metric.score(metric.rows(nothing, truth)) == 0


def test_average_precision_leaves_out_one_picture_at_a_time():
    found, truth = pictures(2)
    metric = mean_average_precision(3)
    rows = metric.rows(found, truth)
    whole = metric.value(rows)
    without = [metric.value(rows[:at] + rows[at + 1 :]) for at in range(len(rows))]
    pseudo = [len(rows) * whole - (len(rows) - 1) * one for one in without]
    shares = metric.shares(rows)
    assert error_of(shares) == pytest.approx(error_of(torch.tensor(pseudo)), rel=1e-6)
    same = paired_interval(shares, metric.shares(metric.rows(*pictures(2))), 100.0)
    assert (same.difference, same.low, same.high) == (0, 0, 0)


@pytest.mark.parametrize("seed", range(4))
def test_average_precision_leaves_out_groups_of_pictures(seed):
    """Also where a class occurs in one group alone."""
    found, truth = pictures(seed, count=14)
    for number, one in enumerate(truth):
        one["labels"] = torch.where(one["labels"] == 2, 2 if number % 5 == 3 else 1, one["labels"])
    rows, group = mean_average_precision(3).rows(found, truth), torch.arange(14) % 5
    wanted = [average_precision([rows[at] for at in (group != number).nonzero().flatten()]) for number in range(5)]
    assert precision_without(rows, group, 5).tolist() == pytest.approx(wanted, abs=1e-12)
    assert precision_without(rows[:1], torch.zeros(1, dtype=torch.long), 1).tolist() == [0]


def test_padded_boxes_are_targets_like_dicts():
    found, truth = pictures(5, count=9)
    targets = torch.full((9, 6, 5), -1.0)
    for rows, one in zip(targets, truth, strict=True):
        rows[: len(one["labels"])] = torch.cat([one["boxes"], one["labels"][:, None]], 1)
    metric = mean_average_precision(3)
    assert metric.score(metric.rows(found, targets)) == metric.score(metric.rows(found, truth))


@pytest.mark.parametrize(
    ("found", "truth", "words"),
    [
        (torch.zeros(2, 4), [{}, {}], "a list of detections and a list of targets"),
        ([pictures(0)[0][0]], pictures(0)[1][:2], "got 1 and 2"),
        (
            [{"boxes": torch.zeros(1, 4), "scores": torch.ones(1), "labels": torch.tensor([7])}],
            pictures(0)[1][:1],
            r"0\.\.2",
        ),
    ],
)
def test_outputs_that_are_no_detections_are_refused(found, truth, words):
    with pytest.raises(BadTask, match=words):
        mean_average_precision(3).rows(found, truth)


def test_spearman_is_that_of_scipy_with_ties():
    generator = seeded(4)
    outputs, targets = (torch.randint(0, 9, (60,), generator=generator).float() for _ in range(2))
    metric = spearman()
    assert metric.score(metric.rows(outputs, targets)) == pytest.approx(
        100 * stats.spearmanr(outputs, targets).statistic
    )
    assert metric.score(metric.rows(torch.ones(60), targets)) == 0


@pytest.mark.parametrize(
    ("found", "wanted", "errors"),
    [
        ("a b c", "a b c", 0),
        ("", "a b", 2),
        ("a x c", "a b c", 1),
        ("a b c d", "b c", 2),
        ("b a", "a b", 2),
        ("a", "", 1),
    ],
)
def test_word_errors_are_the_fewest_changes(found, wanted, errors):
    assert word_errors(found.split(), wanted.split()) == errors


def test_word_error_rate_counts_long_sentences_more():
    metric = word_error_rate(lambda outputs: outputs)
    rows = metric.rows(["a b c d", "x"], ["a b c d", "y"])
    assert metric.score(rows) == pytest.approx(100 / 5) and not metric.higher_is_better
    with pytest.raises(BadTask, match="one sentence per sample"):
        metric.rows(["a"], ["a", "b"])


def test_perplexity_is_e_to_the_loss_of_a_token_over_all_texts():
    generator = seeded(5)
    logits, tokens = torch.randn(6, 5, 9, generator=generator), torch.randint(0, 9, (6, 5), generator=generator)
    tokens[0, 2:] = -100
    metric = perplexity()
    found = metric.score(torch.cat([metric.rows({"logits": logits[i : i + 2]}, tokens[i : i + 2]) for i in (0, 2, 4)]))
    loss = nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), tokens[:, 1:].flatten())
    assert found == pytest.approx(float(loss.exp()), rel=1e-6)
    same = perplexity(shift=False)
    loss = nn.functional.cross_entropy(logits.flatten(0, 1), tokens.flatten())
    assert same.score(same.rows(logits, tokens)) == pytest.approx(float(loss.exp()), rel=1e-6)


def test_a_network_is_scored_batch_by_batch_as_in_one():
    data = Data(torch.randn(50, 1, generator=seeded(6)), torch.randn(50, generator=seeded(7)))
    found = [float(scores(nn.Identity(), data, spearman(), batch=size).mean()) for size in (7, 50)]
    assert found[0] == pytest.approx(found[1]) and mean_score(nn.Identity(), data, spearman()) == pytest.approx(
        100 * found[0]
    )


@pytest.mark.parametrize(
    ("each", "value", "words"),
    [
        (lambda outputs, targets: outputs.mean(), None, r"one number per sample, got shape \(\)"),
        (lambda outputs, targets: [1] * len(targets), None, "one number per sample, got list"),
        (lambda outputs, targets: [1], len, "one row per sample, got list for 4 samples"),
        (lambda outputs, targets: outputs["boxes"], None, "raised IndexError"),
        (values, lambda rows: rows.nothing, "on the rows of all samples, raised AttributeError"),
    ],
)
def test_a_metric_that_does_not_fit_the_outputs_is_refused(each, value, words):
    data = Data(torch.zeros(4, 2), torch.zeros(4))
    with pytest.raises(BadTask, match=words):
        scores(nn.Identity(), data, Metric("mine", "", each, value=value))


def test_a_metric_has_one_way_to_its_score():
    with pytest.raises(BadValue, match="both whole and value"):
        Metric("mine", "", values, whole=lambda sums: sums, value=len)
    with pytest.raises(BadValue, match="interval must be one of jackknife, bootstrap"):
        Metric("mine", "", values, interval="guess")


def test_overlaps_of_coco_go_up_by_a_twentieth():
    assert len(COCO_OVERLAPS) == 10
    assert all(two - one == pytest.approx(0.05) for one, two in pairwise(COCO_OVERLAPS))
