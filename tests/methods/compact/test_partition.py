"""Groups of channels: hidden blocks are found, and no exhaustive search finds better ones."""

from itertools import combinations

import torch

from cortado.methods.compact.partition import after_swaps, in_equal_groups, partition, shared_energy


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(3)


def test_hidden_blocks_are_found():
    rows, columns = (torch.randperm(count, generator=generator()) for count in (12, 24))
    energy = torch.rand(12, 24, generator=generator()) * 0.2
    energy += 1.0 * ((rows % 4)[:, None] == columns % 4)
    left, right = partition(energy, 4, generator(), 4)
    assert torch.bincount(left).tolist() == [3] * 4 and torch.bincount(right).tolist() == [6] * 4
    assert shared_energy(energy, left, right) == shared_energy(energy, rows % 4, columns % 4)


def test_two_groups_are_those_of_exhaustive_search():
    energy = torch.rand(6, 6, generator=generator()) ** 3
    best = 0.0
    for some in combinations(range(6), 3):
        for others in combinations(range(6), 3):
            left, right = torch.zeros(6).long(), torch.zeros(6).long()
            left[list(some)], right[list(others)] = 1, 1
            best = max(best, shared_energy(energy, left, right))
    found = shared_energy(energy, *partition(energy, 2, generator(), 20))
    assert abs(found - best) < 1e-5


def test_assignment_is_balanced_and_no_swap_helps():
    gain = torch.rand(12, 3, generator=generator())
    found = in_equal_groups(gain, 3)
    assert torch.bincount(found).tolist() == [4, 4, 4] and torch.equal(after_swaps(gain, found), found)
    total = gain.gather(1, found[:, None]).sum()
    for one, other in combinations(range(12), 2):
        swapped = found.clone()
        swapped[[one, other]] = found[[other, one]]
        assert gain.gather(1, swapped[:, None]).sum() <= total + 1e-6
