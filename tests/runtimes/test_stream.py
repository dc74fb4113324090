"""Stream: every variant takes every input, in turns, and each call has its own time."""

import itertools

import torch

from cortado.runtimes import stream
from cortado.runtimes.stream import IN_A_ROW, WARM, stream_of, streamed
from cortado.task.data import Data


def test_all_variants_take_all_inputs_in_turns():
    seen = []
    count = IN_A_ROW + 5
    variants = [
        [lambda name=name, number=number: seen.append((name, number)) for number in range(count)] for name in "ab"
    ]
    taken = streamed(variants, 0.0)
    assert taken.shape == (stream.FEWEST_PASSES, 2, count)
    # After the first calls of both: some that are not timed, and a turn of the first, then of the second.
    turn = seen[2 * IN_A_ROW :][: WARM + IN_A_ROW]
    assert turn == [("a", number) for number in (*range(WARM), *range(IN_A_ROW))]
    assert seen[2 * IN_A_ROW + len(turn)] == ("b", 0)


def test_each_call_has_its_own_time():
    clock = itertools.accumulate(itertools.cycle([0.001, 0.0]))
    taken = streamed([[lambda: None] * 4], 0.0, lambda: next(clock))
    assert set(taken.round(6).ravel().tolist()) <= {0.0, 1.0}


def test_a_stream_has_different_samples_in_order():
    inputs = torch.arange(10.0)[:, None]
    data = Data(inputs, torch.zeros(10, dtype=torch.long))
    assert [one.item() for one in stream_of(data, 1, 4)] == [0, 1, 2, 3]
    assert [one.ravel().tolist() for one in stream_of(data, 4)] == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert stream_of(data, 16)[0].shape == (10, 1)
