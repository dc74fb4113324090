"""Describing: the command methods, which lists the methods of a recipe and their knobs."""

import inspect
from typing import Any

import click

from cortado.commands.given import in_words
from cortado.engine.recipe import known_methods, method_class
from cortado.knobs.knob import accepts
from cortado.knobs.nested import Knob, knobs_of
from cortado.knobs.reading import written_value
from cortado.methods.method import Method
from cortado.table import aligned


@click.command("methods")
@click.argument("name", required=False)
@in_words
def methods_command(name: str | None) -> None:
    """List all methods, or describe method NAME: its knobs with defaults, ranges and meaning."""
    click.echo(methods_text() if name is None else method_text(method_class(name)))


def methods_text() -> str:
    """Return one line per method: its name in a recipe and what it does."""
    rows = [(name, method_traits(method_class(name)), first_sentence(method_class(name))) for name in known_methods()]
    end = "lossy: changes the values of weights; trains: updates floats. Knobs of a method: cortado methods prune/weights."
    return f"{aligned([('method', '', 'does'), *rows], '<')}\n\n{end}"


def method_text(kind: type[Method]) -> str:
    """Return the docstring of a method and a table of its knobs."""
    rows = [("knob", "default", "values", "meaning"), *knob_rows(kind)]
    about = "\n\n".join(part for part in (inspect.getdoc(kind), needs_and_leaves(kind)) if part)
    return f"{kind.name()}  {method_traits(kind)}".rstrip() + f"\n\n{about}\n\n{aligned(rows, '<')}"


def needs_and_leaves(kind: type[Method]) -> str:
    """Return what a method needs to find and what it may leave, in one line; "" if it says neither."""
    needs, leaves = ("; ".join(words) for words in ([need.what for need in kind.needs], kind.leaves))
    return " ".join(f"{title}: {words}." for title, words in (("Needs", needs), ("Leaves", leaves)) if words)


def method_traits(kind: type[Method]) -> str:
    """Return "lossy", "trains", both or nothing."""
    return ", ".join(word for word, on in (("lossy", kind.lossy), ("trains", kind.trains)) if on)


def first_sentence(kind: type[Method]) -> str:
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
