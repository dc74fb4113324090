"""Execution: for what share of the samples each part of a network runs, where its paths depend on the input."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from cortado.network.graph.choices import choice_names, choices_in
from cortado.network.graph.graph import Graph
from cortado.parts.blocks.rows import ChooseRows
from cortado.running.call import call
from cortado.running.devices import own_device
from cortado.running.eval_mode import eval_mode
from cortado.running.trees import sample_count, to_device

Runs = dict[int, Tensor]
"""By the id of a choice of rows or a layer: the share of each sample's rows that runs, (samples,)."""


@dataclass(frozen=True)
class Spread:
    """Multiply-adds of one sample: of the mean sample, the median, the 99th percentile, and the most of all measured."""

    expected: float
    p50: float
    p99: float
    most: float


def rows_run(network: nn.Module, batches: Iterable[Any]) -> Runs:
    """Return the share of each sample's rows for which each choice of a network ran what it chooses, in eval mode.

    `batches` yields inputs. A choice has a row for each sample, or as many for each, such as one for each token.
    """
    found: dict[int, list[Tensor]] = {}
    choices = [module for module in network.modules() if isinstance(module, ChooseRows)]
    with eval_mode(network):
        for inputs in batches if choices else ():
            for choice in choices:
                choice.ran.rows = None
            call(network, to_device(inputs, own_device(network)))
            for choice in choices:
                if choice.ran.rows is not None:
                    found.setdefault(id(choice), []).append(mean_of_rows(choice.ran.rows, sample_count(inputs)))
    return {key: torch.cat(parts) for key, parts in found.items()}


def mean_of_rows(rows: Tensor, samples: int) -> Tensor:
    """Return (samples,): the mean of each sample's rows; of all rows where they are no multiple of the samples."""
    values = rows.float().cpu()
    even = len(values) % max(samples, 1) == 0 and len(values)
    return values.reshape(samples, -1).mean(1) if even else values.mean().expand(samples)


def execution_shares(network: nn.Module, batches: Iterable[Any]) -> dict[str, float]:
    """Return the share of the rows for which each choice ran what it chooses, by what that is called."""
    ran = rows_run(network, batches)
    return {name: float(ran[id(choice)].mean()) for name, choice in choice_names(network).items() if id(choice) in ran}


def inside_of(graph: Graph, ran: Runs) -> Runs:
    """Return the share of each sample's rows that runs each module inside choices: the product over the choices around it."""
    found: Runs = {}
    for choice in choices_in(graph):
        if id(choice.module) in ran:
            for layer in choice.inside:
                found[layer] = found.get(layer, torch.ones(())) * ran[id(choice.module)]
    return found


def multiply_adds_of_samples(costs: Mapping[int, float], inside: Runs) -> Tensor:
    """Return (samples,): the multiply-adds of each sample, from the cost of each layer, by id, and what runs of it."""
    total = sum((cost * inside[layer].double() for layer, cost in costs.items() if layer in inside), torch.zeros(()))
    return total + sum(cost for layer, cost in costs.items() if layer not in inside)


def spread_of(values: Tensor) -> Spread:
    """Return the mean, the quantiles and the largest of one number per sample."""
    middle, late = torch.quantile(values.double(), torch.tensor([0.5, 0.99], dtype=torch.double)).tolist()
    return Spread(float(values.double().mean()), middle, late, float(values.max()))
