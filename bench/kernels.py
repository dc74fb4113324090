"""kernels: layers that runtimes have fast products for, against the same layers in floats.

Chains of four layers with ReLU, random weights, one sample, one thread. Files and networks take turns; times are those of the
processor, so that a busy machine changes them little, and a figure is the median of the rounds' ratios. Sparse weights and free
codebooks are Cortado's own operators in ONNX Runtime, whose bars are for processors with AVX-512 and VNNI; signs are binary
convolutions in OpenVINO, whose bars ask for VPOPCNTDQ too. The bars of 1 are where a file begins to use a sparse product.
"""

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bench.processor import Call, faster_row, processor_times
from cortado.engine.compress import compress
from cortado.lowering.lower import lowered
from cortado.machine import instruction_sets
from cortado.network.finalize import finalized_copy
from cortado.parts.activations.quantizer import put_quantizer
from cortado.parts.activations.sign import Sign
from cortado.parts.forms.attach import attach
from cortado.parts.forms.binary import Binary
from cortado.parts.forms.codebook import Codebook
from cortado.parts.forms.dense import Dense
from cortado.parts.forms.form import Form
from cortado.parts.forms.quantized import Quantized
from cortado.runtimes.measured import bound
from cortado.runtimes.onnxruntime import Onnxruntime
from cortado.runtimes.openvino import Openvino
from cortado.runtimes.runtime import Runtime
from cortado.runtimes.torch_eager import TorchSession
from cortado.task.data import Data
from cortado.task.metric import Metric
from cortado.task.outputs.numbers import Numbers
from cortado.task.task import Task

LAYERS, WIDTH, NARROW, CHANNELS, SIDE = 4, 4096, 512, 256, 14
TORCH, ORT, OPENVINO, INTEGERS = "torch fp32", "ONNX Runtime fp32", "OpenVINO fp32", "OpenVINO int8"
ORT_NEEDS, SIGNS_NEED = {"AVX-512", "VNNI"}, {"AVX-512", "VPOPCNTDQ"}

NOTHING = Metric("size", "", lambda outputs, _: -outputs.flatten(1).square().mean(1), True, 1.0)

Change = Callable[[Tensor, torch.Generator], Form]


@dataclass(frozen=True)
class Variant:
    """Weights that a runtime has a fast product for, and the bars: so many times faster than each of `over`."""

    name: str
    change: Change
    over: dict[str, float]
    kernel: str
    runtime: Runtime
    signs: bool = False


