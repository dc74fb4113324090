"""kernels: layers with sparse and codebook weights as Cortado's own operators in ONNX Runtime, against the same in floats.

Chains of four layers with ReLU, random weights, one sample, one thread. Files and networks take turns; times are those of the
processor, so that a busy machine changes them little, and a figure is the median of the rounds' ratios. Bars are for processors
with AVX-512 and VNNI.
"""

import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from bench.result import row
from cortado.lowering.graph import exported
from cortado.lowering.lower import lowered
from cortado.machine import instruction_sets
from cortado.native.product_layouts import ProductArrays, faster_sparse, smaller_codebook
from cortado.runtimes.measured import bound
from cortado.runtimes.onnx_file import write_onnx
from cortado.runtimes.onnxruntime import Onnxruntime
from cortado.runtimes.own_products import library, own_layers_in
from cortado.runtimes.torch_eager import TorchSession

LAYERS, WIDTH, CHANNELS, SIDE = 4, 4096, 256, 14
ROUNDS, SHORTEST_S = 15, 0.02
TORCH, FLOATS = "torch fp32", "ONNX Runtime fp32"

Call = Callable[[], Any]


@dataclass(frozen=True)
class Variant:
    """Weights that our operators multiply by: what is done to them, and the bar: so many times faster than `against`."""

    name: str
    change: Callable[[Tensor, torch.Generator], Tensor]
    arrays: Callable[[np.ndarray], ProductArrays | str]
    against: str
    bar: float
    rounds_inputs: bool = False


