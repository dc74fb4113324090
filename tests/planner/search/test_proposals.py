"""Proposals: what is tried next follows from what kept the limits and what did not."""

from dataclasses import replace

import pytest

from cortado.engine.recipe import read_recipe
from cortado.planner.search.proposal import safe
from cortado.planner.search.proposals import Proposals, front_of
from cortado.planner.search.shapes import Shape
from cortado.planner.search.strengths import SHRINK, STRONGER, next_strength, step_up
from cortado.planner.search.trials import SearchGoal, Trial
from cortado.task.limits import read_limits

ORIGINAL = Shape("", False, 0.0, 5, 1.0, 4.0)
WHOLE = Shape("", True, 0.01, 5, 1.0, 3.0)
NARROW = Shape("prune/channels keep=0.5", False, 0.05, 5, 0.5, 2.5)
BOTH = Shape("prune/channels keep=0.5", True, 0.06, 5, 0.5, 2.0)
THIN = Shape("prune/channels keep=0.2", True, 0.9, 5, 0.2, 1.0)
SLOW = Shape("factorize/tucker keep=0.5", False, 0.5, 5, 0.5, 6.0)
ALL = (ORIGINAL, WHOLE, NARROW, BOTH, THIN, SLOW)


def wanted(*limits, minimise="latency"):
    return SearchGoal(read_limits(limits), minimise, 1, "%")


def outcome(proposal, kept, latency=1.0, size=100):
    return Trial(proposal.recipe, proposal.shape, size, 90.0, latency, {"score >= -1 %": over(kept)}, 1.0)


def over(kept):
    """By what share a limit is exceeded."""
    return -0.1 if kept else 0.1


def two_epochs(shape):
    return 2.0


def test_front_leaves_out_what_is_slower_and_worse():
    assert front_of(ALL) == [ORIGINAL, WHOLE, NARROW, BOTH, THIN]


@pytest.mark.parametrize("fastest", range(-1, 4))
def test_fastest_is_found_by_halving(fastest):
    """Whichever shapes keep the score, the last one that does is found, and no shape is trained twice."""
    ideas, trials = Proposals(wanted("score >= -1 %"), ALL), []
    order = [one.text() for one in front_of(ALL)[1:]]
    while (found := ideas.next(trials, two_epochs)) is not None:
        assert found.shape not in {one.shape for one in trials}
        trials.append(outcome(found, order.index(found.shape) <= fastest))
    kept = [order.index(one.shape) for one in trials if one.keeps_all]
    assert max(kept, default=-1) == fastest and len(trials) <= 3


def test_first_trial_is_the_fastest_of_the_mild_ones():
    found = Proposals(wanted("score >= -1 %"), ALL).next([], two_epochs)
    assert found.shape == BOTH.text()
    assert [stage.name() for stage in read_recipe(found.recipe).stages] == [
        "prune/channels", "finetune", "quantize/weights", "quantize/activations",
    ]  # fmt: skip


def test_limit_of_time_takes_the_mildest_shape_that_keeps_it():
    ideas = Proposals(wanted("latency <= 2.6 ms in onnxruntime", minimise="loss"), ALL)
    assert ideas.allowed() == [NARROW, BOTH, THIN]
    first = ideas.next([], two_epochs)
    second = ideas.next([outcome(first, True)], two_epochs)
    assert (first.shape, second.shape) == (NARROW.text(), NARROW.text())
    assert "finetune" not in str(first.recipe) and "finetune" in str(second.recipe)
    third = ideas.next([outcome(first, True), outcome(second, True)], two_epochs)
    assert third.shape == BOTH.text()


def test_limit_that_no_shape_keeps_takes_the_fastest():
    ideas = Proposals(wanted("latency <= 0.1 ms in onnxruntime", minimise="loss"), ALL)
    assert ideas.allowed() == [THIN]


def test_nothing_is_tried_twice():
    ideas, trials = Proposals(wanted("latency <= 2.6 ms in onnxruntime", minimise="loss"), ALL), []
    while (found := ideas.next(trials, two_epochs)) is not None:
        trials.append(outcome(found, True))
    assert len(trials) == 4 and len({str(one.recipe) for one in trials}) == 4


