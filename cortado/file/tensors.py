"""Tensors without a form: floats, integers, or raw bytes of anything else."""

import numpy as np
import torch
from torch import Tensor

from cortado.errors import BadFile
from cortado.file.floats import decode_floats, encode_floats
from cortado.file.plane import Coded, decode_plane, encode_plane
from cortado.file.streams import NUMPY_TYPES, Stream, as_floats, from_floats

RAW = 6
"""The codec number of raw bytes."""


def encode_tensor(value: Tensor, codec: str) -> Stream:
    """Return a tensor as a stream of floats, integers or raw bytes."""
    if value.dtype in NUMPY_TYPES:
        return Stream("values", None, encode_floats(as_floats(value)))
    numbers = value.cpu().numpy()
    if value.dtype == torch.bool or not value.dtype.is_floating_point and fits(value):
        coded = encode_plane(numbers.astype(np.int32).reshape(-1), None, codec)
        return Stream("values", coded.codec, coded.body)
    return Stream("values", RAW, numbers.tobytes())


def fits(value: Tensor) -> bool:
    limits = torch.iinfo(torch.int32)
    return not value.dtype.is_complex and (
        value.numel() == 0 or limits.min <= int(value.min()) <= int(value.max()) <= limits.max
    )


def decode_tensor(stream: Stream, shape: torch.Size, dtype: torch.dtype) -> Tensor:
    if stream.codec is None:
        if dtype not in NUMPY_TYPES:
            raise BadFile(f"file: floats are stored for a tensor of {dtype}. The file is damaged.")
        return from_floats(decode_floats(stream.body, NUMPY_TYPES[dtype], shape.numel()), dtype).reshape(shape)
    if stream.codec == RAW:
        if len(stream.body) != shape.numel() * dtype.itemsize:
            raise BadFile("file: a tensor stored as it is has the wrong length. The file is damaged.")
        return (
            torch.frombuffer(bytearray(stream.body), dtype=dtype).reshape(shape).clone()
            if stream.body
            else torch.empty(shape, dtype=dtype)
        )
    if dtype.is_floating_point:
        raise BadFile(f"file: whole numbers are stored for a tensor of {dtype}. The file is damaged.")
    return torch.from_numpy(decode_plane(Coded(stream.codec, stream.body), (shape.numel(),))).to(dtype).reshape(shape)
