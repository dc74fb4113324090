"""Torch-Pruning's stock magnitude pruner (Fang et al., 2023) on one network of the zoo, asked what Cortado is asked.

It is used as its own examples use it: a ratio for every layer, the layers that make the outputs left out, the number of
heads told where one layer makes queries, keys and values, widths rounded to the heads of nn.MultiheadAttention, timm's
attention unfused, and the attributes repaired afterwards that its examples repair.
"""

import copy
import time
import warnings
from typing import Any

import torch
from torch import Tensor, nn

from bench.rivals.optional import torch_pruning
from bench.zoo.entry import Entry
from bench.zoo.law import FRESH, KEEP, difference, outputs, parameters, said

QKV = ("qkv", "qkv_proj")


def checked(entry: Entry) -> dict[str, Any]:
    """Whether the network runs after the cut, with how many parameters, and whether it computes what is computed when
    the entries that were cut are zero instead."""
    warnings.simplefilter("ignore")
    network, example = unfused(entry.network()), entry.example()
    original, heads = copy.deepcopy(network), heads_of(network)
    start, processor = time.perf_counter(), time.process_time()
    pruner = pruner_of(network, example, heads)
    pruner.step()
    repair(network, heads)
    found: dict[str, Any] = {
        "cut_s": round(time.perf_counter() - start, 3),
        "cut_processor_s": round(time.process_time() - processor, 3),
        "parameters_before": parameters(original),
        "parameters": parameters(network),
    }
    fresh = entry.example(FRESH)
    answer = outputs(network, fresh)
    found["runs"] = True
    try:
        zero = outputs(zeroed(original, network, example, pruner.pruning_history()), fresh)
    except Exception as error:  # noqa: BLE001 - what was cut cannot be told, so that exactness is unknown
        return {**found, "unknown": said(error)}
    return {**found, "difference": difference(answer, zero), "control": difference(outputs(original, fresh), zero)}


def pruner_of(network: nn.Module, example: Any, heads: dict[nn.Module, int]) -> Any:
    """The pruner, with the same share kept of every layer."""
    tp = torch_pruning()
    stock = [module.num_heads for module in network.modules() if isinstance(module, nn.MultiheadAttention)]
    return tp.pruner.MagnitudePruner(
        network,
        example,
        importance=tp.importance.MagnitudeImportance(p=2),
        pruning_ratio=1 - KEEP,
        ignored_layers=last_layers(network, example),
        num_heads=heads,
        round_to=max(stock) if stock else None,
    )


def last_layers(network: nn.Module, example: Any) -> list[nn.Module]:
    """Linear and convolution layers as wide as an output of the network; the last layer where there is none."""
    widths = {size for value in outputs(network, example) for size in (value.shape[-1], value.shape[1])}
    layers: list[Any] = [m for m in network.modules() if isinstance(m, (nn.Linear, nn.modules.conv._ConvNd))]
    found = [m for m in layers if (m.out_features if isinstance(m, nn.Linear) else m.out_channels) in widths]
    return found or layers[-1:]


def unfused(network: nn.Module) -> nn.Module:
    """Attention written out, where timm's modules have a switch for it."""
    for module in network.modules():
        if "fused_attn" in module.__dict__:
            module.__dict__["fused_attn"] = False
    return network


def heads_of(network: nn.Module) -> dict[nn.Module, int]:
    """Layers that make queries, keys and values at once, and their heads."""
    found = {}
    for module in network.modules():
        for name in QKV:
            layer = module._modules.get(name)
            if isinstance(layer, nn.Linear) and type(module.__dict__.get("num_heads")) is int:
                found[layer] = module.__dict__["num_heads"]
    return found


def repair(network: nn.Module, heads: dict[nn.Module, int]) -> None:
    """What its examples set by hand after a cut: sizes of heads, and the width of torchvision's Vision Transformer."""
    for module in network.modules():
        own = module.__dict__
        for layer in filter(None, (module._modules.get(name) for name in QKV)):
            if layer in heads:
                own["num_heads"] = heads[layer]
                own["head_dim"] = layer.out_features // (3 * heads[layer])
                if "attn_dim" in own:
                    own["attn_dim"] = own["num_heads"] * own["head_dim"]
        if type(own.get("hidden_dim")) is int and isinstance(module._modules.get("conv_proj"), nn.Conv2d):
            own["hidden_dim"] = module._modules["conv_proj"].out_channels


def zeroed(original: nn.Module, cut: nn.Module, example: Any, history: Any) -> nn.Module:
    """The uncut network with every entry zero that the pruner removed.

    Which ones is read off by cutting a copy again, by the pruner's own history, whose entries are their own numbers.
    """
    marked = marked_copy(original, example, history)
    duplicate = copy.deepcopy(original)
    left, after = dict(all_tensors(marked)), dict(all_tensors(cut))
    for name, value in all_tensors(duplicate):
        if left[name].shape != after[name].shape:
            raise ValueError(f"{name} is {tuple(after[name].shape)} and {tuple(left[name].shape)} by the history")
        if value.is_floating_point() and value.dim():
            stays = torch.zeros(value.numel(), dtype=torch.bool)
            stays[left[name].detach().reshape(-1).long()] = True
            value.data.mul_(stays.view(value.shape))
    return duplicate


def marked_copy(original: nn.Module, example: Any, history: Any) -> nn.Module:
    """A copy cut by a history, that holds the numbers of the entries that are left."""
    copied = copy.deepcopy(original).double()
    doubled = torch.utils._pytree.tree_map(
        lambda value: value.double() if isinstance(value, Tensor) and value.is_floating_point() else value, example
    )
    graph = torch_pruning().DependencyGraph().build_dependency(copied, doubled)
    with torch.no_grad():
        for _, value in all_tensors(copied):
            if value.is_floating_point() and value.dim():
                value.copy_(torch.arange(value.numel(), dtype=torch.float64).view(value.shape))
    graph.load_pruning_history(history)
    return copied


def all_tensors(network: nn.Module) -> list[tuple[str, Tensor]]:
    """Parameters and buffers by every name they have."""
    return [
        *network.named_parameters(remove_duplicate=False),
        *network.named_buffers(remove_duplicate=False),
    ]
