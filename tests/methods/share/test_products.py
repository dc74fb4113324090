"""share/products: k-means position by position, against loops, and what it is worth."""

import pytest
import torch
from torch import nn

from cortado.engine.compress import compress
from cortado.errors import NothingChanged
from cortado.methods.finetune import Finetune
from cortado.methods.share.products import ShareProducts, kmeans_of_points
from cortado.network.view import View
from cortado.parts.forms.product_quantized import ProductQuantized
from tests.laws.tiny_nets import BY_NAME

NET = BY_NAME["mlp"]


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_every_point_is_at_its_nearest_and_every_centroid_is_a_mean():
    points = torch.randn(3, 60, 4, generator=generator())
    codebooks, codes = kmeans_of_points(points, 5, 200, generator(1))
    for group in range(3):
        far = (points[group][:, None] - codebooks[group][None]).square().sum(2)
        assert torch.equal(far.argmin(1), codes[group])
        for value in range(5):
            members = points[group][codes[group] == value]
            torch.testing.assert_close(members.mean(0), codebooks[group, value])


def test_clusters_that_are_plain_to_see_are_found():
    """Three far heaps at each of two positions; with as many vectors as heaps some draw finds them all."""
    heaps = torch.tensor([[0.0, 0.0], [50.0, 0.0], [0.0, 50.0]])
    points = heaps[torch.randint(0, 3, (2, 90), generator=generator())] + torch.randn(2, 90, 2, generator=generator(1))
    errors = []
    for seed in range(5):
        codebooks, codes = kmeans_of_points(points, 3, 50, generator(seed))
        errors.append(float((points - codebooks.gather(1, codes[..., None].expand_as(points))).square().sum(2).mean()))
    assert min(errors) < 3.0


def test_as_many_vectors_as_rows_lose_nothing_and_fewer_lose_more():
    values = torch.randn(12, 7, generator=generator())
    errors = []
    for count in (12, 6, 2):
        form = ShareProducts(width=3, values=count).share(values, generator())
        errors.append(float((form.dense().detach() - values).square().mean()))
    assert errors[0] < 1e-10 < errors[1] < errors[2]


def test_kernels_are_rows_of_filters():
    kernel = torch.randn(9, 2, 3, 3, generator=generator())
    form = ShareProducts(width=4, values=3).share(kernel, generator())
    flat = ShareProducts(width=4, values=3).share(kernel.flatten(1), generator())
    assert form.shape == kernel.shape and torch.equal(form.dense().flatten(1), flat.dense())


def test_finetune_moves_the_vectors_and_keeps_who_uses_them():
    before, _ = compress(NET.make(), NET.task(), [ShareProducts(values=2, width=3)])
    after, _ = compress(NET.make(), NET.task(), [ShareProducts(values=2, width=3), Finetune(epochs=1, lr=0.01)])
    one, other = before[0].held_weight, after[0].held_weight
    assert (
        isinstance(other, ProductQuantized)
        and torch.equal(one.codes, other.codes)
        and not torch.equal(one.codebooks, other.codebooks)
    )


def test_layers_with_too_few_rows_stay_and_are_counted():
    network = NET.make()
    view = View(network, NET.make(), NET.example)
    ShareProducts(values=8, width=3).apply(view, NET.task())
    assert isinstance(network[0].held_weight, ProductQuantized) and isinstance(network[2].weight, nn.Parameter)
    assert view.notes == ["1 weights have at most 8 rows and are unchanged."]
    with pytest.raises(NothingChanged, match="it needs a matrix or kernel with more rows than values"):
        ShareProducts(values=16).apply(View(NET.make(), NET.make(), NET.example), NET.task())
