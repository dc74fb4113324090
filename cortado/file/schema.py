"""Schema: which forms hold a weight, one inside another, with their facts; written once for all weights alike."""

from collections.abc import Iterable
from dataclasses import dataclass

import torch

import cortado.parts.forms
from cortado.errors import BadFile, BadNetwork
from cortado.file.keys import key_of, kind_at, own_kinds
from cortado.file.wire import Cursor, varint, zigzag
from cortado.parts.forms.form import Form
from cortado.parts.part import FLOATS, PART

FLOAT_TYPES = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
DEEPEST = 8


@dataclass(frozen=True)
class Schema:
    """A form class with its facts, the float types of its parts and the schemas of the forms inside it."""

    form: type[Form]
    facts: tuple[int, ...]
    floats: tuple[torch.dtype, ...]
    inner: tuple["Schema", ...]

    @property
    def spec(self) -> dict[str, int]:
        return dict(zip(self.form.facts, self.facts, strict=True))

    def text(self) -> str:
        """For people: "masked(quantized)"."""
        inside = ", ".join(schema.text() for schema in self.inner)
        return self.form.__name__.lower() + (f"({inside})" if inside else "")


def schema_of(form: Form) -> Schema:
    """The schema of a form.  Raises BadNetwork for a float type that the file does not know."""
    parts, floats, inner = form.parts(), [], []
    for name, sort in form.arrays.items():
        if sort == FLOATS:
            if parts[name].dtype not in FLOAT_TYPES:
                raise BadNetwork(
                    f"file: {type(form).__name__}.{name} is {parts[name].dtype}; convert it to float32 first."
                )
            floats.append(parts[name].dtype)
        elif sort == PART:
            inner.append(schema_of(parts[name]))
    spec = form.spec()
    return Schema(type(form), tuple(spec[fact] for fact in form.facts), tuple(floats), tuple(inner))


def write_schema(schema: Schema) -> bytes:
    """The schema as the file has it: key, facts, float types, the schemas inside."""
    facts = b"".join(varint(zigzag(fact)) for fact in schema.facts)
    floats = bytes(FLOAT_TYPES.index(dtype) for dtype in schema.floats)
    return key_of(schema.form) + facts + floats + b"".join(write_schema(inner) for inner in schema.inner)


def read_schema(cursor: Cursor, forms: Iterable[type[Form]] = (), depth: int = 0) -> Schema:
    """Read a schema; `forms` are a user's own form classes.  Raises BadFile for a form that is not known."""
    if depth > DEEPEST:
        raise BadFile(f"file: forms nest deeper than {DEEPEST}. The file is damaged.")
    form = kind_at(cursor, own_kinds(cortado.parts.forms, Form), forms, "uses a form", "MyForm")
    facts = tuple(cursor.signed() for _ in form.facts)
    sorts = list(form.arrays.values())
    floats = tuple(FLOAT_TYPES[cursor.number(len(FLOAT_TYPES) - 1)] for _ in range(sorts.count(FLOATS)))
    inner = tuple(read_schema(cursor, forms, depth + 1) for _ in range(sorts.count(PART)))
    return Schema(form, facts, floats, inner)