def test_untrainable_shapes_are_tried_once():
    ideas, trials = Proposals(wanted("latency <= 3.2 ms in onnxruntime", minimise="loss"), (ORIGINAL, WHOLE)), []
    while (found := ideas.next(trials, two_epochs)) is not None:
        trials.append(outcome(found, True))
    assert [one.shape for one in trials] == [WHOLE.text()]


def test_best_of_those_that_miss_is_not_picked_by_noise():
    goal = wanted("latency <= 0.5 ms in onnxruntime", minimise="loss")
    slow = Trial({"stages": []}, "a", 10, 90.0, 1.02, {"x": 0.1})
    quick = Trial({"stages": []}, "b", 10, 60.0, 1.00, {"x": 0.1})
    far = Trial({"stages": []}, "c", 10, 99.0, 3.00, {"x": 0.1})
    assert goal.best([slow, quick, far]) is slow
    assert "With 3 ms instead of 1.02 ms the score would be 9.00 better." in goal.advice(slow, [slow, quick, far])


class Foreseen:
    """A forecast of which only sizes are asked."""

    sizes, sign, score, choices = (10, 1000), 1, 90.0, ()
    rest_bytes, bound = 5, False

    def expected(self, size_bytes):
        return None

    def score_under(self, shift):
        return self.score


def size_after(proposal):
    """Bytes that a make-believe network has after a proposal: of mixes what they ask for, else the less the stronger."""
    knobs = {name: knobs for stage in proposal.recipe["stages"] for name, knobs in stage.items()}
    if "prune/rate_distortion" in knobs:
        return 0.3 / knobs["prune/rate_distortion"]["strength"] / 8
    if "quantize/rate_distortion" in knobs:
        return knobs["quantize/rate_distortion"]["size"] + ORIGINAL.rest_bytes
    return next(value["size"] for name, value in knobs.items() if name == "allocate") + ORIGINAL.rest_bytes


@pytest.mark.parametrize("least", [30, 200, 700])
def test_smallest_file_is_closed_in_on_from_both_sides(least):
    """Whatever size still keeps the score, the search ends near it, by mixes and by training for bytes."""
    ideas, trials = Proposals(wanted("score >= -1 %", minimise="size"), ALL, Foreseen()), []
    while (found := ideas.next(trials, two_epochs)) is not None and len(trials) < 40:
        size = size_after(found)
        trials.append(outcome(found, size >= least, None, size))
    kept = {one.shape: one.size_bytes for one in trials if one.keeps_all}
    assert len(trials) < 20 and "trained for bytes" in {one.shape for one in trials}
    assert min(kept.values()) < 1.1 * least
    if least < 700:
        assert kept["trained for bytes"] < 1.3 * least or kept["no cut"] < 1.1 * least


@pytest.mark.parametrize("least", [30, 200, 700])
def test_without_time_to_train_mixes_alone_close_in_on_the_smallest_file(least):
    """Up where the first one does not keep the score, and then down."""
    ideas, trials = Proposals(wanted("score >= -1 %", minimise="size"), ALL, Foreseen()), []
    while (found := ideas.next(trials, lambda shape: 0.0)) is not None and len(trials) < 40:
        assert "finetune" not in str(found.recipe) and "prune/rate_distortion" not in str(found.recipe)
        size = size_after(found)
        trials.append(outcome(found, size >= least, None, size))
    assert 1 < len(trials) < 20 and min(one.size_bytes for one in trials if one.keeps_all) < 1.15 * least


