"""language: SmolLM2-135M in few bits, scored on WikiText-2 by its perplexity against its own in float32.

Everything is learned from the validation text: second moments and weights of outputs from windows of 256 tokens, then factors of
rows and norms by KL to the original. The score is that of the first 8 windows of 1,024 tokens of the test text, of networks
read back from the file on the disk; both sides run in bfloat16, which moves a perplexity by 0.1 %. The package has no float
original: the network is that of its 4-bit file, and all grids here are new ones. GPTQ (groups of 64, with zero points),
AWQ and nearest rounding are applied to the blocks alone; the embedding stays in float32 and is not counted. Their bytes are
those of packed codes with 16-bit scales. Minutes are those of the processor, on one thread. Pieces are kept beside the bench,
files and statistics in its cache.
"""

import copy
import lzma
import os
import resource
import sys
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bench.kept import kept
from bench.language_speed import speed_rows
from bench.result import CACHE, PIECES, row
from bench.smollm2 import WORDS, smollm2, tokens
from cortado.engine.stage import apply_stage, start
from cortado.file.artifact import load, save
from cortado.methods.observed import upper_factor
from cortado.methods.quantize.awq import QuantizeAwq
from cortado.methods.quantize.floats import QuantizeFloats
from cortado.methods.quantize.rate_distortion import QuantizeRateDistortion
from cortado.methods.quantize.scales import QuantizeScales
from cortado.network.statistics.one_pass import Statistics
from cortado.network.view import View
from cortado.parts.forms.quantized import Quantized
from cortado.running.memory import give_back_freed
from cortado.task.data import Data
from cortado.task.task import Task
from cortado.tasks.text import Windows
from cortado.tasks.text import task as text_task
from cortado.training.training import Training

TESTED, WINDOW, SHORT = 8, 1024, 256
SEEN, SLOPES = 32, 12
"""Windows of the validation text for second moments, and for the weights of outputs."""
STEPS = 144
"""Steps of one short window for the factors. The larger file was first measured with 48, on the same test tokens."""
FILES = {"small": ("40.8 MB", (41.5, 1.30), (40.0, 1.25)), "large": ("49.3 MB", (50.0, 1.12), (50.0, 1.08))}
"""Bytes of the codes; the most megabytes of the file and times the original's perplexity, as a bar and as a stretch."""
GROUP = 64
WAYS = {"gptq": "GPTQ", "awq": "AWQ", "nearest": "nearest rounding"}
MINUTES, MEMORY = 20.0, 4.0


def text(name: str) -> str:
    path = Path(os.environ["CORTADO_DATA"]) / "text" / f"wikitext2_{name}.txt.xz"
    with lzma.open(path, "rt", encoding="utf8", newline="\n") as file:
        return file.read()


@cache
def learned_from() -> Task:
    """The validation text in short windows; a score is never taken on this task."""
    made = text_task(text("valid"), text("valid"), text("valid"), tokens, SHORT, words=WORDS, calibration=SEEN)
    give_back_freed()
    return made.for_trial()


@cache
def tested() -> Data:
    """The first windows of the test text."""
    return Windows(WINDOW, words=WORDS).of(text("test"), lambda one: tokens(one)[: TESTED * WINDOW])


def score(network: nn.Module) -> float:
    """The perplexity of a network on the test windows."""
    metric, found = learned_from().metric, []
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        for inputs, targets in tested().batches(1):
            found.append(metric.rows(network(inputs), targets))
    return metric.score(torch.cat(found))


def rounding(size: str) -> QuantizeRateDistortion:
    return QuantizeRateDistortion(size=size, images=SEEN, slopes=SLOPES, precision="bfloat16")


def working_copy(original: nn.Module) -> nn.Module:
    """A copy whose matrices are those of the original until they are rounded, to save memory."""
    matrices = {id(one): nn.Parameter(one.detach()) for one in original.parameters() if one.dim() > 1}
    return copy.deepcopy(original, matrices)


