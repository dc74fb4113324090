"""The zoo: all networks by name."""

from bench.zoo import timm_nets, torchvision_nets, written
from bench.zoo.entry import Entry


def entries() -> dict[str, Entry]:
    """Every entry by its name, in the order of their families."""
    listed = [*written.entries(), *torchvision_nets.entries(), *timm_nets.entries()]
    return {entry.name: entry for entry in listed}
