"""The policy that removes and shrinks: phases, values of ranges, the same draws again, and learning where rewards differ."""

import pytest
import torch

from cortado.planner.search.n2n import Actor, Decision, RemoveThenShrink, Rewarded
from cortado.planner.search.ranges import Range
from cortado.planner.search.trial_search import search
from cortado.planner.search.trials import Trial, reward_of
from tests.laws.tiny_nets import BY_NAME

DEPTH = Range("1 student depth", 1, 4, whole=True)
WIDTH = Range("1 student width", 0.1, 0.5)
KEEP = Range("2 prune/channels keep", 0.1, 1.0)


def test_ranges_become_a_few_values_with_the_largest_network_last():
    assert Decision.of(DEPTH).values == (1, 2, 3, 4) and Decision.of(DEPTH).removes
    assert Decision.of(WIDTH).values == pytest.approx([0.1 + 0.4 * step / 9 for step in range(10)])
    ratios = Decision.of(KEEP).values
    assert not Decision.of(KEEP).removes and ratios[-1] == 1.0 and ratios[1] / ratios[0] == pytest.approx(10 ** (1 / 9))
    assert Decision.of(Range("1 prune/blocks keep", one_of=(0.5, 0.25))).values == (0.25, 0.5)
    assert Decision.of(DEPTH).place(3) == 2 and Decision.of(WIDTH).place(0.49) == 9


def test_layers_are_removed_at_full_width_before_any_is_shrunk():
    policy = RemoveThenShrink.of([DEPTH, WIDTH], 0, 8)
    ended = []
    for turn in range(1, 9):
        point = policy.draw(turn, ended)
        assert point == policy.draw(turn, ended)
        ended.append(Rewarded(point, 1.0 if point[DEPTH.name] == 2 else 0.1 * point[DEPTH.name]))
    assert {one.point[WIDTH.name] for one in ended[:4]} == {0.5}
    best = max(ended[:4], key=lambda one: one.reward).point[DEPTH.name]
    assert {one.point[DEPTH.name] for one in ended[4:]} == {best}
    assert len({one.point[WIDTH.name] for one in ended[4:]}) > 1


@pytest.mark.parametrize(("one", "wanted"), [(DEPTH, 2), (KEEP, 1.0)])
def test_policy_learns_what_is_rewarded(one, wanted):
    """From trials of all values in turn, of which one value is rewarded: it is drawn far more often than by chance."""
    policy = RemoveThenShrink.of([one], 1, None)
    values = policy.decisions[0].values
    ended = [Rewarded({one.name: value}, float(value == wanted)) for _ in range(30) for value in values]
    found = {}
    for given in ((), tuple(ended)):
        actor, generator = policy.trained(policy.decisions, policy.decisions[0].removes, given), torch.Generator()
        found[len(given)] = sum(values[actor(None, generator.manual_seed(turn))[0][0]] == wanted for turn in range(30))
    assert found[0] < 12 < 15 < found[len(ended)]


@pytest.mark.parametrize("together", [True, False])
def test_probabilities_of_all_points_add_up_to_one(together):
    decisions = [Decision("a", (1, 2), together), Decision("b", (1, 2, 3), together)]
    torch.manual_seed(0)
    actor = Actor(decisions, together)
    with torch.no_grad():
        total = sum(float(actor([one, two])[1].exp()) for one in range(2) for two in range(3))
    assert total == pytest.approx(1.0, abs=1e-5)


def test_reward_is_that_of_the_paper():
    done = Trial({}, size_bytes=25, score=80.0)
    assert reward_of(done, 0.25, 100.0, 1) == pytest.approx(0.75 * 1.25 * 0.8)
    assert reward_of(done, 1.2, 100.0, 1) == 0.0
    assert reward_of(done, 0.25, 40.0, -1) == pytest.approx(0.75 * 1.25 * 0.5)
    assert reward_of(Trial({}), 0.25, 100.0, 1) == -1
    assert reward_of(Trial({}, size_bytes=25, score=80.0, over={"size <= 10 B": 1.5}), 0.25, 100.0, 1) == -1


def test_samplers_draw_other_trials_of_the_same_search(tmp_path):
    pytest.importorskip("optuna", reason="trials are drawn by optuna: pip install -e '.[search]'")
    net, recipe = BY_NAME["mlp"], "prune/weights keep=0.2..0.9 | quantize/weights bits=2..8"
    points = {}
    for sampler in ("random", "n2n"):
        for turn in range(2):
            found = search(
                net.make(), net.task(), recipe, trials=3, folder=tmp_path / f"{sampler}{turn}", sampler=sampler
            )
            points.setdefault(sampler, []).append([one.point for one in found.trials])
    assert all(first == second for first, second in points.values()) and points["random"] != points["n2n"]
