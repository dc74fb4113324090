"""Hints: types of knobs in plain words."""

from collections.abc import Callable
from typing import Any

import pytest
from torch import nn

from cortado.engine.recipe import known_methods, method_class
from cortado.errors import BadValue
from cortado.knobs.knob import hint_text
from cortado.knobs.nested import knobs_of
from cortado.methods.finetune import Finetune


@pytest.mark.parametrize(
    ("hint", "words"),
    [
        (int | None, "a whole number or none"),
        (str | Callable[..., Any], "a text or a function"),
        (tuple[Any, ...] | list[Any], "a list"),
        (float | str | nn.Module | dict[str, Any], "a number or a text or a network or keys with values"),
    ],
)
def test_hints_are_read_as_words(hint, words):
    assert hint_text(hint) == words


@pytest.mark.parametrize("name", known_methods())
def test_no_knob_of_a_method_is_described_by_a_python_type(name):
    shown = [hint_text(one.hint) for one in knobs_of(method_class(name)).values() if one.hint is not Any]
    assert not [text for text in shown if "[" in text or "typing" in text or "torch." in text]


def test_a_teacher_of_the_wrong_kind_is_refused_in_words():
    with pytest.raises(
        BadValue, match="teacher must be a number or a text or a network or keys with values or a list, got None"
    ):
        Finetune(teacher=None)
