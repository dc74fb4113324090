"""Blocks of weights that stay or go together: exactly as many as asked for, the heaviest, in every form."""

import pytest
import torch
from torch import nn

from cortado.engine.recipe import read_recipe
from cortado.errors import BadValue, NothingChanged
from cortado.methods.factorize.svd import FactorizeSvd
from cortado.methods.prune.granularity import block_sums
from cortado.methods.prune.weights import PruneWeights
from cortado.methods.quantize.weights import QuantizeWeights
from cortado.methods.share.kmeans import ShareKmeans
from cortado.native.product_layouts import faster_sparse
from cortado.network.view import View
from cortado.task.task import Data, Task


def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(20, 48), nn.ReLU(), nn.Linear(48, 40))


def pruned(*methods, make=net, size=(20,)) -> tuple[nn.Module, nn.Module]:
    network, original = make(), make()
    data = Data(torch.randn(8, *size), torch.zeros(8, dtype=torch.int64))
    for method in methods:
        method.apply(View(network, original, data.inputs[:2]), Task(data, data, data, calibration=data))
    return network, original


def tiles(matrix: torch.Tensor, rows: int, columns: int) -> list[torch.Tensor]:
    """The blocks of a matrix, row of blocks by row of blocks."""
    return [part for band in matrix.split(rows) for part in band.split(columns, 1)]


@pytest.mark.parametrize(("rows", "columns"), [(16, 1), (1, 4), (4, 3), (100, 100)])
def test_sums_are_those_of_the_blocks(rows, columns):
    weight = torch.randn(20, 3, 2, 2)
    wanted = torch.stack([part.sum() for part in tiles(weight.flatten(1), rows, columns)])
    torch.testing.assert_close(block_sums(weight, (rows, columns)).flatten(), wanted)


@pytest.mark.parametrize("block", ["16x1", "4x4", "1x8", "3x7"])
@pytest.mark.parametrize("keep", [0.1, 0.25, 0.5])
def test_the_heaviest_blocks_stay_and_exactly_their_share(block, keep):
    rows, columns = map(int, block.split("x"))
    network, original = pruned(PruneWeights(keep=keep, block=block))
    for index in (0, 2):
        found = tiles(network[index].weight.detach(), rows, columns)
        before = tiles(original[index].weight.detach(), rows, columns)
        stays = [bool((one != 0).any()) for one in found]
        assert sum(stays) == round(keep * len(found))
        weights = [float(one.abs().sum()) for one in before]
        assert min(w for w, kept in zip(weights, stays, strict=True) if kept) >= max(
            w for w, kept in zip(weights, stays, strict=True) if not kept
        )
        assert all(torch.equal(a, b) for a, b, kept in zip(found, before, stays, strict=True) if kept)


def test_one_by_one_is_every_weight_on_its_own():
    one, _ = pruned(PruneWeights(keep=0.3))
    same, _ = pruned(PruneWeights(keep=0.3, block="1x1"))
    assert torch.equal(one[0].weight, same[0].weight)


def test_layers_share_one_count_across():
    network, _ = pruned(PruneWeights(keep=0.5, block="16x1", across=True))
    blocks = [block_sums((network[index].weight != 0).float(), (16, 1)) for index in (0, 2)]
    assert sum(int((one > 0).sum()) for one in blocks) == round(0.5 * (3 * 20 + 3 * 48))


def test_share_of_the_blocks_that_are_left():
    network, _ = pruned(PruneWeights(keep=0.5, block="16x1"), PruneWeights(keep=0.5, block="16x1", of="survivors"))
    assert int((block_sums((network[0].weight != 0).float(), (16, 1)) > 0).sum()) == 15


def test_entries_that_were_pruned_stay_pruned():
    network, _ = pruned(PruneWeights(keep=0.5), PruneWeights(keep=0.5, block="16x1"))
    first, _ = pruned(PruneWeights(keep=0.5))
    assert not ((network[0].weight != 0) & (first[0].weight == 0)).any()


def test_convolutions_have_rows_of_filters():
    network, _ = pruned(
        PruneWeights(keep=0.25, block="8x1"), make=lambda: nn.Sequential(nn.Conv2d(3, 16, 3)), size=(3, 6, 6)
    )
    kept = network[0].weight.flatten(1) != 0
    assert int(kept.sum()) == round(0.25 * 2 * 27) * 8
    assert all(one.all() or not one.any() for one in tiles(kept, 8, 1))


@pytest.mark.parametrize("before", [ShareKmeans(bits=3), QuantizeWeights(bits=4), FactorizeSvd(keep=0.5)])
def test_blocks_go_in_every_form(before):
    network, _ = pruned(before, PruneWeights(keep=0.25, block="16x1"))
    view = View(network, net(), torch.randn(2, 20))
    for weight in view.pieces("*"):
        kept = block_sums((weight.dense() != 0).float(), (16, 1)) > 0
        assert int(kept.sum()) <= round(0.25 * kept.numel())


def test_the_sparse_product_finds_the_blocks():
    wide = lambda: nn.Sequential(nn.Linear(128, 256))  # noqa: E731
    network, _ = pruned(PruneWeights(keep=0.2, block="16x1"), make=wide, size=(128,))
    arrays = faster_sparse(network[0].weight.detach().numpy())
    assert not isinstance(arrays, str) and arrays.block == 16


def test_a_recipe_has_the_knob():
    (method,) = read_recipe("prune/weights keep=0.1 block=16x1").stages
    assert method.block == "16x1"


@pytest.mark.parametrize("text", ["16", "16x", "0x1", "1X1", "-1x2", ""])
def test_another_text_is_an_error_with_an_example(text):
    with pytest.raises(BadValue, match="block must be rows x columns, got .* Write block=16x1"):
        PruneWeights(block=text)


def test_a_threshold_has_no_blocks():
    with pytest.raises(BadValue, match="a threshold is for single weights, got block=16x1. Use keep instead"):
        PruneWeights(threshold=1.0, block="16x1")


def test_blocks_that_all_stay_are_nothing_to_do():
    network, original = pruned()
    data = Data(torch.randn(8, 20), torch.zeros(8, dtype=torch.int64))
    view, task = View(network, original, data.inputs[:2]), Task(data, data, data)
    method = PruneWeights(keep=1.0, block="16x1")
    assert method.unmet(view, task)
    with pytest.raises(NothingChanged):
        method.needs[0].require(method, view, task)