@pytest.mark.parametrize("trains", [True, False])
def test_rounding_for_bytes_goes_on_where_it_makes_the_smallest_file(trains):
    """It is tried after the first mix, and closed in on while it leads."""
    ideas = Proposals(wanted("score >= -1 %", minimise="size"), ALL, Foreseen(), rounds=True)
    trials = []
    while (found := ideas.next(trials, two_epochs if trains else lambda shape: 0.0)) is not None and len(trials) < 40:
        size, least = size_after(found), {"rounded for bytes": 100}.get(found.shape, 200)
        assert ("quantize/scales" in str(found.recipe)) == (trains and found.shape == "rounded for bytes")
        trials.append(outcome(found, size >= least, None, size))
    assert len(trials) < 25
    best = min((one for one in trials if one.keeps_all), key=lambda one: one.size_bytes)
    assert best.shape == "rounded for bytes" and best.size_bytes < 115


def test_rounding_comes_first_where_time_cut_the_curve_short():
    """A mix would measure every candidate again."""

    class CutShort(Foreseen):
        bound = True

    ideas, trials = Proposals(wanted("score >= -1 %", minimise="size"), ALL, CutShort(), rounds=True), []
    while (found := ideas.next(trials, two_epochs)) is not None and len(trials) < 40:
        size = size_after(found)
        trials.append(outcome(found, size >= 100, None, size))
    shapes = [one.shape for one in trials]
    last = len(shapes) - shapes[::-1].index("rounded for bytes")
    assert set(shapes[:last]) == {"rounded for bytes"} and {"no cut", "trained for bytes"} <= set(shapes[last:])


def test_rounding_for_bytes_is_left_out_where_it_does_not_take_the_weights_or_failed():
    goal = wanted("score >= -1 %", minimise="size")
    without, ideas = Proposals(goal, ALL, Foreseen()), Proposals(goal, ALL, Foreseen(), rounds=True)
    trials = [outcome(ideas.next([], two_epochs), True, None, 500)]
    trials.append(outcome(ideas.next(trials, two_epochs), True, None, 400))
    third = ideas.next(trials, two_epochs)
    assert third.shape == "rounded for bytes" and without.next(trials, two_epochs).shape == "trained for bytes"
    trials.append(Trial(third.recipe, third.shape, failed="out of memory"))
    assert ideas.next(trials, two_epochs).shape == "trained for bytes"


def test_least_loss_within_bytes_rounds_for_them_too():
    goal = wanted("size <= 300 B", minimise="loss")
    ideas, trials = Proposals(goal, ALL, Foreseen(), rounds=True), []
    while (found := ideas.next(trials, two_epochs)) is not None and len(trials) < 15:
        size = round(1.02 * size_after(found))
        trials.append(replace(outcome(found, True, None, size), over={"size <= 300 B": over(size <= 300)}))
    rounded = [one for one in trials if one.shape == "rounded for bytes"]
    assert 1 <= len(rounded) <= 4 and rounded[-1].keeps_all and rounded[-1].size_bytes > 250


@pytest.mark.parametrize("shrinks", [1.0, 0.5])
def test_strength_that_saves_no_bytes_or_is_the_largest_is_the_last(shrinks):
    """A network that loses no score at any strength, as one that answers all samples right: the search still ends."""
    ideas, trials = Proposals(wanted("score >= -1 %", minimise="size"), ALL, Foreseen()), []
    while (found := ideas.next(trials, two_epochs)) is not None and len(trials) < 60:
        trained = "prune/rate_distortion" in str(found.recipe)
        size = (
            100 * shrinks ** sum(one.shape == "trained for bytes" for one in trials) if trained else size_after(found)
        )
        trials.append(outcome(found, True, None, size))
    assert len(trials) < 60
    own = [size_after(one) for one in trials if one.shape == "trained for bytes"]
    assert own and (len(own) == 2 if shrinks == 1 else min(own) == pytest.approx(0.3 / 8))


def test_where_training_harms_mixes_alone_are_tried():
    """Too few samples: what recovered is worse than a file as small that was not trained."""
    ideas, trials = Proposals(wanted("score >= -1 %", minimise="size"), ALL, Foreseen()), []
    ideas.first_size = lambda found: 300
    while (found := ideas.next(trials, two_epochs)) is not None and len(trials) < 40:
        size, trained = size_after(found), "finetune" in str(found.recipe)
        trials.append(replace(outcome(found, size >= 400 and not trained, None, size), score=30.0 if trained else 80.0))
    assert (
        sum(one.trained for one in trials) == 1 and 400 <= min(one.size_bytes for one in trials if one.keeps_all) < 460
    )


