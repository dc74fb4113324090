"""Describing: methods - what a recipe can name, and the knobs of each."""

import dataclasses
import inspect
import typing
from typing import Any

import click

from cortado.commands.given import in_words
from cortado.engine.recipe import known_methods, method_class
from cortado.methods.method import Method, accepts
from cortado.table import aligned


@click.command("methods")
@click.argument("name", required=False)
@in_words
def methods_command(name: str | None) -> None:
    """List all methods, or describe the one called NAME: its knobs with defaults, ranges and meaning."""
    click.echo(methods_text() if name is None else method_text(method_class(name)))


def methods_text() -> str:
    """Return one line a method: its name in a recipe and what it does."""
    rows = [(name, method_traits(method_class(name)), first_sentence(method_class(name))) for name in known_methods()]
    end = "lossy: the values of weights change; trains: floats move. Knobs of one: cortado methods prune/weights."
    return f"{aligned([('method', '', 'does'), *rows], '<')}\n\n{end}"


def method_text(kind: type[Method]) -> str:
    """Return the words of a method and a table of its knobs."""
    rows = [("knob", "default", "may be", "means"), *knob_rows(kind)]
    return f"{kind.name()}  {method_traits(kind)}".rstrip() + f"\n\n{inspect.getdoc(kind)}\n\n{aligned(rows, '<')}"


def method_traits(kind: type[Method]) -> str:
    """Return "lossy", "trains", both or nothing."""
    return ", ".join(word for word, on in (("lossy", kind.lossy), ("trains", kind.trains)) if on)


def first_sentence(kind: type[Method]) -> str:
    """Return what the docstring says first."""
    return " ".join((inspect.getdoc(kind) or "").partition("\n\n")[0].split()).partition(". ")[0].rstrip(".") + "."


def knob_rows(kind: type[Method]) -> list[tuple[str, str, str, str]]:
    """Return name, default, range and meaning of each knob, those of `where` last."""
    hints = typing.get_type_hints(kind)
    fields = sorted(dataclasses.fields(kind), key=lambda field: field.name == "where")
    return [
        (field.name, yaml_text(field.default), range_text(field, hints[field.name]), field.metadata["help"])
        for field in fields
    ]


def range_text(field: dataclasses.Field[Any], hint: Any) -> str:
    """Return the values that a knob may have."""
    low, high, one_of = (field.metadata.get(key) for key in ("low", "high", "one_of"))
    if one_of:
        return ", ".join(map(str, one_of))
    if low is None and high is None:
        return "true, false" if hint is bool else "text" if hint is not Any and accepts(hint, "") else ""
    return f"{low:g} or more" if high is None else f"{low:g} to {high:g}"


def yaml_text(value: Any) -> str:
    """Return a default as YAML writes it: its floats need a point before an exponent."""
    if value is None or isinstance(value, bool) or value == ():
        return {None: "null", True: "true", False: "false", (): "[]"}[value]
    text = f"{value:g}" if isinstance(value, float) else str(value)
    return text.replace("e", ".0e") if isinstance(value, float) and "e" in text and "." not in text else text
