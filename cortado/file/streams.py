"""Streams: code the arrays of a form; every size is known before anything is decoded."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from cortado.errors import BadFile, BadNetwork, BadValue
from cortado.file.floats import decode_floats, encode_floats
from cortado.file.plane import Coded, decode_plane, encode_plane
from cortado.file.schema import Schema, schema_of
from cortado.parts.forms.form import Form
from cortado.parts.part import FLOATS, INTEGERS, MASK, PART

NUMPY_TYPES = {
    torch.float32: np.float32,
    torch.float16: np.float16,
    torch.float64: np.float64,
    torch.bfloat16: np.uint16,
}


@dataclass(frozen=True)
class Stream:
    """One coded array: its name ("mask", "kept.codes"), the codec's number (None for floats), its bytes."""

    part: str
    codec: int | None
    body: bytes


@dataclass(frozen=True)
class Place:
    """The places of an array's entries: the shape of the whole weight, and a mask of places (None: all).

    `most`: limit on the entries of an array, by default slightly more than the weight's.
    """

    shape: torch.Size
    where: np.ndarray | None = None
    most: int | None = None

    @property
    def limit(self) -> int:
        return 4 * self.shape.numel() + 1024 if self.most is None else self.most

    @property
    def count(self) -> int:
        return self.shape.numel() if self.where is None else int(self.where.sum())

    def inside(self, mask: np.ndarray) -> "Place":
        """Return the places that are true in `mask`, which has one entry per place."""
        if self.where is None:
            return Place(self.shape, mask.reshape(tuple(self.shape)), self.most)
        where = np.zeros_like(self.where)
        where[self.where] = mask.reshape(-1)
        return Place(self.shape, where, self.most)

    def spread(self, values: np.ndarray) -> np.ndarray:
        """Return the array scattered into the whole weight."""
        if self.where is None:
            return values.reshape(tuple(self.shape))
        whole = np.zeros(tuple(self.shape), dtype=values.dtype)
        whole[self.where] = values.reshape(-1)
        return whole

    def gather(self, whole: np.ndarray) -> np.ndarray:
        return whole.reshape(-1) if self.where is None else whole[self.where]


def encode_form(form: Form, codec: str, place: Place | None = None, prefix: str = "") -> list[Stream]:
    """Return the streams of a form's arrays, in the order of its class."""
    place = place or Place(form.shape)
    parts, found, inner = form.parts(), [], place
    sizes, shapes = type(form).sizes(form.shape, form.spec()), type(form).inner_shapes(form.shape, form.spec())
    if shapes and place.where is not None:
        raise BadNetwork(f"file: a mask cannot hold {type(form).__name__}. Put the masks into its factors: map_values.")
    if shapes and place.most is None and claimed_entries(schema_of(form), form.shape) > place.limit:
        raise BadNetwork(
            f"file: the factors of a weight of {tuple(form.shape)} are over 4 times as large. Lower the rank."
        )
    for name, sort in form.arrays.items():
        if sort == PART:
            at = Place(shapes[name], None, place.limit) if name in shapes else inner
            found += encode_form(parts[name], codec, at, f"{prefix}{name}.")
            continue
        if sort == FLOATS:
            found.append(Stream(prefix + name, None, encode_floats(as_floats(parts[name]))))
            continue
        values = parts[name].cpu().numpy().astype(np.int32)
        if name in sizes:
            coded = encode_plane(values.reshape(-1), None, codec)
        else:
            coded = encode_plane(place.spread(values), place.where, codec, form.course())
        found.append(Stream(prefix + name, coded.codec, coded.body))
        if sort == MASK:
            inner = place.inside(values.astype(bool))
    return found


def decode_form(schema: Schema, place: Place, streams: list[Stream]) -> Form:
    """Return the form at the front of `streams`, and remove its streams from the list.  Raises BadFile."""
    floats, inner, insides = list(schema.floats), list(schema.inner), place
    parts: dict[str, Tensor | Form] = {}
    shape = place.shape if place.where is None else torch.Size([place.count])
    try:
        sizes, shapes = schema.form.sizes(shape, schema.spec), schema.form.inner_shapes(shape, schema.spec)
        claimed = claimed_entries(schema, shape) if shapes and place.most is None else 0
    except BadValue as error:
        raise BadFile(f"file: {error} The file is damaged.") from error
    if claimed > place.limit:
        raise BadFile(f"file: factors claim {claimed} entries for a weight of {place.count}. The file is damaged.")
    for name, sort in schema.form.arrays.items():
        if sort == PART:
            at = Place(shapes[name], None, place.limit) if name in shapes else insides
            parts[name] = decode_form(inner.pop(0), at, streams)
            continue
        stream, count = streams.pop(0), sizes.get(name, place.count)
        if count > place.limit:
            raise BadFile(
                f"file: {name} claims {count} entries for a weight of {place.shape.numel()}. The file is damaged."
            )
        if sort == FLOATS:
            dtype = floats.pop(0)
            parts[name] = from_floats(decode_floats(stream.body, NUMPY_TYPES[dtype], count), dtype)
            continue
        whole = decode_integers(stream, place, count, name in sizes, sort)
        parts[name] = torch.from_numpy(whole)
        if sort == MASK:
            insides = place.inside(whole)
    try:
        return schema.form.from_parts(shape, schema.spec, parts)
    except BadValue as error:
        raise BadFile(f"file: {error} The file is damaged.") from error


def claimed_entries(schema: Schema, shape: torch.Size) -> int:
    """Return the total entries of the innermost factors of a weight of `shape`.  Raises BadValue for a wrong spec."""
    shapes = schema.form.inner_shapes(shape, schema.spec)
    if not shapes:
        return math.prod(shape)
    names = [name for name, sort in schema.form.arrays.items() if sort == PART]
    pairs = zip(names, schema.inner, strict=True)
    return sum(claimed_entries(inner, shapes.get(name, shape)) for name, inner in pairs)


def decode_integers(stream: Stream, place: Place, count: int, own_size: bool, sort: str) -> np.ndarray:
    coded = Coded(stream.codec or 0, stream.body)
    if own_size:
        values = decode_plane(coded, (count,))
    else:
        values = place.gather(decode_plane(coded, tuple(place.shape), place.where))
    if sort == MASK:
        if values.size and not 0 <= values.min() <= values.max() <= 1:
            raise BadFile("file: a mask holds something other than 0 and 1. The file is damaged.")
        return values.astype(bool)
    assert sort == INTEGERS
    return values


def as_floats(values: Tensor) -> np.ndarray:
    """Return a float tensor as a NumPy array; bfloat16 as uint16."""
    values = values.detach().cpu().contiguous().flatten()
    return values.view(torch.uint16).numpy() if values.dtype == torch.bfloat16 else values.numpy()


def from_floats(values: np.ndarray, dtype: torch.dtype) -> Tensor:
    made = torch.from_numpy(values)
    return made.view(torch.bfloat16) if dtype == torch.bfloat16 else made
