"""Cut numbers: the integer attributes that cuts may have set; other differences come from the network's code."""

from collections.abc import Iterable

from torch import nn

NOTED = "numbers_set_by_cuts"


def note_cuts(network: nn.Module, numbers: Iterable[tuple[str, str]] = ()) -> None:
    """Record that cuts have set these attributes (path, name) of a network, in addition to those recorded before."""
    own = set(numbers)
    for path, module in network.named_modules():
        here = {name for at, name in own if at == path}
        module.__dict__[NOTED] = module.__dict__.get(NOTED, frozenset()) | here


def set_by_cut(layer: nn.Module, name: str) -> bool:
    """Return whether a cut may have set an attribute; always true for torch layers and unrecorded networks."""
    noted = layer.__dict__.get(NOTED)
    return noted is None or name in noted or type(layer).__module__.startswith("torch.nn.")