def test_file_that_is_over_its_limit_is_followed_by_smaller_ones():
    """A score that is kept and bytes that are not: the next is smaller, never larger."""
    goal = wanted("score >= -1 %", "size <= 300 B", minimise="size")
    ideas, trials = Proposals(goal, ALL, Foreseen()), []
    while (found := ideas.next(trials, two_epochs)) is not None and len(trials) < 12:
        size = 1.02 * size_after(found)
        kept = {"score >= -1 %": over(size >= 150), "size <= 300 B": over(size <= 300)}
        trials.append(replace(outcome(found, True, None, round(size)), over=kept))
    assert any(one.keeps_all for one in trials)
    assert all(size_after(one) <= 300 for one in trials if "allocate" in str(one.recipe))


def test_least_loss_aims_lower_after_a_file_over_its_limit():
    goal = wanted("size <= 300 B", minimise="loss")
    ideas, trials = Proposals(goal, ALL, Foreseen()), []
    while (found := ideas.next(trials, two_epochs)) is not None and len(trials) < 12:
        size = round(1.01 * size_after(found) + 1)
        trials.append(replace(outcome(found, True, None, size), over={"size <= 300 B": over(size <= 300)}))
    recovered = [one for one in trials if one.shape == ORIGINAL.text()]
    assert recovered[-1].keeps_all and len(recovered) <= 4


@pytest.mark.parametrize("factor", [0.2, 1.0, 4.0])
def test_least_loss_within_bytes_trains_for_them_too(factor):
    """Whatever a strength gives here, a file a little below the limit is found in a few trainings."""
    goal = wanted("size <= 300 B", minimise="loss")
    ideas, trials = Proposals(goal, ALL, Foreseen()), []
    while (found := ideas.next(trials, two_epochs)) is not None and len(trials) < 12:
        mine = found.shape == "trained for bytes"
        size = round(size_after(found) * (factor if mine else 0.99))
        trials.append(replace(outcome(found, True, None, size), over={"size <= 300 B": over(size <= 300)}))
    trained = [one for one in trials if one.shape == "trained for bytes"]
    assert 1 <= len(trained) <= 4 and any(one.keeps_all and one.size_bytes > 150 for one in trained)


def test_training_for_bytes_is_left_out_after_it_failed():
    ideas = Proposals(wanted("score >= -1 %", minimise="size"), ALL, Foreseen())
    first = ideas.next([], two_epochs)
    trials = [outcome(first, True, None, 500)]
    second = ideas.next(trials, two_epochs)
    trials.append(outcome(second, True, None, 400))
    third = ideas.next(trials, two_epochs)
    assert third.shape == "trained for bytes"
    trials.append(Trial(third.recipe, third.shape, failed="no weights to train"))
    assert ideas.next(trials, two_epochs).shape == "no cut"


def test_what_is_slower_than_the_original_network_is_no_answer():
    slow_integers = Shape("", True, 0.01, 5, 1.0, 9.0)
    ideas = Proposals(wanted("score >= -1 %"), (ORIGINAL, slow_integers, NARROW))
    assert ideas.allowed() == [NARROW]
    assert Proposals(wanted("score >= -1 %"), (ORIGINAL, slow_integers)).allowed() == [slow_integers]


@pytest.mark.parametrize("minimise", ["size", "latency", "loss"])
def test_network_that_can_neither_be_cut_nor_rounded_gives_no_idea(minimise):
    ideas = Proposals(wanted("score >= -1 %", "latency <= 5 ms in onnxruntime", minimise=minimise), (ORIGINAL,))
    assert ideas.allowed() == []
    if minimise != "size":
        assert ideas.next([], two_epochs) is None


