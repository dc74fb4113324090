"""Allocation against every combination there is."""

import itertools

import pytest
import torch

from cortado.planner.allocate.allocation import allocate, hull
from cortado.planner.sensitivity.candidates import Candidate, Choices, undominated


def some_choices(seed, layers=4, candidate_recipes=4):
    generator = torch.Generator().manual_seed(seed)
    made = []
    for layer in range(layers):
        bytes_each = torch.randint(1, 60, (candidate_recipes,), generator=generator).tolist()
        predicted_kls = torch.rand(candidate_recipes, generator=generator).tolist()
        candidates = [
            Candidate(f"way {number}", *pair) for number, pair in enumerate(zip(bytes_each, predicted_kls, strict=True))
        ]
        made.append(Choices(f"layer{layer}", 60, undominated([Candidate("", 60, 0.0), *candidates])))
    return made


def best_of_all(choices, most):
    """The least sum of predicted KLs within the bytes, by trying everything."""
    sums = (
        (sum(one.size_bytes for one in mix), sum(one.predicted_kl for one in mix))
        for mix in itertools.product(*(one.candidates for one in choices))
    )
    return min((predicted_kl for size, predicted_kl in sums if size <= most), default=None)


@pytest.mark.parametrize("seed", range(20))
def test_it_is_the_optimum_where_a_step_along_the_hulls_ends(seed):
    choices = some_choices(seed)
    for most in (230, 170, 120, 70):
        chosen = allocate(choices, most)
        best = best_of_all(choices, most)
        if chosen is None:
            assert best is None
            continue
        size, predicted_kl = (
            sum(getattr(one, part) for one in chosen.values()) for part in ("size_bytes", "predicted_kl")
        )
        assert size <= most
        exact = best_of_all(choices, size)
        # Between two steps the greedy filling may miss a little; it never misses a whole step of the hulls.
        step = max(c.predicted_kl for one in choices for c in one.candidates)
        assert best <= predicted_kl <= exact + step
    assert allocate(choices, 0) is None


def test_all_bytes_give_no_damage():
    chosen = allocate(some_choices(3), 1e9)
    assert all(one.predicted_kl == 0 for one in chosen.values())


def test_steps_at_the_bytes_of_a_mix_on_the_hulls_are_exact():
    choices = some_choices(5)
    hulls = [hull(one.candidates) for one in choices]
    for points in hulls:
        slopes = [
            (b.predicted_kl - a.predicted_kl) / (a.size_bytes - b.size_bytes) for a, b in itertools.pairwise(points)
        ]
        assert slopes == sorted(slopes)
    for multiplier in (1e-3, 5e-3, 2e-2, 1e-1):
        mix = [min(points, key=lambda one, m=multiplier: one.predicted_kl + m * one.size_bytes) for points in hulls]
        size, predicted_kl = sum(one.size_bytes for one in mix), sum(one.predicted_kl for one in mix)
        assert sum(one.predicted_kl for one in allocate(choices, size).values()) == pytest.approx(predicted_kl)
        assert best_of_all(choices, size) == pytest.approx(predicted_kl)


def test_what_another_one_beats_in_both_is_left_out():
    found = undominated(
        [Candidate("a", 10, 0.0), Candidate("b", 5, 1.0), Candidate("c", 6, 2.0), Candidate("d", 1, 3.0)]
    )
    assert [one.way for one in found] == ["a", "b", "d"]
