"""share/kmeans: Lloyd's algorithm on a line, against the textbook's loops and against all partitions."""

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cortado.methods.prune.weights import PruneWeights
from cortado.methods.share.kmeans import ShareKmeans, first_centroids, kmeans
from cortado.network.view import View
from cortado.parts.forms.attach import form_of
from cortado.parts.forms.masked import Masked
from tests.laws.tiny_nets import BY_NAME


def lloyd(values, centroids, rounds):
    """The textbook: give each value to its nearest centroid (the lower one at a tie), move each to its mean, repeat."""
    centres = sorted({float(one) for one in centroids})
    for _ in range(rounds):
        groups = [[] for _ in centres]
        for value in values:
            groups[min(range(len(centres)), key=lambda k: (abs(value - centres[k]), -k))].append(value)
        moved = [sum(group) / len(group) for group in groups if group]
        if moved == centres:
            break
        centres = moved
    return centres


def loss(values, codebook, codes):
    return float(((values - codebook[codes]).double() ** 2).sum())


def best_loss(values, count):
    """The least squared error over all ways to cut sorted values into `count` runs."""
    ranked = sorted(values.double().tolist())
    best = float("inf")
    for cuts in itertools.combinations(range(1, len(ranked)), min(count, len(ranked)) - 1):
        runs = [ranked[a:b] for a, b in itertools.pairwise((0, *cuts, len(ranked)))]
        best = min(best, sum(sum((v - sum(run) / len(run)) ** 2 for v in run) for run in runs))
    return best


numbers = st.lists(st.integers(-50, 50), min_size=1, max_size=12).map(lambda many: torch.tensor(many) / 8)


@given(numbers, st.lists(st.integers(-50, 50), min_size=1, max_size=4), st.integers(1, 20))
def test_kmeans_walks_as_the_textbook_does(values, starts, rounds):
    codebook, _ = kmeans(values, torch.tensor(starts) / 7, rounds)
    torch.testing.assert_close(
        codebook, torch.tensor(lloyd(values.tolist(), (torch.tensor(starts) / 7).tolist(), rounds))
    )


@given(numbers, st.integers(1, 4), st.sampled_from(["linear", "density", "random"]))
def test_kmeans_ends_where_nothing_can_move(values, count, start):
    codebook, codes = kmeans(values, first_centroids(values, count, start, torch.Generator().manual_seed(1)), 100)
    assert bool((codebook[1:] > codebook[:-1]).all()) and codes.shape == values.shape
    for number, centre in enumerate(codebook):
        torch.testing.assert_close(values[codes == number].mean(), centre)
    nearest = (values[:, None] - codebook).abs().min(1).values
    torch.testing.assert_close((values - codebook[codes]).abs(), nearest, atol=1e-6, rtol=1e-6)


@given(numbers, st.integers(1, 4))
def test_kmeans_is_never_better_than_the_best_partition(values, count):
    codebook, codes = kmeans(values, first_centroids(values, count, "linear", torch.Generator()), 100)
    assert loss(values, codebook, codes) >= best_loss(values, count) * (1 - 1e-5) - 1e-6


def test_kmeans_finds_the_best_partition_of_clear_clusters():
    values = torch.tensor([0.0, 0.1, 0.2, 5.0, 5.1, 9.0, 9.2, 9.4, 9.6])
    codebook, codes = kmeans(values, first_centroids(values, 3, "linear", torch.Generator()), 100)
    assert loss(values, codebook, codes) == pytest.approx(best_loss(values, 3), abs=1e-6)
    assert codes.tolist() == [0, 0, 0, 1, 1, 2, 2, 2, 2]


def test_as_many_values_as_centroids_cost_nothing():
    values = torch.tensor([3.0, -1.0, 0.5, -1.0])
    codebook, codes = kmeans(values, values, 100)
    assert torch.equal(codebook[codes], values)


def test_starts_are_those_of_the_paper():
    """Han, Mao, Dally, 2016, figure 6: linear over the range, density at even quantiles, Forgy among the values."""
    values = torch.tensor([0.0, 0.0, 0.0, 1.0, 8.0])
    generator = torch.Generator().manual_seed(0)
    assert first_centroids(values, 3, "linear", generator).tolist() == [0.0, 4.0, 8.0]
    assert first_centroids(torch.arange(9.0), 2, "density", generator).tolist() == [2.0, 6.0]
    picked = first_centroids(torch.arange(9.0), 4, "random", generator).tolist()
    assert len(set(picked)) == 4 and set(picked) <= set(range(9)) and picked == sorted(picked)


def test_masks_stay_and_convolutions_have_bits_of_their_own():
    tiny = BY_NAME["residual"]
    network = tiny.make()
    view = View(network, tiny.make(), tiny.example)
    PruneWeights(keep=0.5).apply(view, tiny.task())
    zeros = network.stem.weight == 0
    ShareKmeans(bits=1, conv_bits=3).apply(view, tiny.task())
    assert isinstance(form_of(network.stem, "weight"), Masked)
    assert torch.equal(network.stem.weight == 0, zeros)
    assert len(form_of(network.stem, "weight").kept.codebook) <= 8
    assert len(form_of(network.head, "weight").kept.codebook) <= 2


def test_weight_without_entries_is_shared_by_nobody():
    tiny = BY_NAME["mlp"]
    (weight,) = View(tiny.make(), tiny.make(), tiny.example).weights("0")
    form = ShareKmeans().share(torch.zeros(0), weight, torch.Generator())
    assert form.dense().shape == (0,)