def test_the_safe_candidate_is_8_bits_everywhere_and_the_tail():
    stages = read_recipe(safe(wanted("score >= -1 %", minimise="size"), "quantize/floats").recipe).stages
    assert [(one.name(), getattr(one, "bits", None)) for one in stages][0] == ("quantize/weights", 8)
    assert stages[-1].name() == "quantize/floats" and len(stages) == 2
    names = [stage.name() for stage in read_recipe(safe(wanted("latency <= 5 ms in onnxruntime"), "").recipe).stages]
    assert names == ["quantize/weights", "quantize/activations"]


def test_what_the_safe_candidate_told_is_not_tried_again():
    """In whole numbers the original network was the first trial: the next one is another shape, whatever came out."""
    goal = wanted("latency <= 3.2 ms in onnxruntime", minimise="loss")
    for kept in (True, False):
        trials = [outcome(safe(goal, ""), kept)]
        assert Proposals(goal, (ORIGINAL, WHOLE)).next(trials, two_epochs) is None
        assert Proposals(goal, (ORIGINAL, WHOLE, BOTH)).next(trials, two_epochs).shape == BOTH.text()
    fastest = wanted("score >= -1 %")
    trials = [outcome(safe(fastest, ""), True)]
    assert Proposals(fastest, ALL).next(trials, two_epochs).shape == BOTH.text(), (
        "the fastest of the mild ones, as before"
    )


def test_first_mix_that_failed_does_not_end_the_search():
    ideas = Proposals(wanted("score >= -1 %", minimise="size"), ALL, Foreseen())
    first = ideas.next([], two_epochs)
    failed = Trial(first.recipe, first.shape, failed="it diverged")
    assert ideas.next([failed], two_epochs).recipe != first.recipe


def trial_of(size, over, strength=None, trained=True):
    stages = [{"finetune": {"epochs": 1.0}}] if trained else []
    stages += [] if strength is None else [{"prune/rate_distortion": {"strength": strength}}]
    return Trial({"stages": stages}, "", size, 0.0, None, {"score >= -1 %": over}, 1.0)


def test_a_file_that_lost_far_too_much_is_followed_by_a_much_larger_one():
    safe = [trial_of(1000, -0.01)]
    near, far = trial_of(100, 0.01), trial_of(50, 0.79)
    assert step_up([near], safe) == pytest.approx(1 / SHRINK)
    assert step_up([far], safe) == pytest.approx(80**0.25)
    # Twice the bytes lost a fortieth: the next factor follows from that.
    # Twice the bytes lost a quarter: the next factor follows from that.
    assert step_up([trial_of(50, 0.15), trial_of(100, 0.03)], safe) == pytest.approx(2.0)
    assert step_up([trial_of(40, 6.0), far], []) == pytest.approx(1 / SHRINK)
    assert step_up([trial_of(10, 1e9)], safe) == 3.0


def test_training_for_bytes_ends_where_its_files_are_no_smaller():
    lost = [trial_of(90, 0.1, 1e-5), trial_of(140, 0.1, 5e-6)]
    assert next_strength([], lost[:1], 130) == pytest.approx(1e-5 / STRONGER)
    assert next_strength([], lost, 130) is None
    kept = [trial_of(120, -0.1, 2e-6)]
    assert next_strength(kept, lost[:1], 120) == pytest.approx((2e-6 * 1e-5) ** 0.5)
    assert next_strength(kept, [trial_of(115, 0.1, 1e-5)], 120) is None


def test_what_learned_scales_could_not_keep_is_not_tried_without_them():
    """Time runs short after two losses: the third file is larger than both, though no scales are learned any more."""
    ideas = Proposals(wanted("score >= -1 %", minimise="size"), (ORIGINAL,), Foreseen(), rounds=True)
    lost = [replace(trial_of(size, 0.1), shape="rounded for bytes") for size in (100, 150)]
    trials = [trial_of(900, -0.1, trained=False), *lost]
    assert ideas.smaller_size("rounded for bytes", trials, Foreseen(), training=False) > 150
    harmful = replace(trial_of(100, 0.05, trained=False), shape="rounded for bytes", score=1.0)
    assert ideas.smaller_size("rounded for bytes", [*trials, harmful], Foreseen(), training=False) < 150
