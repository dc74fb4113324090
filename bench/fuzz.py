"""fuzz: a hundred thousand mutated files; none may crash the reader, hang it, or pass for another network."""

import json
import random
import subprocess
import sys
import threading
import time
import zlib
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bench.result import row
from cortado.errors import BadFile, CortadoError
from cortado.file.artifact import decode, encode
from cortado.native.build import native_state
from cortado.parts.activations.affine import Affine
from cortado.parts.activations.pact import Pact
from cortado.parts.activations.quantizer import put_quantizer
from cortado.parts.blocks.block import ORIGINAL, Block, stand_in
from cortado.parts.blocks.bypass import Bypass
from cortado.parts.blocks.exit import Exit
from cortado.parts.blocks.experts import Experts
from cortado.parts.blocks.fire_module import FireModule
from cortado.parts.blocks.gate import Gate as Gated
from cortado.parts.blocks.grouped import Grouped
from cortado.parts.blocks.orientation_max import OrientationMax
from cortado.parts.blocks.picked import set_order
from cortado.parts.blocks.ponder import Ponder
from cortado.parts.blocks.pooled_linear import PooledLinear
from cortado.parts.blocks.scale_shift import ScaleShift
from cortado.parts.blocks.shared_norm import SharedNorm
from cortado.parts.blocks.window import window_of
from cortado.parts.forms.attach import attach
from cortado.parts.forms.codebook import Codebook
from cortado.parts.forms.dense import Dense
from cortado.parts.forms.learned_step import LearnedStep
from cortado.parts.forms.masked import Masked
from cortado.parts.forms.masked_latent import MaskedLatent
from cortado.parts.forms.quantized import Quantized
from cortado.parts.forms.transferred import Transferred
from cortado.parts.forms.transforms import ROLL, ROTATE
from tests.file.former_nets import former_net

FILES = 100_000
HANG_S = 2.0
"""Processor time: what a busy machine makes of it says nothing."""
SILENCE_S = 120.0
BATCH = 5_000
SEED = 7
FORMER = Path(__file__).parents[1] / "tests" / "file" / "former"


@dataclass(frozen=True)
class Sound:
    """A file as it was written, and the network it was made from."""

    body: bytes
    network: nn.Module


def original() -> nn.Sequential:
    """A tiny network with a kernel, a norm, and two matrices."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv1d(2, 3, 3), nn.BatchNorm1d(3), nn.Flatten(), nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 2)
    ).eval()


def masked(values: Tensor) -> Masked:
    """The larger half, in three shared values."""
    mask = values.abs() >= values.abs().median()
    return Masked(mask, Codebook(torch.tensor([-0.3, 0.2, 0.4]), torch.arange(int(mask.sum())) % 3))


class Gate(Block):
    """A block that keeps the module of its place, with a factor for each output."""

    arrays = {"inner": ORIGINAL}
    facts = ("channels",)

    def __init__(self, inner: nn.Module, channels: int) -> None:
        super().__init__()
        self.inner, self.gate, self.channels = inner, nn.Linear(channels, channels), channels

    def forward(self, values: Tensor) -> Tensor:
        """Return the kept module's output, scaled."""
        return self.inner(values) * self.gate.bias.mean()


def sound_files() -> list[Sound]:
    """Files with forms, one of each coder; with blocks, activation quantizers, edits; and files of former versions."""
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
    found += [encode(network, original()) for network in (original(), cut, with_blocks(original()))]
    heads = Heads(4).eval()
    with_edits = [encode(with_blocks(Heads(3).eval()), heads), encode(Heads(2).eval(), heads)]
    return (
        [Sound(body, original()) for body in found]
        + [Sound(encode(with_paths(chain()), chain()), chain())]
        + [Sound(encode(transferred(pictured()), pictured()), pictured())]
        + [Sound(encode(with_compact(pictures_net()), pictures_net()), pictures_net())]
        + [Sound(body, heads) for body in with_edits]
        + [Sound((FORMER / f"{name}.cortado").read_bytes(), made) for name, made in former_networks().items()]
    )


def with_blocks(network: nn.Sequential) -> nn.Sequential:
    """The network with a folded norm, a block that keeps its module, a removed module, a masked latent and quantizers."""
    channels = dict(network.named_parameters())["1.weight"].numel()
    stand_in(network, network[1], ScaleShift(channels, 2))
    stand_in(network, network[3], Gate(network[3], 3))
    stand_in(network, network[4], Bypass())
    kept: nn.Module = dict(network.named_modules())["3"]
    values = dict(network.named_parameters())["3.weight"].detach()
    attach(kept, "weight", MaskedLatent(values > 0, LearnedStep(values, 0.1, 4)))
    shared = Affine(0.5, 3, 4)
    put_quantizer(network[0], "input", shared)
    put_quantizer(kept, "output", shared)
    put_quantizer(kept, "input", Pact(1.0, 4))
    return network.eval()


