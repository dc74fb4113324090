"""Shifts: pictures and sounds as they may come in use (compressed, noisy, blurred, quiet), to see what a network loses there."""

import importlib
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from typing import Any
from zlib import crc32

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from cortado.errors import BadValue, MissingPackage, in_own_code
from cortado.task.data import Data
from cortado.task.limits import Limit
from cortado.task.task import Task

SAMPLES, LIMITED = 500, 5_000
"""Samples that are shifted at most; and where a limit speaks of shifted samples."""
AS_THEY_ARE = "as they are"
LEAST_WAVE = 256
"""Samples of a wave at least: shorter rows of whole numbers are something else."""
JPEG_QUALITY = 30
NOISE, BRIGHTER, SPREAD = 20.0, 40.0, 1.0
"""Standard deviation of the noise and summand of the brightness in steps of 255; standard deviation of the blur in pixels."""
HISS_DB, QUIET_DB, MUFFLED = -20.0, -20.0, 5
"""Noise below a wave's own mean power, and its level when quiet, in decibels; samples that are averaged where it is muffled."""
Shift = Callable[[Any, torch.Generator], Any]
"""Pictures uint8 (N, C, H, W), or waves int16 (N, T) or (N, 1, T), to others of the same shape and type."""


def with_noise(pictures: Tensor, generator: torch.Generator) -> Tensor:
    """Return pictures with normal noise on every pixel."""
    noise = NOISE * torch.randn(pictures.shape, generator=generator)
    return (pictures.float() + noise).round().clamp(0, 255).to(torch.uint8)


def blurred(pictures: Tensor, generator: torch.Generator) -> Tensor:
    """Return pictures after a Gaussian filter of 5 x 5 pixels."""
    line = torch.exp(-0.5 * (torch.arange(-2, 3) / SPREAD) ** 2)
    kernel = (line[:, None] * line / line.sum() ** 2).expand(pictures.shape[1], 1, 5, 5)
    padded = functional.pad(pictures.float(), (2,) * 4, mode="replicate")
    return functional.conv2d(padded, kernel, groups=pictures.shape[1]).round().to(torch.uint8)


def brighter(pictures: Tensor, generator: torch.Generator) -> Tensor:
    """Return brighter pictures."""
    return (pictures.float() + BRIGHTER).clamp(0, 255).to(torch.uint8)


def as_jpeg(pictures: Tensor, generator: torch.Generator) -> Tensor:
    """Return pictures written as JPEG of low quality and read again."""
    from PIL import Image

    made = []
    for picture in pictures.permute(0, 2, 3, 1).numpy():
        stream = io.BytesIO()
        grey = picture.shape[2] == 1
        Image.fromarray(picture[..., 0] if grey else picture).save(stream, "JPEG", quality=JPEG_QUALITY)
        read = np.asarray(Image.open(stream))
        made.append(read[..., None] if grey else read)
    return torch.from_numpy(np.stack(made)).permute(0, 3, 1, 2).contiguous()


def with_hiss(waves: Tensor, generator: torch.Generator) -> Tensor:
    """Return waves with white noise, as loud beside quiet waves as beside loud ones."""
    power = waves.float().square().mean(-1, keepdim=True)
    noise = (power * 10 ** (HISS_DB / 10)).sqrt() * torch.randn(waves.shape, generator=generator)
    return as_wave(waves.float() + noise)


def far_away(waves: Tensor, generator: torch.Generator) -> Tensor:
    """Return waves as from farther away."""
    return as_wave(waves.float() * 10 ** (QUIET_DB / 20))


