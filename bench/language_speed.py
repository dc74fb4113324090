"""How many tokens a second SmolLM2-135M writes in ONNX Runtime, token by token with its memory, in 4 bits and in floats."""

import copy
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import nn

from bench.kept import kept
from bench.result import PIECES, row
from bench.smollm2 import smollm2, tokens
from cortado.lowering.lower import lowered
from cortado.methods.quantize.weights import QuantizeWeights
from cortado.nets.llama_step import LlamaStep, write_memory
from cortado.network.view import View
from cortado.runtimes.onnxruntime import Onnxruntime
from cortado.runtimes.runtime import Session

PLACES, STEPS, GROUP, FASTER = 256, 48, 64, 3.0
EQUAL = 1e-3
"""Largest difference of logits from PyTorch's, as a share of the largest, where inputs are not rounded."""
TEXT = "The history of the small town begins with a bridge over the river, which was built by"
FLOATS, BITS, ROUNDED = "floats", "4 bits", "4 bits, inputs rounded to 8"


def measured() -> dict[str, Any]:
    """Export the step of the original and of its 4-bit copy, compare both with PyTorch, and time them in turns."""
    original = smollm2()
    small = copy.deepcopy(original)
    QuantizeWeights(bits=4, per="group", group=GROUP).apply(
        View(small, original, torch.zeros(2, 4, dtype=torch.long)), None
    )  # type: ignore[arg-type]
    steps = {FLOATS: LlamaStep(original, PLACES), BITS: LlamaStep(small, PLACES)}
    with tempfile.TemporaryDirectory() as scratch:
        sessions, sizes = dict[str, Session](), dict[str, int]()
        for name, runtime in (
            (FLOATS, Onnxruntime()),
            (BITS, Onnxruntime()),
            (ROUNDED, Onnxruntime(rounds_inputs=True)),
        ):
            folder = Path(scratch) / str(len(sizes))
            folder.mkdir()
            step = steps[FLOATS if name == FLOATS else BITS]
            example = (torch.zeros(2, 1, dtype=torch.long), torch.zeros(2, dtype=torch.long), *step.memory(2))
            file = runtime.lower(lowered(step, example), example, folder)
            sizes[name] = sum(one.stat().st_size for one in folder.iterdir())
            sessions[name] = runtime.load(file, 1)
        differences = {
            name: difference(one, steps[FLOATS if name == FLOATS else BITS]) for name, one in sessions.items()
        }
        return {"sizes": sizes, "differences": differences, "ms": times(sessions, steps[FLOATS])}


def difference(session: Session, step: nn.Module) -> float:
    """The largest difference of logits over the tokens of a text, as a share of the largest logit."""
    assert isinstance(step, LlamaStep)
    memory, own, worst = step.memory(1), step.memory(1), 0.0
    with torch.no_grad():
        for place, token in enumerate(tokens(TEXT)):
            here = torch.tensor([place])
            (found, *new), (wanted, *ours) = (
                run(torch.tensor([[token]]), here, *known) for run, known in ((session, memory), (step, own))
            )
            write_memory(memory, here, *map(torch.as_tensor, new))
            write_memory(own, here, *ours)
            worst = max(worst, float((torch.as_tensor(found) - wanted).abs().max() / wanted.abs().max()))
    return worst


def times(sessions: dict[str, Session], step: LlamaStep) -> dict[str, float]:
    """Milliseconds of processor time for a token, the median over the same tokens, all files in turns."""
    memories: dict[str, Any] = {name: step.memory(1) for name in sessions}
    found: dict[str, list[float]] = {name: [] for name in sessions}
    for place in range(STEPS):
        for name, session in sessions.items():
            start, here = time.process_time(), torch.tensor([place])
            _, *new = session(torch.tensor([[100 + place]]), here, *memories[name])
            write_memory(memories[name], here, *map(torch.as_tensor, new))
            found[name].append(1000 * (time.process_time() - start))
    return {name: median(one[4:]) for name, one in found.items()}


def speed_rows() -> list[dict[str, Any]]:
    """Tokens a second, and how near the files are to PyTorch."""
    one = kept("language_speed", [PLACES, STEPS, GROUP, TEXT, "queries and keys turned together"], measured, PIECES)
    rows = []
    for name, ms in one["ms"].items():
        what, bar = f"ONNX Runtime, {name}", None if name == ROUNDED else EQUAL
        rows.append(row(f"{what}: tokens a second, memory of {PLACES}", 1000 / ms, "", size=one["sizes"][name]))
        rows.append(
            row(f"{what}: difference of logits from PyTorch's, of the largest", one["differences"][name], "", bar)
        )
    faster = one["ms"][FLOATS] / one["ms"][ROUNDED]
    return [*rows, row(f"ONNX Runtime, {ROUNDED}: tokens a second over floats", faster, "x", FASTER, "higher")]


if __name__ == "__main__":
    torch.set_num_threads(1)
    for found in speed_rows():
        print(found["what"], found["value"])