def chain() -> nn.Sequential:
    """A network in which every block of paths that depend on the input finds its place."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(4, 4), nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4)),
        nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 4)), nn.Linear(4, 2),
    ).eval()  # fmt: skip


def with_paths(network: nn.Sequential) -> nn.Module:
    """The chain with a gate, a stage that halts, experts, and two early exits around it all."""
    stand_in(network, network[0], Gated(network[0], 4, 3))
    stand_in(network, network[1], Ponder(network[1], 2, 4))
    stand_in(network, network[2], Experts(network[2], "0", "2", "relu", 3, 1, width=2))
    return Exit(Exit(network, "2", 2, 4, 2), "1", 2, 4, 2).eval()


def pictured() -> nn.Sequential:
    """A network of two convolutions, for filters that are made from others."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Conv2d(4, 8, 3),
        nn.BatchNorm2d(8),
        nn.Flatten(),
        nn.Linear(8, 2),
    ).eval()


def transferred(network: nn.Sequential) -> nn.Sequential:
    """The two convolutions turned, with shared norms, and the base of the second rounded."""
    turned = Transferred(Dense(torch.ones(1, 1, 3, 3)), ROTATE, 4, torch.arange(4), torch.arange(1), (3, 3))
    attach(network[0], "weight", turned)
    rolled = Transferred(Dense(torch.arange(72.0).view(2, 4, 3, 3)), ROLL, 4, torch.arange(8), torch.arange(4), (3, 3))
    attach(network[3], "weight", rolled.map_values(lambda values: Quantized.of(values, 4)))
    for place in (1, 4):
        stand_in(network, network[place], SharedNorm.of(network[place]))
    stand_in(network, network[6], OrientationMax.of(network[6]))
    return network.eval()


def pictures_net() -> nn.Sequential:
    """A network with two convolutions over two axes, and maps that are flattened."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(2, 4, 3, 2, 1, bias=False), nn.ReLU(), nn.Conv2d(4, 6, 3, padding=1), nn.ReLU(), nn.Flatten(),
        nn.Linear(24, 2),
    ).eval()  # fmt: skip


def with_compact(network: nn.Sequential) -> nn.Sequential:
    """The network with compact layers in the places of all that have weights, whose channels are picked by index."""
    first, second = window_of(network[0]), window_of(network[2])
    grouped = Grouped(2, 4, 2, first, False, True, False)
    fire = FireModule(4, 2, 4, 2, second, True, True, True)
    set_order(grouped.before, torch.tensor([1, 0]))
    set_order(fire.after, torch.tensor([2, 3, 0, 1, 5, 4]))
    for place, block in ((0, grouped), (2, fire), (5, PooledLinear(6, 4, 2))):
        stand_in(network, network[place], block)
    return network.eval()


class Heads(nn.Sequential):
    """The tiny network with a number of channels that it keeps, in groups, and a buffer that is not saved."""

    def __init__(self, channels: int) -> None:
        torch.manual_seed(0)
        super().__init__(
            nn.Conv1d(2, channels, 3), nn.BatchNorm1d(channels), nn.GroupNorm(1 if channels % 2 else 2, channels),
            nn.Linear(6, 6), nn.ReLU(), nn.Flatten(), nn.Linear(6 * channels, 2),
        )  # fmt: skip
        self.channels = channels
        self.register_buffer("scale", torch.ones(channels, 1), persistent=False)


def former_networks() -> dict[str, nn.Module]:
    """Names of kept files that former versions wrote, each with its network."""
    facts = json.loads((FORMER / "facts.json").read_text(encoding="utf8"))
    return {name: former_net(one["network"]) for name, one in facts.items()}


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
    sources, counts = sound_files(), Counter[str]()
    bodies = [one.body for one in sources]
    forget_peak()
    start_bytes, slowest = peak_bytes(), 0.0
    for number in range(first, first + count):
        dice = random.Random(SEED * 1_000_003 + number)
        source = dice.choice(sources)
        data = mutated(source.body, bodies, dice)
        again = number % 2 == 1
        if again:
            data = data[:-4] + zlib.crc32(data[:-4]).to_bytes(4, "little")
        print(number, flush=True)
        begin = time.process_time()
        counts[outcome(data, source, again)] += 1
        slowest = max(slowest, time.process_time() - begin)
        counts["hang"] += time.process_time() - begin > HANG_S
    print(
        json.dumps({**counts, "slowest": slowest, "grown": peak_bytes() - start_bytes, "native": native_state()}),
        flush=True,
    )


def outcome(data: bytes, source: Sound, again: bool) -> str:
    """What reading a mutated file comes to."""
    try:
        made = decode(data, source.network, [Gate])
    except CortadoError as error:
        return "refused" if again or isinstance(error, BadFile) else "other error"
    except Exception as error:  # noqa: BLE001 - whatever it is, it is counted
        return f"exception {type(error).__name__}"
    if data == source.body:
        return "untouched"
    return "network" if again and isinstance(made, nn.Module) else "silent"


def peak_bytes() -> int:
    """The most memory that this process has held since `forget_peak`; what getrusage says includes that of its parent."""
    lines = Path("/proc/self/status").read_text(encoding="utf8").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


def forget_peak() -> None:
    """Let the peak be what the process holds now."""
    Path("/proc/self/clear_refs").write_text("5", encoding="utf8")


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
