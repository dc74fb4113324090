"""fusion: layers with their activation in one, siblings as one product - equal outputs, and time before and after."""

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bench.result import row
from bench.vertical import fuse_activations
from cortado.lowering.graph import graph_of
from cortado.lowering.horizontal import merge_siblings
from cortado.lowering.lower import lowered, outputs
from cortado.nets.catalog import by_name
from cortado.network.coupling.answers import difference
from cortado.runtimes.onnxruntime import Onnxruntime, OnnxSession
from cortado.runtimes.timing import SPREAD, Call, interleaved, is_noisy, speed_ratio
from cortado.runtimes.torch_eager import TorchSession

NETWORKS = {"squeezenet": (3, 227, 227), "googlenet": (3, 224, 224), "resnet_20": (3, 32, 32)}
BATCHES = {"squeezenet": (1,), "googlenet": (1,), "resnet_20": (1, 32)}
SECONDS = 25.0
EQUAL = 1e-5


def run() -> list[dict[str, Any]]:
    """All rows."""
    rows = []
    for name, shape in NETWORKS.items():
        network = made(name)
        made_of = variants(network, torch.randn(2, *shape, generator=torch.Generator().manual_seed(0)))
        rows += equal_rows(name, network, made_of, shape)
        for batch in BATCHES[name]:
            inputs = torch.randn(batch, *shape, generator=torch.Generator().manual_seed(1))
            rows += eager_rows(name, network, made_of, inputs)
            rows += onnx_rows(name, made_of, inputs)
    return rows


def made(name: str) -> nn.Module:
    """The network with the weights it starts from; batch norms as if they had seen something."""
    torch.manual_seed(0)
    network = by_name(name)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.2)
            module.running_var.uniform_(0.5, 1.5)
            module.weight.data.uniform_(0.5, 1.5)
            module.bias.data.normal_(0, 0.2)
    return network.eval()


def variants(network: nn.Module, example: Tensor) -> dict[str, nn.Module]:
    """The network rewritten: norms folded; besides that fused vertically, horizontally, both ways."""
    folded = lowered(network, example)
    found: dict[str, nn.Module] = {"folded": folded}
    vertical = graph_of(folded, example)
    fuse_activations(vertical)
    found["vertical"] = vertical
    graph = graph_of(folded, example)
    if merge_siblings(graph):
        found["horizontal"] = graph
    if "horizontal" in found:
        both = graph_of(folded, example)
        merge_siblings(both)
        fuse_activations(both)
        found["horizontal and vertical"] = both
    return found


def equal_rows(
    name: str, network: nn.Module, made_of: dict[str, nn.Module], shape: tuple[int, ...]
) -> list[dict[str, Any]]:
    """How far each variant is from the original network, as a share of the largest output."""
    inputs = torch.randn(3, *shape, generator=torch.Generator().manual_seed(2))
    wanted = outputs(network, inputs)
    return [
        row(
            f"{name}, {how}: largest difference of outputs",
            difference(outputs(one, inputs), wanted),
            "of the largest",
            EQUAL,
        )
        for how, one in made_of.items()
    ]


def eager_rows(name: str, network: nn.Module, made_of: dict[str, nn.Module], inputs: Tensor) -> list[dict[str, Any]]:
    """Times in torch eager, all in turns, the original network twice."""
    calls = {how: session_call(TorchSession(one, (), torch.get_num_threads()), inputs) for how, one in made_of.items()}
    original = session_call(TorchSession(network, (), torch.get_num_threads()), inputs)
    return ratio_rows(f"{name}, batch {len(inputs)}, torch eager", original, calls)


def onnx_rows(name: str, made_of: dict[str, nn.Module], inputs: Tensor) -> list[dict[str, Any]]:
    """Times in ONNX Runtime: vertical fusion is its own work, done at loading, so its optimizations are off in one session."""
    threads = torch.get_num_threads()
    with tempfile.TemporaryDirectory() as folder:
        files = {}
        for place, (how, one) in enumerate(made_of.items()):
            if "vertical" in how:
                continue
            own = Path(folder) / str(place)
            own.mkdir()
            files[how] = Onnxruntime().lower(one, torch.cat([inputs, inputs])[:2], own)
        original = session_call(OnnxSession(files["folded"], threads), inputs)
        calls = {
            how: session_call(OnnxSession(file, threads), inputs) for how, file in files.items() if how != "folded"
        }
        calls["its own fusions off"] = unfused_call(files["folded"], threads, inputs)
        return ratio_rows(f"{name}, batch {len(inputs)}, ONNX Runtime", original, calls)


def unfused_call(file: Path, threads: int, inputs: Tensor) -> Call:
    """A session with all of its graph optimizations off."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.add_session_config_entry("session.force_spinning_stop", "1")
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    given = {session.get_inputs()[0].name: inputs.numpy()}
    return lambda: session.run(None, given)


def session_call(session: Callable[[Tensor], Any], inputs: Tensor) -> Call:
    """A call of the session on these inputs."""
    return lambda: session(inputs)


def ratio_rows(what: str, original: Call, calls: dict[str, Call]) -> list[dict[str, Any]]:
    """One row for the original network with its A/A ratio, and one ratio over it for each variant."""
    taken = interleaved([original, *calls.values(), original], SECONDS)
    again = speed_ratio(taken[:, 0], taken[:, -1])
    noisy = is_noisy(again)
    rows = [
        row(f"{what}: before", float(torch.tensor(taken[:, 0]).median()), "ms", rounds=len(taken), noisy=noisy),
        row(f"{what}: before against itself (A/A)", again.median, "x", low=again.low, high=again.high, noisy=noisy),
    ]
    for place, how in enumerate(calls, 1):
        found = speed_ratio(taken[:, 0], taken[:, place])
        label = f"{what}: {how}, times faster (quartiles {found.low:.2f} to {found.high:.2f})"
        wide = noisy or found.high - found.low > SPREAD * found.median
        rows.append(row(label, found.median, "x", better="higher", low=found.low, high=found.high, noisy=wide))
    return rows
