"""Spoken digits of the shared data: as clips of a second, and as streams of digits with gaps between them, in noise."""

import lzma
import os
from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

RATE, CLIP, CHUNK, CHUNKS, STREAMS = 8000, 6000, 256, 160, (96, 96, 192)
NOISE = 0.002
"""Spread of what is heard in the gaps; samples lie in -1..1."""


@cache
def recordings() -> tuple[list[np.ndarray], np.ndarray, np.ndarray, np.ndarray]:
    """Return the waves (int16, 8 kHz) with digit, speaker (0..5) and number (0..49) of each."""
    with np.load(Path(os.environ["CORTADO_DATA"]) / "speech" / "spoken_digits.npz") as stored:
        steps = np.frombuffer(lzma.decompress(stored["steps_xz"].tobytes()), "<i2")
        waves = np.split(np.cumsum(steps, dtype=np.int16), stored["ends"][:-1])
        return waves, stored["y"], stored["speaker"], stored["number"]


def clips(chosen: np.ndarray) -> tuple[Tensor, Tensor]:
    """Return waves (N, 1, 6000), cut or filled up with silence, and digits (N,) of the recordings in a mask."""
    waves, digits, _, _ = recordings()
    numbers = np.flatnonzero(chosen)
    made = np.zeros((len(numbers), 1, CLIP), np.float32)
    for row, number in enumerate(numbers):
        wave = waves[number][:CLIP] / 2**15
        made[row, 0, : len(wave)] = wave
    return torch.from_numpy(made), torch.from_numpy(digits[numbers].astype(np.int64))


def digits_with_gaps(part: int) -> tuple[Tensor, Tensor]:
    """Return streams (N, samples) and 1 for each chunk (N, chunks) that is mostly speech; each part has its own two speakers."""
    draw = np.random.default_rng(part)
    waves, _, speaker, _ = recordings()
    own = np.flatnonzero(speaker // 2 == part)
    streams = draw.normal(0, NOISE, (STREAMS[part], CHUNK * CHUNKS)).astype(np.float32)
    spoken = np.zeros(streams.shape, np.float32)
    for stream, marks in zip(streams, spoken, strict=True):
        at = int(draw.integers(0, RATE))
        while at < len(stream) - RATE // 4:
            wave = waves[draw.choice(own)][: len(stream) - at] / 2**15
            stream[at : at + len(wave)] += wave
            marks[at : at + len(wave)] = 1
            at += len(wave) + int(draw.integers(RATE // 4, RATE))
    share = spoken.reshape(len(spoken), CHUNKS, CHUNK).mean(2)
    return torch.from_numpy(streams), torch.from_numpy((share > 0.5).astype(np.float32))


def ranked(rows: Tensor) -> float:
    """Return the area under the ROC curve of (N, chunks, 2), scores and 0 or 1: the share of pairs in the right order."""
    scores, found = rows.flatten(0, 1).double().unbind(1)
    ranks = scores.argsort().argsort().double() + 1
    hits = found.sum()
    return float((ranks[found > 0].sum() - hits * (hits + 1) / 2) / (hits * (len(found) - hits)))
