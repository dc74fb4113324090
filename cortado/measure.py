"""Measure: what a network scores on data, sample by sample."""

from typing import Any

import torch
from torch import Tensor, nn

from cortado.errors import BadNetwork, BadTask
from cortado.evaluating import evaluating
from cortado.task import Data, Score, to_device


def outputs_of(network: nn.Module, inputs: Any) -> Any:
    """A network's outputs for a tensor, or for a tuple of tensors as its arguments."""
    return network(*inputs) if isinstance(inputs, tuple) else network(inputs)


def scores(network: nn.Module, data: Data, score: Score, batch: int = 256, plain: nn.Module | None = None) -> Tensor:
    """One score a sample (N,), in eval mode, without gradients; modes are restored.

    Raises BadNetwork when the network cannot take the data, gives NaN, or infinite values that `plain` does not give;
    BadTask when the score does not fit.
    """
    device = next((p.device for p in network.parameters()), torch.device("cpu"))
    found = []
    with evaluating(network):
        for inputs, targets in data.batches(batch):
            outputs = run(network, to_device(inputs, device), plain)
            each = scored(score, outputs, targets.to(device))
            check_rows(score, each, len(targets))
            found.append(each.detach().float().cpu())
    return score.shares(torch.cat(found))


def check_rows(score: Score, each: Tensor, samples: int) -> None:
    """Raises BadTask unless the score gave one number a sample, or one row where it makes its own whole."""
    wanted = 1 if score.whole is None else 2
    if each.dim() != wanted or len(each) != samples:
        what = "number" if score.whole is None else "row of numbers"
        raise BadTask(
            f"task: the score {score.name!r} must give one {what} a sample, "
            f"got shape {tuple(each.shape)} for {samples} samples."
        )


def run(network: nn.Module, inputs: Any, plain: nn.Module | None = None) -> Any:
    """A network's outputs.  Infinite ones, as a mask gives them, are sound where `plain`, in eval mode, has the same.

    Without `plain` each sample has to keep a finite one. Raises BadNetwork.
    """
    try:
        outputs = outputs_of(network, inputs)
    except (RuntimeError, TypeError, ValueError, IndexError) as error:
        shapes = [tuple(part.shape) for part in (inputs if isinstance(inputs, tuple) else (inputs,))]
        raise BadNetwork(
            f"network: it cannot take inputs of shape {shapes} ({error}). Check the task's data and prepare."
        ) from error
    if isinstance(outputs, Tensor) and not bool(torch.isfinite(outputs).all()):
        check_infinite(outputs, None if plain is None else outputs_of(plain, inputs))
    return outputs


def check_infinite(outputs: Tensor, wanted: Tensor | None) -> None:
    """Raises BadNetwork unless all outputs that are not finite are infinite as those wanted are."""
    infinite = outputs.isinf()
    lost = infinite.reshape(outputs.shape[0] if outputs.dim() else 1, -1).all(1)
    if bool(outputs.isnan().any()) or (wanted is None and bool(lost.any())):
        raise BadNetwork("network: its outputs hold NaN or infinite values. Check the weights and the inputs' scaling.")
    if wanted is not None and not torch.equal(outputs[infinite], wanted[infinite]):
        raise BadNetwork(
            "network: its outputs hold infinite values that those of the plain network do not hold at the same places. "
            "Look for weights that grew without bounds: lower the rate, or compress less."
        )


def scored(score: Score, outputs: Any, targets: Tensor) -> Tensor:
    try:
        return score.each(outputs, targets)
    except (RuntimeError, TypeError, ValueError, LookupError, AttributeError) as error:
        raise BadTask(
            f"task: the score {score.name!r} cannot take outputs of {type(outputs).__name__} with targets of shape "
            f"{tuple(targets.shape)} ({error}). Give the task a score of its own: Score(each=...)."
        ) from error


def mean_score(network: nn.Module, data: Data, score: Score, plain: nn.Module | None = None) -> float:
    """The score of a network on data, in the score's unit; `plain` as in `scores`."""
    return float(scores(network, data, score, plain=plain).double().mean()) * score.scale
