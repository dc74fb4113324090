"""prune/blocks: the blocks that do nothing go first, and the file has nothing of them."""

import dataclasses

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from cortado.engine.compress import compress
from cortado.errors import BadValue, NothingChanged
from cortado.file.artifact import load, save
from cortado.methods.prune.blocks import PruneBlocks
from cortado.network.view import View
from cortado.parts.blocks.bypass import Bypass
from cortado.report.pages.html import report_html
from cortado.task.measure import mean_score
from cortado.task.outputs.numbers import Numbers
from cortado.task.task import Data, Task

STRENGTHS = (0.8, 0.0, 0.05, 1.5, 0.3)


class Block(nn.Module):
    """Adds so much of something to its input."""

    def __init__(self, strength: float) -> None:
        super().__init__()
        self.strength, self.inner = strength, nn.Linear(8, 8)

    def forward(self, activation: Tensor) -> Tensor:
        return activation + self.strength * torch.tanh(self.inner(activation))


class Net(nn.Module):
    """Blocks of known strengths; their outputs for a sequence if asked."""

    def __init__(self, strengths: tuple[float, ...] = STRENGTHS, flat: bool = True) -> None:
        super().__init__()
        self.flat = flat
        self.enter, self.head = nn.Linear(6, 8), nn.Linear(8, 4)
        self.blocks = nn.Sequential(*(Block(strength) for strength in strengths))

    def forward(self, activation: Tensor) -> Tensor:
        found = self.head(self.blocks(self.enter(activation)))
        return found if self.flat else found[:, :, None]


def net(strengths=STRENGTHS):
    torch.manual_seed(1)
    return Net(strengths).eval()


def task():
    """What the network says itself is right: any change costs."""
    inputs = torch.randn(192, 6, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        targets = net()(inputs).argmax(1)
    return Task(*(Data(inputs[a:b], targets[a:b]) for a, b in ((0, 96), (96, 144), (144, 192))))


def gone(network):
    return [number for number, block in enumerate(network.blocks) if isinstance(block, Bypass)]


def pruned(method, network=None):
    network = network or net()
    method.apply(View(network, net(), task().example), task())
    return network


def distance(network, inputs):
    """Mean divergence of the original net's shares from those of another."""
    now, then = (functional.log_softmax(one(inputs), 1) for one in (net(), network))
    return float((now.exp() * (now - then)).sum(1).mean())


def loss(network, inputs):
    return float(functional.cross_entropy(network(inputs), task().calibration.targets))


def test_block_that_does_nothing_goes_first():
    assert gone(pruned(PruneBlocks(count=1))) == [1]


@pytest.mark.parametrize(("by", "cost"), [("kl", distance), ("loss", loss)])
@torch.no_grad()
def test_every_next_block_is_the_one_whose_absence_then_costs_least(by, cost):
    network, inputs, wanted = pruned(PruneBlocks(count=3, by=by)), task().calibration.inputs, net()
    for _ in range(3):
        costs = {}
        for number, block in enumerate(wanted.blocks):
            if not isinstance(block, Bypass):
                wanted.blocks[number] = nn.Identity()
                costs[number] = cost(wanted, inputs)
                wanted.blocks[number] = block
        wanted.blocks[min(costs, key=costs.get)] = Bypass()
    assert gone(network) == gone(wanted)


def test_share_counts_what_went_before():
    once = pruned(PruneBlocks(keep=0.8))
    assert len(gone(once)) == 1
    assert len(gone(pruned(PruneBlocks(keep=0.4), once))) == 3
    with pytest.raises(NothingChanged, match="prune/blocks: it needs more blocks than it keeps, .* or lower keep"):
        pruned(PruneBlocks(keep=0.4), once)


def test_where_takes_blocks_whose_matrices_it_takes_all():
    assert gone(pruned(PruneBlocks(count=1, where="blocks.3*, blocks.0*"))) == [0]
    with pytest.raises(BadValue, match="cannot remove 3 blocks: only 2 of 5 can go"):
        pruned(PruneBlocks(count=3, where="blocks.3*, blocks.0*"))
    with pytest.raises(NothingChanged, match="it needs a block .*, and Net has none under where: 'head'"):
        pruned(PruneBlocks(where="head"))


def test_network_without_blocks_is_reported_in_words():
    original = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 4))
    says = r"stage 1 \(prune/blocks\): it needs a block .*, and Sequential has none .* or use prune/channels"
    with pytest.raises(NothingChanged, match=says):
        compress(original, task(), [PruneBlocks()])


def test_outputs_may_have_any_shape_that_the_task_understands():
    """Places and numbers are compared as whole networks are; the weakest block goes first in each."""
    maps = net()
    maps.flat = False
    numbers = dataclasses.replace(task(), outputs=Numbers())
    for network, of in ((maps, task()), (net(), numbers)):
        PruneBlocks(count=1).apply(View(network, network, task().example), of)
        assert gone(network) == gone(pruned(PruneBlocks(count=1))) == [1]


def test_removed_blocks_are_reported_stored_and_restored(tmp_path):
    original = net()
    small, report = compress(original, task(), "prune/blocks count=2")
    assert len(gone(small)) == 2 and not gone(original)
    assert [row.form for row in report.layers].count("removed") == 4
    size_bytes = save(small, tmp_path / "net.cortado", original)
    again = load(tmp_path / "net.cortado", net)
    assert report.size_bytes == size_bytes
    example = task().test.inputs
    assert torch.equal(again(example), small(example)) and gone(again) == gone(small)
    assert "removed" in report_html(report)
    assert mean_score(small, task().test, task().metric) == pytest.approx(report.test.compressed)


def test_blocks_go_on_being_pruned_shared_and_trained():
    original = net()
    recipe = (
        "prune/blocks count=2 | prune/weights keep=0.5 | finetune epochs=1 | share/kmeans bits=3 | prune/blocks count=1"
    )
    small, _ = compress(original, task(), recipe)
    assert len(gone(small)) == 3 and bool(torch.isfinite(small(task().example)).all())
