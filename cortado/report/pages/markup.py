"""Markup: HTML and SVG elements from Python; other text is escaped, and every tag is closed."""

from html import escape

VOID = frozenset({"meta", "br", "col", "hr"})


class Markup(str):
    """Markup, made by `tag` or `join`."""


def text(value: object) -> Markup:
    """Return a value as markup, escaped unless it is markup."""
    return value if isinstance(value, Markup) else Markup(escape(str(value)))


def join(*parts: object) -> Markup:
    """Return the concatenated parts, without None."""
    return Markup("".join(text(part) for part in parts if part is not None))


def tag(name: str, /, *children: object, **attributes: object) -> Markup:
    """Return an element.  `class_` becomes class, `stroke_width` stroke-width; attributes that are None are dropped."""
    given = {key.rstrip("_").replace("_", "-"): value for key, value in attributes.items() if value is not None}
    written = "".join(f' {key}="{escape(str(value))}"' for key, value in given.items())
    if name in VOID:
        return Markup(f"<{name}{written}>")
    return Markup(f"<{name}{written}>{join(*children)}</{name}>")