def sparse(zeros: float, block: int, against: str, bar: float) -> Variant:
    """Return weights with a share of zeros, in blocks of so many rows by one column."""

    def change(weight: Tensor, generator: torch.Generator) -> Tensor:
        kept = torch.rand(-(-len(weight) // block), *weight.shape[1:], generator=generator) >= zeros
        return weight * kept.repeat_interleave(block, 0)[: len(weight)]

    blocks = f" in blocks of {block} x 1" if block > 1 else ""
    return Variant(f"{zeros:.0%} zeros{blocks}", change, faster_sparse, against, bar)


def codebook(bits: int, rounds_inputs: bool, against: str, bar: float) -> Variant:
    """Return weights with 2 ** bits free values."""

    def change(weight: Tensor, generator: torch.Generator) -> Tensor:
        values = torch.randn(2**bits, generator=generator) * weight.std()
        return values[torch.randint(2**bits, weight.shape, generator=generator)]

    how = "8-bit values and inputs" if rounds_inputs else "exact"
    return Variant(f"codebook of {2**bits} values, {how}", change, smaller_codebook, against, bar, rounds_inputs)


LINEAR = (
    sparse(0.9, 1, TORCH, 4.5), sparse(0.95, 1, TORCH, 9.0), sparse(0.9, 16, TORCH, 10.0), sparse(0.95, 16, TORCH, 15.0),
    codebook(4, True, TORCH, 8.0), codebook(2, True, TORCH, 10.0),
    codebook(4, False, FLOATS, 4.5), codebook(2, False, FLOATS, 6.0),
)  # fmt: skip
CONVOLUTION = (sparse(0.9, 1, FLOATS, 2.7), sparse(0.95, 1, FLOATS, 4.7))


def run() -> list[dict[str, Any]]:
    """Linear layers, and convolutions of 3 x 3."""
    kernel = f"3 x 3 convolution, {CHANNELS} channels, {SIDE} x {SIDE}"
    return [
        *rows_of(f"linear {WIDTH}", lambda: nn.Linear(WIDTH, WIDTH), (WIDTH,), LINEAR),
        *rows_of(kernel, lambda: nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1), (CHANNELS, SIDE, SIDE), CONVOLUTION),
    ]


def rows_of(
    what: str, make: Callable[[], nn.Module], shape: tuple[int, ...], variants: tuple[Variant, ...]
) -> list[Any]:
    """Return a row for each variant of a chain of such layers."""
    inputs, floats = torch.randn(1, *shape, generator=torch.Generator().manual_seed(1)), chain(make)
    with tempfile.TemporaryDirectory() as folder:
        calls = {
            TORCH: bound(TorchSession(floats, (), 1), (inputs,)),
            FLOATS: file_call(floats, {}, inputs, Path(folder)),
        }
        sizes = {}
        for number, variant in enumerate(variants):
            layers, own = changed(chain(make), variant), Path(folder) / str(number)
            own.mkdir()
            calls[variant.name] = file_call(*layers, inputs, own, variant.rounds_inputs)
            sizes[variant.name] = sum(arrays.size_bytes() for arrays in layers[1].values())
        taken = processor_times(calls)
    return [ratio_row(what, variant, taken, sizes[variant.name]) for variant in variants]


def chain(make: Callable[[], nn.Module]) -> nn.Sequential:
    """Return the layers with the fresh weights of seed 0."""
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(0)
        return nn.Sequential(*(layer for _ in range(LAYERS) for layer in (make(), nn.ReLU()))).eval()


def changed(network: nn.Sequential, variant: Variant) -> tuple[nn.Sequential, dict[str, ProductArrays]]:
    """Return the network with the variant's weights, and their arrays by layer."""
    generator, layers = torch.Generator().manual_seed(2), {}
    for path, layer in network.named_children():
        if isinstance(layer, (nn.Linear, nn.Conv2d)):
            layer.weight.data = variant.change(layer.weight.detach(), generator)
            arrays = variant.arrays(layer.weight.detach().numpy())
            assert not isinstance(arrays, str), arrays
            layers[path] = arrays
    return network, layers


def file_call(
    network: nn.Module, layers: dict[str, ProductArrays], inputs: Tensor, folder: Path, rounds_inputs: bool = False
) -> Call:
    """Return a call of the network's .onnx file, with our operators for `layers`, after one comparison with torch."""
    low = lowered(network, inputs)
    file = write_onnx(low, exported(low, inputs), folder / "net.onnx", "onnxruntime", 4, rounds_inputs, products=layers)
    if layers:
        made = library(folder)
        assert isinstance(made, Path) and set(own_layers_in(file)) == set(layers), made
    call = bound(Onnxruntime().load(file, 1), (inputs,))
    with torch.no_grad():
        wanted = network(inputs)
    assert (call() - wanted).norm() <= (0.1 if rounds_inputs else 1e-4) * wanted.norm()
    return call


def processor_times(calls: dict[str, Call]) -> dict[str, np.ndarray]:
    """Return the processor's seconds per call, (rounds,) each; calls take turns, short ones several times in a row."""
    repeats = {}
    for name, call in calls.items():
        call()
        start = time.process_time()
        call()
        repeats[name] = max(1, round(SHORTEST_S / max(time.process_time() - start, 1e-6)))
    taken: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(ROUNDS):
        for name, call in calls.items():
            start = time.process_time()
            for _ in range(repeats[name]):
                call()
            taken[name].append((time.process_time() - start) / repeats[name])
    return {name: np.array(seconds) for name, seconds in taken.items()}


def ratio_row(what: str, variant: Variant, taken: dict[str, np.ndarray], size_bytes: int) -> dict[str, Any]:
    """Return the row of one variant, with its ratio to both others."""
    ratios = {name: taken[name] / taken[variant.name] for name in (TORCH, FLOATS)}
    low, middle, high = np.quantile(ratios[variant.against], (0.25, 0.5, 0.75))
    able = {"AVX-512", "VNNI"} <= set(instruction_sets())
    return row(
        f"{what}, {variant.name}: times faster than {variant.against} (quartiles {low:.2f} to {high:.2f})",
        float(middle), "x", variant.bar if able else None, "higher",
        over={name: float(np.median(ratio)) for name, ratio in ratios.items()}, ms=float(1000 * np.median(taken[variant.name])),
        size_bytes=size_bytes, instruction_sets=list(instruction_sets()), version=Onnxruntime().version(),
    )  # fmt: skip
