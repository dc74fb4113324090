"""Texts as tasks: every token counts once, in windows that overlap or not, and what does not fit is answered in words."""

import math

import pytest
import torch
from torch import nn

from cortado.errors import BadTask
from cortado.task.perplexity import IGNORED
from cortado.tasks import text
from cortado.tasks.text import Windows


def letters(given):
    return [ord(one) - 97 for one in given]


TEXT = "abcdefghijklmnopqrstuvwxyz"


@pytest.mark.parametrize(("tokens", "stride"), [(8, None), (8, 3), (8, 1), (8, 8), (26, None), (7, 7), (13, 13)])
@pytest.mark.parametrize("first", [None, 30])
def test_every_token_counts_once_in_its_own_place(tokens, stride, first):
    windows = Windows(tokens, None if stride is None else min(stride, tokens - 1), first)
    data, counted = windows.of(TEXT, letters), []
    for inputs, targets in zip(data.inputs, data.targets, strict=True):
        assert inputs.shape == (tokens,) and (first is None or inputs[0] == first)
        for place in range(tokens - 1):
            if targets[place] != IGNORED:
                assert targets[place] == inputs[place + 1]
                counted.append(int(targets[place]))
        assert targets[-1] == IGNORED
    begins = sum(1 for one in data.inputs) if first is None else 0
    overlapping = stride is not None and stride < tokens
    assert len(counted) == len(set(counted))
    if first is not None or overlapping:
        assert len(counted) == 26 - (first is None)
    else:
        # What begins a window has no token before it; the last window begins earlier where the text ends within it.
        assert 26 - begins <= len(counted) <= 25


def test_tokens_of_later_windows_have_others_before_them():
    data = Windows(8, 2).of(TEXT, letters)
    for targets in data.targets[1:]:
        first = int((targets != IGNORED).nonzero()[0])
        assert first >= 5


def test_short_texts_among_several_are_filled_up_and_empty_ones_left_out():
    data = Windows(6).of(["abc", "", "x", "abcdefgh"], letters)
    assert data.inputs[0].tolist()[:3] == [0, 1, 2] and data.targets[0].tolist() == [1, 2] + [IGNORED] * 4
    assert len(data) == 3 and int((data.targets != IGNORED).sum()) == 2 + 5 + 2


class Chances(nn.Module):
    """The next letter is the one after, with a known chance."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, tokens):
        logits = torch.zeros(*tokens.shape, 26)
        return self.scale * logits.scatter(2, ((tokens + 1) % 26)[..., None], math.log(25.0))


def test_perplexity_is_that_of_known_chances_whatever_the_windows():
    for tokens, stride in ((26, None), (8, 3), (8, None)):
        task = text.task(TEXT * 2, TEXT, TEXT[::1], letters, tokens, stride)
        rows = task.metric.rows(Chances()(task.test.inputs), task.test.targets)
        assert task.metric.score(rows) == pytest.approx(2.0, abs=1e-4)
        assert task.loss(Chances()(task.test.inputs), task.test.targets).item() == pytest.approx(
            math.log(2.0), abs=1e-4
        )


def test_tokenizers_may_return_what_libraries_do():
    class Encoding:
        ids = (0, 1, 2, 3)

    for tokenizer in (lambda one: Encoding(), lambda one: {"input_ids": [0, 1, 2, 3]}, lambda one: torch.arange(4)):
        assert Windows(4).of("any", tokenizer).inputs.tolist() == [[0, 1, 2, 3]]


@pytest.mark.parametrize(
    ("windows", "tokenizer", "sentence"),
    [
        ({"tokens": 27}, letters, r"a window has 27 tokens of the text, and the text has 26. .*tokens=26 at most"),
        ({"tokens": 8, "words": 20}, letters, r"numbers from 0 to 25, and the network knows 0\.\.19"),
        ({"tokens": 8}, lambda one: list(one), r"must return the numbers of a text's tokens"),
        ({"tokens": 8}, lambda one: [0.5, 1.0], r"must return the numbers of a text's tokens"),
        ({"tokens": 8}, lambda one: [[0, 1]], r"must return the numbers of a text's tokens"),
        ({"tokens": 8}, lambda one: [-1] * 9, r"numbers from -1 to -1"),
        ({"tokens": 8}, lambda one: one.nothing, r"the tokenizer"),
    ],
)
def test_what_does_not_fit_is_answered_in_words(windows, tokenizer, sentence):
    with pytest.raises(BadTask, match=sentence):
        Windows(**windows).of(TEXT, tokenizer)


@pytest.mark.parametrize(
    ("given", "sentence"), [({"tokens": 1}, "at least two"), ({"tokens": 8, "stride": 9}, r"1\.\.8")]
)
def test_windows_that_cannot_be_are_refused(given, sentence):
    with pytest.raises(BadTask, match=sentence):
        Windows(**given)


def test_texts_without_two_tokens_are_refused():
    with pytest.raises(BadTask, match="none of the 2 texts has two tokens"):
        Windows(4).of(["a", ""], letters)
