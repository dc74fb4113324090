"""Two stages: a network after some first stages, kept, and after one stage more, by the engine itself."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from torch import nn

from cortado.engine.compress import Run
from cortado.engine.recipe import read_recipe
from cortado.engine.stage import State, begin, view_of
from cortado.methods.method import Method
from cortado.network.view import View, working_copy
from tests.laws.asked import Asked, asked
from tests.laws.small_methods import small
from tests.laws.tiny_nets import BY_NAME


@dataclass(frozen=True)
class Two:
    """A network as it came, after its first stages and after one more, the notes of that one, and the files of both.

    `base` is the network that the last file is written against."""

    original: nn.Module
    base: nn.Module
    between: nn.Module
    made: nn.Module
    notes: tuple[str, ...]
    former_body: bytes
    body: bytes


@lru_cache(maxsize=8)
def begun(first: tuple[Method, ...], net: str, matched: bool) -> tuple[Run, State]:
    """Return a run after its first stages, from which all others start; with moments matched unless the next does just that."""
    tiny = BY_NAME[net]
    recipe = read_recipe((*first, small("quantize/weights" if matched else "match_moments")))
    run = Run(working_copy(tiny.make()).eval(), tiny.task(), recipe)
    state = begin(run.original, tiny.example)
    for number in range(len(first)):
        state = run.stage(state, number)
    return run, state


def view_between(first: Sequence[Method], second: str, net: str) -> View:
    """Return what the second method sees: the network after its first stages."""
    return view_of(copied(begun(tuple(first), net, second != "match_moments")[1]))


def copied(state: State) -> State:
    """Return the state with a copy of its network, the one thing in it that a stage changes."""
    return replace(state, network=copy.deepcopy(state.network))


@lru_cache(maxsize=8)
def view_asked(first: tuple[Method, ...], net: str, matched: bool) -> View:
    """Return the network after its first stages, for all questions: it is traced once, and asking changes nothing."""
    return view_of(copied(begun(first, net, matched)[1]))


def asked_between(first: Sequence[Method], second: str, net: str) -> Asked:
    """Return what the second method says of the network after its first stages."""
    return asked(small(second), view_asked(tuple(first), net, second != "match_moments"), net)


def after_both(first: Sequence[Method], second: str, net: str, **knobs: Any) -> Two:
    """Return what compress makes of these stages, with knobs of the second.  Raises what the second one raises."""
    former, between = begun(tuple(first), net, second != "match_moments")
    recipe = read_recipe((*first, small(second, **knobs)))
    # What a run collects of its stages.
    run = replace(
        former, recipe=recipe, rows=[*former.rows], bodies=[*former.bodies], bases=[*former.bases], used={*former.used}
    )
    made = run.stage(copied(between), len(first))
    return Two(run.original, made.base, between.network, made.network, made.notes, *run.bodies[-2:])
