"""In words: a task of classes whose network gives embeddings, compared with the sentences of the classes."""

import importlib
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from cortado.errors import BadTask
from cortado.nets.minilm import sentence_vectors
from cortado.task.data import Data
from cortado.task.outputs.words import TextEncoder, Words
from cortado.task.task import Task

ENCODERS: dict[str, TextEncoder] = {"minilm": sentence_vectors}


def with_sentences(task: Task, names: Sequence[str], encoder: Any, left_out: Sequence[str] = ()) -> Task:
    """Return the task with `Words` of these classes as outputs, their loss and their zero-shot accuracy.

    `encoder` is "minilm", package.module:function, or a function from texts to vectors. The training data lack the classes in
    `left_out`; the network is asked for them all the same. Raises BadTask for an encoder that is not there and for unknown
    classes, MissingPackage for MiniLM without its wheel.
    """
    words = Words.of(names, text_encoder(encoder))
    if not left_out:
        return replace(task, outputs=words, loss=words.loss, metric=words.accuracy())
    numbers = words.numbers([left_out] if isinstance(left_out, str) else left_out)
    train = other_classes(task.train, numbers)
    calibration = train.first(512).original()
    return replace(
        task, train=train, calibration=calibration, outputs=words, loss=words.loss, metric=words.accuracy()
    )  # fmt: skip


def text_encoder(named: Any) -> TextEncoder:
    """Return the function from texts to vectors that a name stands for.  Raises BadTask."""
    if callable(named):
        return named  # type: ignore[no-any-return]
    if named in ENCODERS:
        return ENCODERS[named]
    module, _, name = str(named).partition(":")
    way_out = f"Write {', '.join(ENCODERS)} or package.module:function, a function from a list of texts to vectors."
    if not name:
        raise BadTask(f"task: there is no text encoder {named!r}. {way_out}")
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise BadTask(f"task: the text encoder {named} cannot be loaded ({error}). {way_out}") from error
    if not callable(found):
        raise BadTask(f"task: the text encoder {named} is a {type(found).__name__}. {way_out}")
    return found  # type: ignore[no-any-return]


def other_classes(data: Data, numbers: Tensor) -> Data:
    """Return the samples of other classes.  Raises BadTask where none is left, and for data that are not in memory."""
    if not isinstance(data.targets, Tensor):
        raise BadTask("task: classes are left out of data in memory only. Leave out left_out.")
    kept = ~torch.isin(data.targets, numbers)
    if not bool(kept.any()):
        raise BadTask("task: left_out leaves no class to train on. Keep two classes or more.")
    return data.pick(kept.nonzero().flatten())
