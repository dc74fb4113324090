"""Cut numbers: the integer attributes of modules that a cut may have set; any other difference comes from the
network's code.
"""

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
    """Return whether a cut may have set an attribute. Any attribute of torch's own layers counts, and any where
    nothing was recorded.
    """
    noted = layer.__dict__.get(NOTED)
    return noted is None or name in noted or type(layer).__module__.startswith("torch.nn.")
