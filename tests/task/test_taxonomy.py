"""Taxonomies: sums of probabilities, sets with their own labels, several sets in one training, and what is refused."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from cortado.errors import BadTask
from cortado.task.data import Data
from cortado.task.measure import mean_score
from cortado.task.sources import Source, Sources
from cortado.task.task import Task
from cortado.task.taxonomy import IGNORED, Taxonomy
from cortado.training.loop import Training, train

CLASSES = ("cat", "dog", "car", "ship", "tree")
SETS = {
    "fine": CLASSES,
    "kinds": {"pet": ("cat", "dog"), "machine": ("car", "ship")},
    "living": {"animal": ("cat", "dog"), "plant": "tree"},
}
MADE = Taxonomy(CLASSES, SETS)


def logits(count=6, places=()):
    return torch.randn(count, 5, *places, generator=torch.Generator().manual_seed(0))


def test_labels_that_are_classes_give_the_cross_entropy():
    targets = torch.tensor([0, 1, 2, 3, 4, IGNORED])
    torch.testing.assert_close(MADE.loss(logits(), targets), functional.cross_entropy(logits(), targets))


def test_probabilities_of_what_a_label_contains_are_summed():
    outputs = logits()
    shares = outputs.softmax(1)
    wanted = -torch.log(torch.stack([shares[0, 0] + shares[0, 1], shares[1, 2] + shares[1, 3]])).mean()
    targets = MADE.encode("kinds", torch.tensor([0, 1, *[IGNORED] * 4]))
    assert targets.tolist() == [5, 6, *[IGNORED] * 4]
    torch.testing.assert_close(MADE.loss(outputs, targets), wanted)


def test_maps_are_summed_pixel_by_pixel():
    outputs, labels = logits(2, (3, 4)), torch.randint(0, 2, (2, 3, 4))
    by_pixel = MADE.loss(outputs.movedim(1, -1).reshape(-1, 5), MADE.encode("kinds", labels).flatten())
    torch.testing.assert_close(MADE.loss(outputs, MADE.encode("kinds", labels)), by_pixel)


def test_missing_classes_count_against_all_labels_and_are_never_answered():
    outputs = torch.tensor([[0.0, 0, 0, 0, 9.0], [1.0, 1, 1.5, 0, 9.0]])
    found = MADE.log_probabilities(outputs, MADE.members["kinds"])
    assert bool((found.exp().sum(1) < 0.01).all()) and float(found[1, 1]) > float(found[1, 0])
    assert MADE.accuracy("kinds").score(MADE.accuracy("kinds").rows(outputs[1:], torch.tensor([1]))) == 100


def test_accuracy_takes_labels_of_the_set_and_numbers_over_all_sets():
    outputs = torch.eye(5) * 9
    own = torch.tensor([0, 0, 1, 1, IGNORED])
    for metric, targets in (
        (MADE.accuracy("kinds"), own),
        (MADE.accuracy("kinds", merged=True), MADE.encode("kinds", own)),
    ):
        assert metric.rows(outputs, targets).tolist() == [1, 1, 1, 1, 0]


def test_numbers_over_all_sets_are_never_taken_for_labels_of_a_larger_set():
    """The first set has fewer labels than the second, whose numbers are small enough to be labels."""
    taxonomy = Taxonomy(CLASSES, {"kinds": SETS["kinds"], "fine": CLASSES})
    outputs, fine = torch.eye(5) * 9, torch.tensor([0, 1, 2])
    assert taxonomy.encode("fine", fine).tolist() == [2, 3, 4]
    metric = taxonomy.accuracy("fine", merged=True)
    assert metric.rows(outputs[:3], taxonomy.encode("fine", fine)).tolist() == [1, 1, 1]
    with pytest.raises(BadTask, match=r"targets of kinds must lie in 0\.\.1, got 2\.\.4"):
        taxonomy.accuracy("kinds").rows(outputs[:3], taxonomy.encode("fine", fine))


def test_overlap_on_a_set_is_that_of_maps_in_its_own_labels():
    outputs, labels = logits(3, (6, 7)), torch.randint(0, 2, (3, 6, 7), generator=torch.Generator().manual_seed(1))
    labels[0, :2] = IGNORED
    shares = outputs.softmax(1)
    summed = torch.stack([shares[:, :2].sum(1), shares[:, 2:4].sum(1)], 1)
    found, known = summed.argmax(1), labels != IGNORED
    each = [
        float(((found == one) & (labels == one) & known).sum() / (((found == one) | (labels == one)) & known).sum())
        for one in (0, 1)
    ]
    for metric, targets in (
        (MADE.mean_iou("kinds"), labels),
        (MADE.mean_iou("kinds", merged=True), MADE.encode("kinds", labels)),
    ):
        assert metric.score(metric.rows(outputs, targets)) == pytest.approx(50 * sum(each))


def test_sets_are_sources_with_weights_of_their_own():
    data = {name: Data(logits(4), torch.tensor([0, 1, 0, 1])) for name in ("fine", "kinds")}
    sources = Sources(
        {
            name: Source(one, MADE.loss_on(name), weight)
            for (name, one), weight in zip(data.items(), (1.0, 0.25), strict=True)
        }
    )
    inputs, targets = next(sources.data.batches(8))
    each = [
        MADE.loss(inputs[4 * at : 4 * at + 4], MADE.encode(name, data[name].targets)) for at, name in enumerate(data)
    ]
    torch.testing.assert_close(sources.loss(inputs, targets), each[0] / 2 + each[1] / 8)


def test_gradients_with_nothing_labelled_are_zero():
    outputs = logits().requires_grad_()
    MADE.loss(outputs, torch.full((6,), IGNORED)).backward()
    assert not outputs.grad.any()


def test_coarse_labels_teach_what_fine_ones_share():
    """Two numbers that tell four classes; the pairs of coarse labels are told by the first one alone."""
    taxonomy = Taxonomy(
        ("a", "b", "c", "d"), {"fine": ("a", "b", "c", "d"), "coarse": {"left": ("a", "b"), "right": ("c", "d")}}
    )
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(1200, 8, generator=generator)
    fine = 2 * (inputs[:, 0] > 0).long() + (inputs[:, 1] > 0).long()
    few, many = Data(inputs[:16], fine[:16]), Data(inputs[16:600], fine[16:600] // 2)
    rest = [Data(inputs[a:b], fine[a:b]) for a, b in ((600, 700), (700, 1200))]
    scores = {}
    for name, parts in {"few": {"fine": few}, "both": {"fine": few, "coarse": many}}.items():
        torch.manual_seed(0)
        network = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 4))
        task = Task(taxonomy.merged(parts), *rest, loss=taxonomy.loss, metric=taxonomy.accuracy("fine"), batch=64)
        train(network, task, Training(epochs=20 * 600 / len(task.train), lr=3e-3))
        coarse = Data(inputs[700:], fine[700:] // 2)
        scores[name] = mean_score(network.eval(), coarse, taxonomy.accuracy("coarse"))
    assert scores["both"] > scores["few"] + 10


@pytest.mark.parametrize(
    ("classes", "sets", "says"),
    [
        (("a", "a"), {}, "names of their own"), ((), {}, "got none"),
        (("a", "b"), {"s": {"x": ("a", "b"), "y": ("b",)}}, "the class b is in x and in y"),
        (("apple", "b"), {"s": {"x": ("appel",)}}, "'appel', which is no class. Near: apple"),
        (("a", "b"), {"s": {"x": ("y",), "y": ("x",)}}, "x contains y contains x"),
        (("a", "b"), {"s": {"x": ()}}, "contains no class"),
    ],
)  # fmt: skip
def test_taxonomies_with_faults_are_refused(classes, sets, says):
    with pytest.raises(BadTask, match=says):
        Taxonomy(classes, sets)


def test_labels_and_data_that_do_not_fit_are_refused():
    with pytest.raises(BadTask, match=r"labels of kinds must lie in 0..1, got 0..2"):
        MADE.encode("kinds", torch.tensor([0, 2]))
    with pytest.raises(BadTask, match="no set 'coarse'"):
        MADE.encode("coarse", torch.tensor([0]))
    one = Data(torch.randn(4, 2), torch.zeros(4).long(), torch.relu)
    with pytest.raises(BadTask, match="prepared otherwise"):
        MADE.merged({"fine": one, "kinds": Data(torch.randn(4, 2), torch.zeros(4).long())})
    with pytest.raises(BadTask, match="in memory"):
        MADE.merged({"fine": Data({"x": torch.randn(4, 2)}, torch.zeros(4).long())})
