"""Markup: HTML and SVG elements from Python; any text that is not markup is escaped, and every tag is closed."""

from html import escape

VOID = frozenset({"meta", "br", "col", "hr"})


class Markup(str):
    """Text that is markup already, made by `tag` or `join`."""


def text(value: object) -> Markup:
    """Anything as markup: escaped, unless it is markup."""
    return value if isinstance(value, Markup) else Markup(escape(str(value)))


def join(*parts: object) -> Markup:
    """Parts one after another; None is left out."""
    return Markup("".join(text(part) for part in parts if part is not None))


def tag(name: str, /, *children: object, **attributes: object) -> Markup:
    """One element.  `class_` is written class, `stroke_width` stroke-width; an attribute that is None is left out."""
    given = {key.rstrip("_").replace("_", "-"): value for key, value in attributes.items() if value is not None}
    written = "".join(f' {key}="{escape(str(value))}"' for key, value in given.items())
    if name in VOID:
        return Markup(f"<{name}{written}>")
    return Markup(f"<{name}{written}>{join(*children)}</{name}>")
