"""A cut is proved or undone: operators that look harmless, numbers hidden in the code, chance, and outputs of any kind."""

import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from cortado.errors import CannotFollow
from cortado.network.coupling.answers import difference
from cortado.network.coupling.cut import cut
from cortado.network.coupling.find import failing_groups, find_groups
from cortado.network.view import View
from tests.network.coupling.test_groups import IMAGE, Net

TOKENS = torch.randn(3, 5, 6, generator=torch.Generator().manual_seed(1))


def free_counts(network: nn.Module, example: Tensor = IMAGE) -> dict[str, int]:
    return {group.name: group.count for group in find_groups(network.eval(), example).free}


def two(between, **layers: nn.Module) -> Net:
    """A convolution, something, a convolution, the mean over space."""
    torch.manual_seed(4)
    return Net(
        lambda n, x: n.two(between(n, n.one(x))).mean((2, 3)),
        one=nn.Conv2d(3, 8, 3),
        two=nn.Conv2d(8, 4, 1),
        **layers,
    )


def test_channels_that_are_turned_round_are_followed() -> None:
    network = two(lambda n, x: x.flip(1)).eval()
    with torch.no_grad():
        network.one.weight[:3] = 0
        network.one.bias[:3] = 0
    before = network(IMAGE)
    groups = find_groups(network, IMAGE)
    cut(network, groups, {groups.free[0]: torch.arange(3, 8)})
    assert network.one.out_channels == network.two.in_channels == 5
    torch.testing.assert_close(network(IMAGE), before)


def test_a_mask_of_the_size_of_the_classes_is_no_channel() -> None:
    network = Net(
        lambda n, x: n.two(n.one(x).relu().mean(1)).masked_fill(n.mask, -1e4), one=nn.Linear(6, 8), two=nn.Linear(8, 2)
    )
    network.register_buffer("mask", torch.tensor([True, False]))
    assert free_counts(network, TOKENS) == {"one": 8}


def test_a_causal_mask_longer_than_the_text_keeps_nothing_else_whole() -> None:
    def forward(n: Net, x: Tensor) -> Tensor:
        tokens = x.shape[1]
        key, query, value = n.key(x), n.query(x), n.value(x)
        mask = n.mask[:tokens, :tokens] == 0
        share = (query @ key.transpose(1, 2)).masked_fill(mask, float("-inf")).softmax(-1)
        return n.leave(share @ value)[:, -1]

    wide = {name: nn.Linear(6, 8) for name in ("key", "query", "value")}
    network = Net(forward, **wide, leave=nn.Linear(8, 3))
    network.register_buffer("mask", torch.tril(torch.ones(7, 7)))
    assert free_counts(network, TOKENS) == {"key": 8, "value": 8}


@pytest.mark.parametrize("pick", [lambda x: x.topk(3, -1).values, lambda x: x.sort(-1)[0]])
def test_what_is_ranked_keeps_its_other_axes(pick) -> None:
    network = Net(lambda n, x: pick(n.two(n.one(x).relu()).flatten(2)), one=nn.Conv2d(3, 8, 3), two=nn.Conv2d(8, 4, 3))
    assert free_counts(network) == {"one": 8}


def test_part_of_an_axis_is_counted_from_its_end_too() -> None:
    network = Net(
        lambda n, x: n.head(n.one(x).narrow(1, -4, 4).mean((2, 3))), one=nn.Conv2d(3, 8, 3), head=nn.Linear(4, 2)
    )
    network.eval()
    groups = find_groups(network, IMAGE)
    cut(network, groups, {group: torch.arange(group.count - 1) for group in groups.free})
    assert network(IMAGE).shape == (2, 2)


def scaled_attention() -> Net:
    """The scale follows from a width, so that fewer channels would be another attention."""
    torch.manual_seed(5)

    def forward(n: Net, x: Tensor) -> Tensor:
        query = n.query(x)
        share = functional.softmax(query @ n.key(x).transpose(1, 2) / math.sqrt(query.shape[-1]), -1)
        return n.head(n.middle((share @ n.value(x)).mean(1)).relu())

    wide = {name: nn.Linear(6, 8) for name in ("query", "key", "value")}
    return Net(forward, **wide, middle=nn.Linear(8, 12), head=nn.Linear(12, 4)).eval()


