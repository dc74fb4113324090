"""Entries: the tensors of a network in its own order, tied ones once, and a fingerprint of that list."""

from dataclasses import dataclass
from hashlib import blake2b

import torch
from torch import Tensor, nn

from cortado.errors import BadNetwork
from cortado.layers.widths import match_widths
from cortado.parts.activations.quantizer import ActivationQuantizer
from cortado.parts.blocks.block import Block
from cortado.parts.blocks.bypass import Bypass
from cortado.parts.forms.attach import attach, attached_names, form_of, original_class
from cortado.parts.forms.form import Form
from cortado.parts.part import Part, own_modules


@dataclass(frozen=True)
class Entry:
    """One tensor (parameter or saved buffer) and all its places: (path of the layer, name in the layer)."""

    places: tuple[tuple[str, str], ...]
    shape: torch.Size
    dtype: torch.dtype
    learned: bool

    @property
    def name(self) -> str:
        """Its first name, "conv1.weight"."""
        path, name = self.places[0]
        return f"{path}.{name}" if path else name


def entries_of(original: nn.Module) -> list[Entry]:
    """Return the tensors that a network saves, in the order of its modules, tied ones once."""
    places: dict[int, list[tuple[str, str]]] = {}
    tensors: dict[int, tuple[Tensor, bool]] = {}
    for path, layer in original.named_modules():
        own = [(name, value, True) for name, value in layer._parameters.items() if value is not None]
        own += [
            (name, value, False)
            for name, value in layer._buffers.items()
            if value is not None and name not in layer._non_persistent_buffers_set
        ]
        for name, value, learned in own:
            places.setdefault(id(value), []).append((path, name))
            tensors[id(value)] = (value, learned)
    return [
        Entry(tuple(where), tensors[key][0].shape, tensors[key][0].dtype, tensors[key][1])
        for key, where in places.items()
    ]


def check_original(original: nn.Module) -> None:
    """Raise BadNetwork when an original network has parts: forms, activation quantizers or blocks."""
    for path, layer in original.named_modules():
        if attached_names(layer) or isinstance(layer, Part):
            what = (
                "rounds an activation" if isinstance(layer, ActivationQuantizer)
                else "stands in a module's place" if isinstance(layer, Block)
                else "is held in a form"
            )  # fmt: skip
            raise BadNetwork(
                f"file: {path or 'the network'} of the original network {what}. Pass the network as it came."
            )


def loose_entries(original: nn.Module) -> list[Entry]:
    """The buffers that a network does not save, in the order of its modules: stored only where a cut changed their size."""
    found: dict[int, tuple[Tensor, list[tuple[str, str]]]] = {}
    for path, layer in original.named_modules():
        for name, value in layer._buffers.items():
            if value is not None and name in layer._non_persistent_buffers_set:
                found.setdefault(id(value), (value, []))[1].append((path, name))
    return [Entry(tuple(places), value.shape, value.dtype, False) for value, places in found.values()]


def fingerprint(original: nn.Module, entries: list[Entry]) -> bytes:
    """Eight bytes of the names, shapes, types and ties of an original network, and of the classes of its layers."""
    sums = blake2b(digest_size=8)
    for entry in entries:
        sums.update(repr((entry.places, tuple(entry.shape), str(entry.dtype))).encode())
    owners = {path for entry in entries for path, _ in entry.places}
    for path, layer in original.named_modules():
        if path in owners:
            sums.update(f"{path}:{original_class(layer).__qualname__}".encode())
    return sums.digest()


def check_classes(network: nn.Module, skeleton: nn.Module) -> None:
    """Raise BadNetwork unless a network has the modules of a skeleton, with their classes and no more tensors."""
    mine, theirs = (dict(one.named_modules(remove_duplicate=False)) for one in (network, skeleton))
    for path, layer in theirs.items():
        kept = mine.get(path)
        if isinstance(layer, Bypass) and type(kept) is nn.Identity:
            continue
        if kept is not None and (type(layer) is nn.Identity, stands_in(kept)) == (False, not stands_in(layer)):
            raise BadNetwork(
                f"file: {path} was replaced in one place and still stands in another. Replace it everywhere, or not at all."
            )
        if kept is None or original_class(kept).__qualname__ != original_class(layer).__qualname__:
            found = "nothing" if kept is None else type(kept).__name__
            raise BadNetwork(
                f"file: {path or 'the network'} is {type(layer).__name__} in the original network, got {found}. "
                "Pass the original network this one was made from. Put layers of your own in with view.wrap, as Blocks."
            )
    for path, layer in own_modules(network).items():
        before = theirs.get(path)
        more = tensor_names(layer) - (set() if before is None else tensor_names(before))
        if more:
            raise BadNetwork(
                f"file: {path or 'the network'} has {min(more)}, which the original network has not. "
                "Only tensors of the original network and of Blocks can be stored."
            )


def stands_in(module: nn.Module) -> bool:
    """Return whether a module stands in another's place: a block, or an identity put in by hand."""
    return isinstance(module, Block) or type(module) is nn.Identity


def tensor_names(layer: nn.Module) -> set[str]:
    """The names of a module's own parameters, held or not, and of the buffers it saves."""
    own = {name for name, value in (*layer._parameters.items(), *layer._buffers.items()) if value is not None}
    return (own - layer._non_persistent_buffers_set) | set(attached_names(layer))


def stored_at(network: nn.Module, entry: Entry) -> Form | Tensor:
    """What holds an entry in a compressed network: a form or a plain tensor.  Raises BadNetwork when it is gone."""
    modules = dict(network.named_modules())
    found = [value_at(modules.get(path), name) for path, name in entry.places]
    if any(value is not found[0] for value in found):
        raise BadNetwork(
            f"file: {entry.name} is shared by {len(entry.places)} layers of the original network and no longer in this one. "
            "Tie the layers again, or untie them in the original network too."
        )
    value = found[0]
    if value is None:
        raise BadNetwork(
            f"file: the compressed network has no {entry.name}, which the original has. "
            "Compare it with the network it was made from."
        )
    return value if isinstance(value, Form) else value.detach()


def value_at(layer: nn.Module | None, name: str) -> Form | Tensor | None:
    """The form, parameter or buffer of a layer that has this name; None when there is none."""
    if layer is None:
        return None
    return form_of(layer, name) or layer._parameters.get(name, layer._buffers.get(name))


def put_entry(modules: dict[str, nn.Module], entry: Entry, value: Form | Tensor) -> None:
    """Put a form or tensor into every place of an entry, and let the layer's attributes follow a new shape."""
    kept = value
    if isinstance(value, Tensor) and entry.learned:
        first = modules[entry.places[0][0]]._parameters[entry.places[0][1]]
        kept = nn.Parameter(value, requires_grad=bool(first is not None and first.requires_grad))
    for path, name in entry.places:
        layer = modules[path]
        if isinstance(kept, Form):
            attach(layer, name, kept)
        elif entry.learned:
            layer._parameters[name] = kept  # type: ignore[assignment]
        else:
            layer._buffers[name] = kept
        if value.shape != entry.shape or isinstance(layer, nn.RNNBase):
            # A recurrent layer keeps a list of its tensors besides.
            match_widths(layer)