def muffled(waves: Tensor, generator: torch.Generator) -> Tensor:
    """Return waves without their high tones: each sample is the mean of MUFFLED neighbours."""
    rows = waves.float().reshape(-1, 1, waves.shape[-1])
    return as_wave(functional.avg_pool1d(rows, MUFFLED, 1, MUFFLED // 2, count_include_pad=False).reshape(waves.shape))


def as_wave(values: Tensor) -> Tensor:
    """Return floats as 16-bit samples."""
    return values.round().clamp(-(2**15), 2**15 - 1).to(torch.int16)


SHIFTS: Mapping[str, Shift] = {"noise": with_noise, "blur": blurred, "brightness": brighter, "jpeg": as_jpeg}
"""Of pictures."""
SOUNDS: Mapping[str, Shift] = {"hiss": with_hiss, "quiet": far_away, "muffled": muffled}
"""Of sounds."""


def shifts_for(inputs: Any) -> Mapping[str, Shift]:
    """Return the shifts that apply to inputs: those of pictures in bytes or of 16-bit waves; none to anything else."""
    if not isinstance(inputs, Tensor):
        return {}
    return SHIFTS if is_pictures(inputs) else SOUNDS if is_waves(inputs) else {}


def shifted_copies(
    data: Data, seed: int, wanted: Sequence[str] = (), others: bool = True
) -> Iterator[tuple[str, Data]]:
    """Yield the first samples "as they are" and after each shift, by its name; nothing where none applies.

    Hendrycks, Dietterich, 2019, shift test pictures in such ways. `wanted` are shifts that limits name, a user's own among
    them, which then see up to LIMITED samples instead of SAMPLES; without `others`, they are the only ones. JPEG needs Pillow
    and is left out without it, unless it is wanted.
    """
    if not others and not wanted:
        return
    some = data.original().first(LIMITED if wanted else SAMPLES)
    known = shifts_for(some.inputs)
    names = dict.fromkeys([*(known if others else ()), *wanted])
    if names and others:
        yield AS_THEY_ARE, some
    for name in names:
        try:
            yield name, Data(shifted(some.inputs, name, seed), some.targets, some.prepare)
        except ImportError:
            if name in wanted:
                raise


def shifted(inputs: Any, name: str, seed: int) -> Any:
    """Return samples in memory after the shift of a name, a few at a time; the same for the same seed.

    Raises BadValue for a shift that is unknown or does not apply.
    """
    shift, known = shift_named(name, inputs), list(shifts_for(inputs))
    generator = torch.Generator().manual_seed(
        1000 * seed + (known.index(name) if name in known else crc32(name.encode()))
    )
    if not isinstance(inputs, Tensor):
        return shift(inputs, generator)
    return torch.cat([shift(part, generator) for part in inputs.split(SAMPLES)])


def shift_named(name: str, inputs: Any) -> Shift:
    """Return a shift by its name, or a user's own as package.module:function.  Raises BadValue."""
    known = shifts_for(inputs)
    if name in known:
        return known[name]
    module, _, function = name.partition(":")
    if function:
        try:
            return getattr(importlib.import_module(module), function)  # type: ignore[no-any-return]
        except (ImportError, AttributeError) as error:
            raise BadValue(
                f"limit: the shift {name!r} cannot be loaded ({error}). Write package.module:function."
            ) from error
    every = [*SHIFTS, *SOUNDS]
    if name not in every:
        near = get_close_matches(name, every, n=1)
        meant = f"Did you mean {near[0]}?" if near else f"There are: {', '.join(every)}."
        raise BadValue(f"limit: there is no shift {name!r}. {meant} Your own is package.module:function.")
    kind = (
        "pictures in bytes, uint8 (N, 1 or 3, H, W)"
        if name in SHIFTS
        else "waves of 16 bits, int16 (N, T) or (N, 1, T)"
    )
    found = f"{inputs.dtype} {tuple(inputs.shape)}" if isinstance(inputs, Tensor) else f"a {type(inputs).__name__}"
    has = (
        f"These have: {', '.join(known)}."
        if known
        else "Keep them so in the task's Data and turn them to floats in prepare,"
    )
    raise BadValue(
        f"limit: the shift {name!r} is of {kind}, and the samples are {found.replace('torch.', '')}. {has} "
        f"{'Or give' if known else 'or give'} a shift of your own: package.module:function."
    )


def check_shifts(limits: Sequence[Limit], task: Task) -> None:
    """Try the shifts that limits name on two samples of the validation and of the test data.

    Raises BadValue for one that is unknown, does not apply or fails, MissingPackage where JPEG has no Pillow.
    """
    for name in shifts_in(limits):
        for data in (task.validation, task.test):
            inputs = data.first(2).inputs
            shift_named(name, inputs)
            try:
                with in_own_code(BadValue, f"limit: the shift {name!r}", "Correct it, or limit another shift."):
                    shifted(inputs, name, task.seed)
            except BadValue as error:
                if isinstance(error.__cause__, ImportError):
                    raise MissingPackage(f"limit: the shift {name!r} needs Pillow. Run pip install pillow.") from error
                raise


def shifts_in(limits: Sequence[Limit]) -> tuple[str, ...]:
    """Return the shifts that limits name."""
    return tuple(dict.fromkeys(limit.shift for limit in limits if limit.shift))


def is_pictures(inputs: Tensor) -> bool:
    """Return whether inputs are grey or colour pictures in bytes, (N, 1 or 3, H, W)."""
    return inputs.dtype == torch.uint8 and inputs.dim() == 4 and inputs.shape[1] in (1, 3) and min(inputs.shape[2:]) > 4


def is_waves(inputs: Tensor) -> bool:
    """Return whether inputs are sounds of one channel in 16 bits, (N, T) or (N, 1, T)."""
    one = inputs.dim() == 2 or (inputs.dim() == 3 and inputs.shape[1] == 1)
    return inputs.dtype == torch.int16 and one and inputs.shape[-1] >= LEAST_WAVE