def sparse(zeros: float, block: int, against: str, bar: float) -> Variant:
    """Return weights with a share of zeros, in blocks of so many rows by one column."""

    def change(weight: Tensor, generator: torch.Generator) -> Form:
        kept = torch.rand(-(-len(weight) // block), *weight.shape[1:], generator=generator) >= zeros
        return Dense(weight * kept.repeat_interleave(block, 0)[: len(weight)])

    blocks = f" in blocks of {block} x 1" if block > 1 else ""
    return Variant(f"{zeros:.0%} zeros{blocks}", change, {against: bar}, "sparse", Onnxruntime())


def codebook(bits: int, rounds_inputs: bool, against: str, bar: float) -> Variant:
    """Return weights with 2 ** bits free values."""

    def change(weight: Tensor, generator: torch.Generator) -> Form:
        values = torch.randn(2**bits, generator=generator) * weight.std()
        return Codebook(values, torch.randint(2**bits, weight.shape, generator=generator).to(torch.uint8))

    how = "8-bit values and inputs" if rounds_inputs else "exact"
    runtime = Onnxruntime(rounds_inputs)
    return Variant(f"codebook of {2**bits} values, {how}", change, {against: bar}, "codebook", runtime)


def signs(weight: Tensor, generator: torch.Generator) -> Form:
    """Return the signs of weights with a scale a row."""
    return Binary(weight, "channel")


def ternary(weight: Tensor, generator: torch.Generator) -> Form:
    """Return weights of -1, 0 and 1 with a scale a row."""
    codes = torch.randint(-1, 2, weight.shape, generator=generator).to(torch.int8)
    return Quantized(codes, torch.full((len(weight),), float(weight.std())), None, "channel")


LINEAR = (
    sparse(0.9, 1, TORCH, 4.5), sparse(0.95, 1, TORCH, 9.0), sparse(0.9, 16, TORCH, 10.0), sparse(0.95, 16, TORCH, 15.0),
    codebook(4, True, TORCH, 8.0), codebook(2, True, TORCH, 10.0), codebook(4, False, ORT, 4.5), codebook(2, False, ORT, 6.0),
    sparse(0.8, 1, ORT, 1.0), sparse(0.5, 16, ORT, 1.0),
    Variant("ternary, 8-bit inputs", ternary, {OPENVINO: 7.0}, "packed", Openvino(rounds_inputs=True)),
    Variant("signs alone, 8-bit inputs", signs, {OPENVINO: 7.0}, "packed", Openvino(rounds_inputs=True)),
    Variant("signs of weights and inputs", signs, {OPENVINO: 40.0}, "binary", Openvino(), signs=True),
)  # fmt: skip
SMALL = (sparse(0.9, 1, ORT, 1.0),)
CONVOLUTION = (
    sparse(0.9, 1, ORT, 2.7), sparse(0.95, 1, ORT, 4.7), sparse(0.7, 1, ORT, 1.0),
    Variant(
        "signs of weights and inputs", signs, {TORCH: 15.0, OPENVINO: 12.0, INTEGERS: 3.5}, "binary", Openvino(), signs=True
    ),
)  # fmt: skip


def run() -> list[dict[str, Any]]:
    """Linear layers, and convolutions of 3 x 3."""
    torch.set_num_threads(1)
    kernel = f"3 x 3 convolution, {CHANNELS} channels, {SIDE} x {SIDE}"
    return [
        *rows_of(f"linear {WIDTH}", lambda: nn.Linear(WIDTH, WIDTH), (WIDTH,), LINEAR),
        *rows_of(f"linear {NARROW}", lambda: nn.Linear(NARROW, NARROW), (NARROW,), SMALL),
        *rows_of(kernel, lambda: nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1), (CHANNELS, SIDE, SIDE), CONVOLUTION),
    ]


def rows_of(
    what: str, make: Callable[[], nn.Module], shape: tuple[int, ...], variants: tuple[Variant, ...]
) -> list[dict[str, Any]]:
    """Return the rows of each variant of a chain of such layers."""
    inputs, floats = torch.randn(1, *shape, generator=torch.Generator().manual_seed(1)), chain(make)
    with tempfile.TemporaryDirectory() as folder:
        calls: dict[str, Call] = {
            TORCH: bound(TorchSession(floats, (), 1), (inputs,)),
            ORT: file_call(floats, inputs, Onnxruntime(), Path(folder) / "ort"),
            OPENVINO: file_call(floats, inputs, Openvino(), Path(folder) / "openvino"),
            INTEGERS: file_call(in_integers(chain(make), inputs), inputs, Openvino(), Path(folder) / "int8", "int8"),
        }
        for number, one in enumerate(variants):
            calls[one.name] = file_call(
                changed(chain(make), one), inputs, one.runtime, Path(folder) / str(number), one.kernel
            )
        taken = processor_times(calls)
    return [
        faster_row(
            f"{what}, {one.name}: times faster than {against}", taken, one.name, against, bar if able(one) else None,
            version=one.runtime.version(),
        )
        for one in variants for against, bar in one.over.items()
    ]  # fmt: skip


def able(variant: Variant) -> bool:
    """Return whether this processor has the instructions that the bars are for."""
    return (SIGNS_NEED if variant.signs else ORT_NEEDS) <= set(instruction_sets())


def chain(make: Callable[[], nn.Module]) -> nn.Sequential:
    """Return the layers with the fresh weights of seed 0."""
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(0)
        return nn.Sequential(*(layer for _ in range(LAYERS) for layer in (make(), nn.ReLU()))).eval()


def changed(network: nn.Sequential, variant: Variant) -> nn.Module:
    """Return the network with the variant's weights, finalized."""
    generator = torch.Generator().manual_seed(2)
    for layer in network:
        if not isinstance(layer, nn.ReLU):
            attach(layer, "weight", variant.change(layer.weight.detach(), generator))
            if variant.signs:
                put_quantizer(layer, "input", Sign())
    return finalized_copy(network)


def in_integers(network: nn.Sequential, inputs: Tensor) -> nn.Module:
    """Return the network with 8-bit weights and activations."""
    data = Data(inputs.expand(8, *inputs.shape[1:]).clone(), torch.zeros(8, dtype=torch.int64))
    task = Task(data, data, data, trial=True, device="cpu", metric=NOTHING, outputs=Numbers())
    return compress(network, task, "quantize/weights bits=8 | quantize/activations")[0]


def file_call(network: nn.Module, inputs: Tensor, runtime: Runtime, folder: Path, kernel: str = "") -> Call:
    """Return a call of the network's file; every layer has to have the kernel, and outputs those of torch."""
    folder.mkdir()
    file = runtime.lower(lowered(network, inputs), inputs, folder)
    found = [ran.kernel for ran in (runtime.placed(file) or {}).values()]
    assert not kernel or found.count(kernel) >= LAYERS, found
    call = bound(runtime.load(file, 1), (inputs,))
    with torch.no_grad():
        wanted = network(inputs)
    rounded = runtime.rounds_inputs or kernel == "int8"
    assert (call() - wanted).norm() <= (0.1 if rounded else 1e-4) * wanted.norm()
    return call
