"""Describing: the command methods, which lists the methods of a recipe, the objectives of a training, and their knobs."""

import inspect
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import Any

import click

from cortado.commands.given import in_words
from cortado.engine.recipe import known_methods, method_class
from cortado.errors import BadRecipe
from cortado.knobs.knob import accepts
from cortado.knobs.nested import Knob, knobs_of
from cortado.knobs.reading import written_value
from cortado.methods.method import Method
from cortado.table import aligned
from cortado.training.objectives.objective import Objective, known_objectives


@click.command("methods")
@click.argument("name", required=False)
@in_words
def methods_command(name: str | None) -> None:
    """List all methods and objectives, or describe NAME, one of them: its knobs with defaults, ranges and meaning."""
    known = known_objectives()
    if name is None:
        click.echo(f"{methods_text()}\n\n{objectives_text(known)}")
    elif name in known:
        click.echo(objective_text(known[name]))
    else:
        click.echo(method_text(method_class_near(name, known)))


def method_class_near(name: str, objectives: Iterable[str]) -> type[Method]:
    """Return the class of a method.  Raises BadRecipe, naming objectives that were meant, too."""
    try:
        return method_class(name)
    except BadRecipe as error:
        near = get_close_matches(name, objectives)
        raise BadRecipe(f"{error} Or the objective {' or '.join(near)}?" if near else str(error)) from error


def objectives_text(known: Mapping[str, type[Objective]]) -> str:
    """Return one line per objective: its name in `objectives` and what it is."""
    rows = [(name, first_sentence(kind)) for name, kind in known.items()]
    end = "Entries of objectives, in finetune and reinit. Knobs of an objective: cortado methods logits."
    return f"{aligned([('objective', 'learns from'), *rows], '<')}\n\n{end}"


def objective_text(kind: type[Objective]) -> str:
    """Return the docstring of an objective and a table of its knobs."""
    head = f"{kind.name()}  objective{', needs a teacher' if kind.taught else ''}"
    return f"{head}\n\n{inspect.getdoc(kind)}\n\n{knob_table(kind)}"


def methods_text() -> str:
    """Return one line per method: its name in a recipe and what it does."""
    rows = [(name, method_traits(method_class(name)), first_sentence(method_class(name))) for name in known_methods()]
    end = "lossy: changes the values of weights; trains: updates floats. Knobs of a method: cortado methods prune/weights."
    return f"{aligned([('method', '', 'does'), *rows], '<')}\n\n{end}"


def method_text(kind: type[Method]) -> str:
    """Return the docstring of a method and a table of its knobs."""
    about = "\n\n".join(part for part in (inspect.getdoc(kind), needs_and_leaves(kind)) if part)
    return f"{kind.name()}  {method_traits(kind)}".rstrip() + f"\n\n{about}\n\n{knob_table(kind)}"


def knob_table(kind: type) -> str:
    """Return the knobs of a class, one a line."""
    return aligned([("knob", "default", "values", "meaning"), *knob_rows(kind)], "<")


def needs_and_leaves(kind: type[Method]) -> str:
    """Return what a method needs to find and what it may leave, in one line; "" if it says neither."""
    needs, leaves = ("; ".join(words) for words in ([need.what for need in kind.needs], kind.leaves))
    return " ".join(f"{title}: {words}." for title, words in (("Needs", needs), ("Leaves", leaves)) if words)


def method_traits(kind: type[Method]) -> str:
    """Return "lossy", "trains", both or nothing."""
    return ", ".join(word for word, on in (("lossy", kind.lossy), ("trains", kind.trains)) if on)


def first_sentence(kind: type) -> str:
    """Return the first sentence of the docstring."""
    return " ".join((inspect.getdoc(kind) or "").partition("\n\n")[0].split()).partition(". ")[0].rstrip(".") + "."


def knob_rows(kind: type) -> list[tuple[str, str, str, str]]:
    """Return name, default, range and meaning of each knob, `where` last; a nested knob as its inner ones."""
    knobs = sorted(knobs_of(kind).values(), key=lambda one: one.name == "where")
    return [(one.name, yaml_text(written_value(one.default)), range_text(one), one.facts["help"]) for one in knobs]


def range_text(one: Knob) -> str:
    """Return the allowed values of a knob."""
    low, high, one_of = (one.facts.get(key) for key in ("low", "high", "one_of"))
    if one_of:
        return ", ".join(map(str, one_of))
    if low is None and high is None:
        return "true, false" if one.hint is bool else "text" if one.hint is not Any and accepts(one.hint, "") else ""
    return f"{low:g} or more" if high is None else f"{low:g} to {high:g}"


def yaml_text(value: Any) -> str:
    """Return a default in YAML syntax, whose floats need a point before an exponent."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, tuple):
        return f"[{', '.join(map(yaml_text, value))}]"
    text = f"{value:g}" if isinstance(value, float) else str(value)
    return text.replace("e", ".0e") if isinstance(value, float) and "e" in text and "." not in text else text