def timed(make: Callable[[], Any]) -> tuple[Any, float]:
    """What a function returns, and its minutes of the processor."""
    begun = time.process_time()
    made = make()
    return made, (time.process_time() - begun) / 60


def peak() -> float:
    """The most memory that this process has had, in GB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


def statistics() -> tuple[Statistics, dict[str, Any]]:
    """What the weights multiply and what errors cost, from the cache of this machine, and how long that took."""
    path = CACHE / f"language_statistics_{SEEN}_{SLOPES}.pt"

    def make() -> dict[str, Any]:
        network = smollm2()
        view = View(network, network, learned_from().example)
        found, minutes = timed(lambda: rounding("1 MB").observed(view, learned_from()))
        torch.save((found.inputs, found.outputs), path)
        return {"minutes": minutes, "peak": peak()}

    facts = kept("language_statistics", [SEEN, SLOPES, SHORT], make)
    return Statistics(*torch.load(path)), facts


def file_of(which: str) -> Path:
    return CACHE / f"language_{which}.cortado"


def made(which: str) -> dict[str, Any]:
    """Make one file: rounded, learned, written, opened again and scored."""

    def make() -> dict[str, Any]:
        original = smollm2()
        facts = written(which, original)
        log(which, facts)
        facts["perplexity"] = score(load(file_of(which), original).eval())
        log(which, facts["perplexity"])
        return facts

    settings = [FILES[which][0], SEEN, SLOPES, SHORT, STEPS, "rows and norms"]
    return kept(f"language_{which}", settings, make, PIECES)


def written(which: str, original: nn.Module) -> dict[str, Any]:
    """Make a file; return its bytes, the notes on it, and the minutes and memory that it took."""
    network, (seen, before) = working_copy(original), statistics()
    view = View(network, original, learned_from().example)
    _, rounded = timed(lambda: rounding(FILES[which][0]).round(view, learned_from(), seen))
    log(which, *view.notes)
    seen.inputs.clear()
    give_back_freed()
    _, learned = timed(lambda: taught(network, original))
    size, coded = timed(lambda: save(network, file_of(which), original, codec="quick"))
    minutes = {"statistics": before["minutes"], "rounding": rounded, "factors": learned, "file": coded}
    return {"bytes": size, "notes": view.notes, "minutes": minutes, "peak": max(peak(), before["peak"])}


def taught(network: nn.Module, original: nn.Module) -> None:
    """Learn factors of rows and norms, and keep seven bits of the norms."""
    task = learned_from()
    training = Training(
        epochs=STEPS / len(task.train),
        lr=3e-3,
        batch=1,
        warmup=0.1,
        precision="bfloat16",
        statistics="kept",
        cache="live",
    )
    state = start(network, original, task.example)
    state = apply_stage(QuantizeScales(training=training), state, task, check=False)
    log("factors", state.curves)
    apply_stage(QuantizeFloats(), state, task, check=False, match_moments=False)


def blocks(network: nn.Module) -> dict[str, nn.Linear]:
    return {path: one for path, one in network.named_modules() if isinstance(one, nn.Linear) and path != "head"}


def gptq(weight: Tensor, upper: Tensor, bits: int) -> Tensor:
    """A matrix rounded by GPTQ, with a grid for each row and group of 64 inputs that is set when the group is reached."""
    left, pivots = weight.mT.contiguous().clone(), upper.diagonal()
    found = torch.empty_like(left)
    for begin in range(0, len(left), GROUP):
        end = begin + GROUP
        grid = Quantized.of(left[begin:end].mT.contiguous(), bits, "channel", 0, False, "mse")
        assert grid.zero is not None
        scale, zero, errors = grid.scale.detach(), grid.zero.float(), torch.zeros(GROUP, left.shape[1])
        for at in range(begin, end):
            codes = ((left[at] / scale).round() + zero).clamp(0, 2**bits - 1)
            found[at] = (codes - zero) * scale
            errors[at - begin] = (left[at] - found[at]) / pivots[at]
            left[at + 1 : end].addr_(upper[at, at + 1 : end], errors[at - begin], alpha=-1)
        left[end:].addmm_(upper[begin:end, end:].mT, errors, alpha=-1)
    return found.mT


def scaled(network: nn.Module, bits: int) -> None:
    """Scale channels as AWQ does before rounding."""
    view = View(network, network, learned_from().example)
    awq = QuantizeAwq(bits=bits, group=GROUP, symmetric=False, images=SEEN, rows=SHORT, precision="bfloat16")
    awq.apply(view, learned_from())
    log(*view.notes)


def rival(bits: int, way: str) -> dict[str, Any]:
    """What GPTQ, AWQ or nearest rounding of the blocks costs, with the embedding in float32."""

    def make() -> dict[str, Any]:
        network, factors = smollm2(), dict[int, Tensor]()
        grams = statistics()[0].inputs if way == "gptq" else {}
        if way == "awq":
            scaled(network, bits)
        for path, layer in blocks(network).items():
            weight = layer.weight.detach()
            if way != "gptq":
                layer.weight.data = Quantized.of(weight, bits, "group", GROUP, False, "mse").dense().detach()
                continue
            key = grams[path].data_ptr()
            if key not in factors:
                factors = {key: upper_factor(grams[path], 0.01)[0]}
            layer.weight.data = gptq(weight, factors[key], bits)
        found = score(network)
        log(bits, way, found)
        return {"perplexity": found}

    return kept(f"language_{way}_{bits}", [bits, GROUP, SEEN], make, PIECES)


def original_score() -> float:
    return float(
        kept("language_original", [TESTED, WINDOW], lambda: {"perplexity": score(smollm2())}, PIECES)["perplexity"]
    )


def run() -> list[dict[str, Any]]:
    """All rows."""
    own = original_score()
    floats = 4 * sum(one.numel() for one in smollm2().parameters())
    rows = [row("original: perplexity", own, "")]
    for which, (_, (most, bar), (aim, stretch)) in FILES.items():
        facts = made(which)
        times, size = facts["perplexity"] / own, facts["bytes"] / 1e6
        rows += [
            row(f"{which} file", size, "MB", most),
            row(f"{which} file: perplexity, times the original's", times, "x", bar, perplexity=facts["perplexity"]),
            row(
                f"{which} file: the same if it has {aim:g} MB, a stretch", times if size <= aim else None, "x", stretch
            ),
            row(f"{which} file: times smaller than float32", floats / facts["bytes"], "x"),
            row(f"{which} file: minutes from statistics to file", sum(facts["minutes"].values()), "min", MINUTES),
            row(f"{which} file: peak memory, times float32", facts["peak"] * 1e9 / floats, "x", MEMORY),
        ]
    entries = sum(one.weight.numel() for one in blocks(smollm2()).values())
    for bits in (4, 3):
        size = entries * (bits + (16 + bits) / GROUP) / 8e6
        for way, name in WAYS.items():
            found = rival(bits, way)["perplexity"]
            rows.append(
                row(
                    f"{name}, {bits} bits, blocks alone in {size:.1f} MB: times the original's",
                    found / own,
                    "x",
                    bytes=size,
                )
            )
    return [*rows, *speed_rows()]


def log(*facts: Any) -> None:
    print(*facts, file=sys.stderr, flush=True)


PIECES_OF = {"original": original_score, "statistics": statistics, "small": lambda: made("small")}
PIECES_OF |= {"large": lambda: made("large")}
PIECES_OF |= {f"{way}_{bits}": (lambda way=way, bits=bits: rival(bits, way)) for way in WAYS for bits in (4, 3)}

if __name__ == "__main__":
    torch.set_num_threads(1)
    for name in sys.argv[1:]:
        PIECES_OF[name]()