def test_only_the_group_at_fault_is_named_and_frozen_and_nothing_is_cut() -> None:
    network = scaled_attention()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    groups = find_groups(network, TOKENS)
    with pytest.raises(CannotFollow, match=r"it would compute something else.*Exclude query"):
        cut(network, groups, {group: torch.arange(group.count // 2) for group in groups.free})
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert network.query.out_features == 8
    assert {group.name for group in groups.free} == {"value", "middle"}
    assert "query" in groups.reasons()
    cut(network, groups, {group: torch.arange(group.count // 2) for group in groups.free})
    assert (network.query.out_features, network.value.out_features, network.middle.out_features) == (8, 4, 6)


def test_culprits_are_found_by_halves() -> None:
    tried = []

    def fail(few: list[int]) -> bool:
        tried.append(few)
        return 5 in few or 11 in few

    assert failing_groups(list(range(16)), fail) == [5, 11]  # type: ignore[arg-type, comparison-overlap]
    assert len(tried) <= 16
    assert failing_groups([1, 2], lambda few: len(few) > 1) == [1, 2]  # type: ignore[arg-type, comparison-overlap]


def test_a_network_that_draws_numbers_is_compared_on_the_same_draw() -> None:
    def forward(n: Net, x: Tensor) -> Tensor:
        mean = n.mean(x)
        return n.head(functional.dropout(mean + torch.randn_like(mean), 0.5, True))

    network = Net(forward, mean=nn.Linear(6, 8), head=nn.Linear(8, 2)).eval()
    groups = find_groups(network, TOKENS)
    state = torch.get_rng_state()
    cut(network, groups, {groups.free[0]: torch.arange(4)})
    assert network.mean.out_features == 4
    assert torch.equal(torch.get_rng_state(), state)


def test_outputs_that_are_true_or_false_are_compared() -> None:
    network = Net(
        lambda n, x: (n.head(n.one(x).relu()), n.one(x).sum(-1) > 0), one=nn.Linear(6, 8), head=nn.Linear(8, 4)
    )
    network.eval()
    groups = find_groups(network, TOKENS)
    cut(network, groups, {groups.free[0]: torch.arange(7)})
    assert network.one.out_features == 7


def test_differences_that_are_no_numbers_count() -> None:
    original, endless = torch.tensor([1.0, 2.0]), torch.tensor([1.0, -math.inf])
    assert difference([endless], [endless.clone()]) == 0
    assert difference([original], [endless]) == math.inf
    assert difference([torch.tensor([1.0, math.nan])], [original]) == math.inf
    assert difference([original, torch.tensor([math.nan])], [original, torch.tensor([1.0])]) == math.inf
    assert difference([torch.tensor([True, False])], [torch.tensor([True, True])]) == 1
    assert difference([original], [original[:1]]) == math.inf


def test_tied_layers_with_one_axis_keep_their_outputs() -> None:
    """The rows of an embedding's width are the inputs of the head that shares its weight."""
    torch.manual_seed(6)
    network = Net(lambda n, x: n.head(n.embed(x) + n.out(n.inner(n.embed(x)))), embed=nn.Embedding(9, 16),
                  inner=nn.Linear(16, 12), out=nn.Linear(12, 16), head=nn.Linear(16, 9, bias=False)).eval()  # fmt: skip
    network.head.weight = network.embed.weight
    view = View(network, network, torch.randint(0, 9, (2, 5)))
    wide = next(group for group in view.groups.free if group.count == 16)
    view.cut({wide: torch.arange(2, 16)})
    assert "head" not in view.kept
    assert view.kept["embed"].tolist() == view.kept["out"].tolist() == list(range(2, 16))


def test_many_lines_that_cannot_follow_do_not_stop_the_others() -> None:
    class Many(nn.Module):
        """A place for each layer, so that each fails by itself."""

        def __init__(self) -> None:
            super().__init__()
            self.stems = nn.ModuleList(nn.Conv2d(3, 4, 1) for _ in range(20))
            self.one, self.two = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 6, 1)

        def forward(self, x: Tensor) -> Tensor:
            fixed = [place(stem(x)) for place, stem in zip(PLACES, self.stems, strict=True)]
            return torch.cat([self.two(self.one(x)).mean((2, 3)), *fixed], 1)

    assert free_counts(Many()).get("one") == 8


def place_of(number: int):
    """A function on a line of its own, which knows how many channels there are."""
    made: dict = {"torch": torch}
    exec(compile(f"def flat(x): return x[:, :, :2, :2].reshape(len(x), {16})", f"place{number}.py", "exec"), made)
    return made["flat"]


PLACES = [place_of(number) for number in range(20)]
