"""Munge: nearest neighbours, and values around them."""

import torch

from cortado.tasks import munge as munging
from cortado.tasks.munge import munge, nearest


def drawn(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_neighbours_are_the_nearest_others():
    rows = torch.randn(700, 5, generator=drawn())
    distances = (rows[:, None] - rows[None]).square().sum(2).double()
    distances.fill_diagonal_(torch.inf)
    assert torch.equal(nearest([rows], drawn()), distances.argmin(1))
    assert torch.equal(nearest([rows[:, :2], rows[:, 2:].reshape(700, 3, 1)], drawn()), distances.argmin(1))


def test_equal_samples_are_neighbours_but_never_their_own():
    rows = torch.tensor([[1.0], [1.0], [5.0]])
    assert nearest([rows], drawn()).tolist()[:2] == [1, 0]


def test_many_samples_look_among_some(monkeypatch):
    monkeypatch.setattr(munging, "CANDIDATES", 10)
    rows = torch.randn(100, 3, generator=drawn())
    found = nearest([rows], drawn())
    assert len(found.unique()) <= 10 and not bool((found == torch.arange(100)).any())


def test_values_are_kept_or_drawn_around_the_neighbours():
    values, neighbours = torch.zeros(20_000, 3), torch.full((20_000, 3), 2.0)
    made = munge(values, neighbours, swap=0.3, spread=4.0, generator=drawn())
    taken = made != 0
    assert abs(float(taken.float().mean()) - 0.3) < 0.01
    assert abs(float(made[taken].mean()) - 2.0) < 0.02 and abs(float(made[taken].std()) - 0.5) < 0.02


def test_no_swap_is_the_sample_and_a_large_spread_the_neighbour():
    values, neighbours = torch.randn(8, 3, generator=drawn()), torch.randn(8, 3, generator=drawn(1))
    assert torch.equal(munge(values, neighbours, 0.0, 1.0, drawn()), values)
    torch.testing.assert_close(munge(values, neighbours, 1.0, 1e6, drawn()), neighbours, rtol=0, atol=1e-4)


def test_a_pixel_is_taken_with_all_its_channels():
    values, neighbours = torch.zeros(4, 3, 9, 9), torch.ones(4, 3, 9, 9)
    taken = munge(values, neighbours, 0.5, 1e6, drawn()) > 0.5
    assert torch.equal(taken, taken[:, :1].expand_as(taken)) and 0.4 < float(taken.float().mean()) < 0.6


def test_whole_numbers_are_swapped_without_noise():
    values, neighbours = torch.zeros(50, 4, dtype=torch.int64), torch.full((50, 4), 7)
    made = munge(values, neighbours, 0.5, 1.0, drawn())
    assert made.dtype == torch.int64 and set(made.unique().tolist()) == {0, 7}


def test_draws_follow_the_generator():
    values, neighbours = torch.zeros(5, 4), torch.ones(5, 4)
    first, again, other = (munge(values, neighbours, 0.5, 1.0, drawn(seed)) for seed in (0, 0, 1))
    assert torch.equal(first, again) and not torch.equal(first, other)
