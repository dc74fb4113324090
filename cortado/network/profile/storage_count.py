"""Storage count: the tensors of modules, each parameter, form and buffer counted once per network."""

from dataclasses import dataclass

import torch
from torch import nn

from cortado.parts.forms.attach import attached_names, form_of


@dataclass(frozen=True)
class StoredCount:
    """The tensors of some modules: counts of those that no earlier layer had, and the nonzeros of all their weights."""

    parameters: int
    weights: int
    nonzero_weights: int | None
    size_bytes: float
    nonzero_share: float | None
    """Over all weights, shared ones included; 1.0 when there are none."""


class TensorCounter:
    """Counts the tensors of modules, each once per network."""

    def __init__(self) -> None:
        self.counted: set[int] = set()

    def take(self, modules: list[nn.Module]) -> StoredCount:
        """Return the count of these modules."""
        parameters = weights = all_weights = 0
        nonzero: int | None = 0
        all_nonzero: int | None = 0
        size_bytes = 0.0
        for tensor in (tensor for module in modules for tensor in module_tensors(module)):
            new = tensor.key not in self.counted
            self.counted.add(tensor.key)
            parameters += tensor.count if new and tensor.is_parameter else 0
            size_bytes += tensor.size_bytes if new else 0
            if tensor.is_weight:
                known = tensor.nonzero
                all_weights += tensor.count
                all_nonzero = None if known is None or all_nonzero is None else all_nonzero + known
                if new:
                    weights += tensor.count
                    nonzero = None if known is None or nonzero is None else nonzero + known
        share = 1.0 if not all_weights else None if all_nonzero is None else all_nonzero / all_weights
        return StoredCount(parameters, weights, nonzero, size_bytes, share)


@dataclass(frozen=True)
class CountedTensor:
    """A parameter, in a form or not, or a buffer.  `nonzero` is None when there are no values to count."""

    key: int
    count: int
    is_parameter: bool
    is_weight: bool
    nonzero: int | None
    size_bytes: float


def module_tensors(module: nn.Module) -> list[CountedTensor]:
    """Return a module's own tensors: parameters, forms, and the buffers it saves."""
    found = []
    for name in attached_names(module):
        form = form_of(module, name)
        if form is not None:
            weight = len(form.shape) > 1
            meta = any(tensor.is_meta for tensor in (*form.parameters(), *form.buffers()))
            nonzero = None if meta or not weight else form.nonzeros()
            found.append(CountedTensor(id(form), form.entries(), True, weight, nonzero, form.bits() / 8))
    for parameter in module.parameters(recurse=False):
        weight = parameter.dim() > 1
        nonzero = None if parameter.is_meta or not weight else int(torch.count_nonzero(parameter))
        size = parameter.numel() * parameter.element_size()
        found.append(CountedTensor(id(parameter), parameter.numel(), True, weight, nonzero, size))
    for name, buffer in module.named_buffers(recurse=False):
        if name not in module._non_persistent_buffers_set:
            size = buffer.numel() * buffer.element_size()
            found.append(CountedTensor(id(buffer), buffer.numel(), False, False, None, size))
    return found
