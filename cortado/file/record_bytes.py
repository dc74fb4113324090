"""Record bytes: the estimated size of a form in the file."""

import math

import torch

from cortado.file.artifact import encode_value, record_body
from cortado.file.plane import MIX_LIMIT, QUICK
from cortado.parts.forms.form import Form

FAST, LARGE, SAMPLED, FEWEST_ROWS = "rans", 1 << 18, 1 << 16, 16
"""Forms with more than LARGE numbers use the fast coder; the best coder's gain is estimated on about SAMPLED entries."""


def record_bytes(form: Form) -> int:
    """Return the estimated bytes of a form in the file, mostly within a few percent.

    The best coder is slow on large weights: its gain over the fast coder is measured on evenly spaced rows.
    """
    attached = list(form.state_dict().values())
    numbers = sum(value.numel() for value in attached)
    rows, entries = form.shape[0], max(1, form.shape.numel())
    few = rows * SAMPLED // entries
    if form.factors() is not None:
        # Narrowed rows keep the other factor whole, and no file takes factors that are many times as large as their weight.
        few = max(few, min(rows, math.ceil(rows * numbers / (2 * entries))))
    if not LARGE < numbers <= MIX_LIMIT or few < FEWEST_ROWS:
        return body_bytes(form, QUICK)
    some = form.narrow(0, torch.arange(few, device=attached[0].device) * rows // few)
    return round(body_bytes(form, FAST) * body_bytes(some, QUICK) / body_bytes(some, FAST))


def body_bytes(form: Form, codec: str) -> int:
    """Return the bytes of a form's record with one coder."""
    return 1 + len(record_body(encode_value(form, codec)))
