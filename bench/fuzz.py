"""fuzz: a hundred thousand mutated files; none may crash the reader, hang it, or pass for another network."""

import json
import random
import resource
import subprocess
import sys
import threading
import time
import zlib
from collections import Counter
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bench.result import row
from cortado.errors import BadFile, CortadoError
from cortado.file.artifact import decode, encode
from cortado.native.build import native_state
from cortado.parts.forms.attach import attach
from cortado.parts.forms.codebook import Codebook
from cortado.parts.forms.learned_step import LearnedStep
from cortado.parts.forms.masked import Masked
from cortado.parts.forms.quantized import Quantized

FILES = 100_000
HANG_S = 2.0
"""Processor time: what a busy machine makes of it says nothing."""
SILENCE_S = 120.0
BATCH = 5_000
SEED = 7


def original() -> nn.Module:
    """A tiny network with a kernel, a norm, and two matrices."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv1d(2, 3, 3), nn.BatchNorm1d(3), nn.Flatten(), nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 2)
    ).eval()


def masked(values: Tensor) -> Masked:
    """The larger half, in three shared values."""
    mask = values.abs() >= values.abs().median()
    return Masked(mask, Codebook(torch.tensor([-0.3, 0.2, 0.4]), torch.arange(int(mask.sum())) % 3))


def sound_files() -> list[bytes]:
    """Files with every form, and one of each coder."""
    found = []
    for codec in ("smallest", "bits", "huffman", "rans", "mix", "deep_compression"):
        network = original()
        attach(network[0], "weight", masked(network[0].weight.detach()))
        attach(network[3], "weight", Quantized.of(network[3].weight, 4, "group", 4, symmetric=False))
        attach(network[5], "weight", LearnedStep(network[5].weight.detach(), 0.1))
        attach(network[5], "bias", Quantized.of(network[5].bias, 8))
        found.append(encode(network, original(), codec))
    cut = nn.Sequential(
        nn.Conv1d(2, 2, 3), nn.BatchNorm1d(2), nn.Flatten(), nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 2)
    )
    return [*found, encode(original(), original()), encode(cut, original())]


def mutated(body: bytes, others: list[bytes], dice: random.Random) -> bytes:
    """One to eight changes: bits, bytes, runs, cuts, repeats, pieces of other files; behind the magic mostly."""
    data = bytearray(body)
    for _ in range(dice.choice((1, 1, 1, 2, 3, 8))):
        place = dice.randrange(13 if dice.random() < 0.97 else 0, max(14, len(data)))
        place = min(place, max(0, len(data) - 1))
        way = dice.randrange(7)
        if way == 0 and data:
            data[place] ^= 1 << dice.randrange(8)
        elif way == 1 and data:
            data[place] = dice.choice((0, 1, 127, 128, 255, dice.randrange(256)))
        elif way == 2:
            data[place:place] = dice.randbytes(dice.randrange(1, 6))
        elif way == 3:
            del data[place : place + dice.randrange(1, 9)]
        elif way == 4:
            data[place : place + 9] = b"\xff" * dice.randrange(1, 10)
        elif way == 5:
            data[place:place] = data[place : place + dice.randrange(1, 30)]
        else:
            other = dice.choice(others)
            start = dice.randrange(len(other))
            data[place : place + 20] = other[start : start + dice.randrange(1, 40)]
    return bytes(data)


def child(first: int, count: int) -> None:
    """Try the files `first` .. `first + count`; a line of JSON with the counts, and the number of the file under way."""
    torch.set_num_threads(1)
    sources, network, counts = sound_files(), original(), Counter[str]()
    start_bytes, slowest = peak_bytes(), 0.0
    for number in range(first, first + count):
        dice = random.Random(SEED * 1_000_003 + number)
        source = dice.choice(sources)
        data = mutated(source, sources, dice)
        again = number % 2 == 1
        if again:
            data = data[:-4] + zlib.crc32(data[:-4]).to_bytes(4, "little")
        print(number, flush=True)
        begin = time.process_time()
        counts[outcome(data, network, source, again)] += 1
        slowest = max(slowest, time.process_time() - begin)
        counts["hang"] += time.process_time() - begin > HANG_S
    print(
        json.dumps({**counts, "slowest": slowest, "grown": peak_bytes() - start_bytes, "native": native_state()}),
        flush=True,
    )


def outcome(data: bytes, network: nn.Module, source: bytes, again: bool) -> str:
    """What reading a mutated file comes to."""
    try:
        made = decode(data, network)
    except CortadoError as error:
        return "refused" if again or isinstance(error, BadFile) else "other error"
    except Exception as error:  # noqa: BLE001 - whatever it is, it is counted
        return f"exception {type(error).__name__}"
    if data == source:
        return "untouched"
    return "network" if again and isinstance(made, nn.Module) else "silent"


def peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def run() -> list[dict[str, Any]]:
    """Children read the files in batches, so that a crash or a hang is seen and the rest goes on."""
    counts: Counter[str] = Counter()
    slowest, grown, native, first = 0.0, 0, "unknown", 0
    while first < FILES:
        count = min(BATCH, FILES - first)
        lines, ended = watched(first, count)
        if ended and lines[-1].startswith("{"):
            found = json.loads(lines[-1])
            slowest, grown, native = (
                max(slowest, found.pop("slowest")),
                max(grown, found.pop("grown")),
                found.pop("native"),
            )
            counts.update(found)
            first += count
            continue
        last = int(lines[-1]) if lines and lines[-1].isdigit() else first
        counts["crash" if ended else "hang"] += 1
        first = last + 1
    exceptions = sum(value for name, value in counts.items() if name.startswith("exception"))
    return [
        row(
            "files read", sum(counts.values()) - counts["hang"], "", FILES, "higher", kinds=dict(counts), kernels=native
        ),
        row("crashes of the process", counts["crash"], "", 0),
        row(f"hangs (more than {HANG_S:g} s)", counts["hang"], "", 0),
        row("wrong network loaded without a word (checksum not made again)", counts["silent"], "", 0),
        row("exceptions that are not ours", exceptions, "", 0),
        row("slowest file (processor time)", slowest * 1e3, "ms", HANG_S * 1e3),
        row("memory that reading took at most", grown / 1e6, "MB", 200),
        row("refused", counts["refused"], ""),
        row("read as some network (checksum made again)", counts["network"], ""),
    ]


def keep_last(stream: Any, lines: list[str]) -> None:
    """Read a stream to its end and keep its last two lines in `lines`."""
    for line in stream:
        lines[:] = [*lines[-1:], line.strip()]


def watched(first: int, count: int) -> tuple[list[str], bool]:
    """The last lines of a child, and whether it ended by itself; False when one file kept it for `SILENCE_S`."""
    command = [sys.executable, "-c", f"from bench.fuzz import child; child({first}, {count})"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[1])
    lines: list[str] = []
    reader = threading.Thread(target=keep_last, args=(process.stdout, lines))
    reader.start()
    seen: list[str] = []
    while process.poll() is None:
        reader.join(SILENCE_S)
        if reader.is_alive() and lines == seen:
            process.kill()
            reader.join()
            return lines, False
        seen = list(lines)
    reader.join()
    return lines, True
