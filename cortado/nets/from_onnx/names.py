"""Names: the paths of modules, from the names of a file's nodes and weights."""

import re

from torch import nn

from cortado.nets.from_onnx.reading import OnnxNode
from cortado.nets.from_onnx.rules.table import RULES


class Paths:
    """Gives each node a path of its own, no path inside another's."""

    def __init__(self) -> None:
        self.leaves: set[str] = set()
        self.folders: set[str] = set()

    def of(self, node: OnnxNode) -> str:
        """Return the path of a node: its name without its kind, or what its output is called."""
        name = node.name or next((one for one in node.outputs if one), node.kind)
        parts = [clean(part) for part in re.split(r"[/.]+|::", name) if part]
        kind = re.fullmatch(r"([A-Z]\w*?)(_\d+)?", parts[-1]) if len(parts) > 1 else None
        if kind and kind[1] in RULES and ".".join(parts[:-1]) not in self.taken:
            parts = parts[:-1]
        return self.free(parts or [node.kind])

    @property
    def taken(self) -> set[str]:
        return self.leaves | self.folders

    def free(self, parts: list[str]) -> str:
        """Return a path that is neither a module nor a part of one."""
        path, number = ".".join(parts), 1
        while path in self.taken or any(".".join(parts[:end]) in self.leaves for end in range(1, len(parts))):
            inside = any(".".join(parts[:end]) in self.leaves for end in range(1, len(parts)))
            parts = (
                ["_".join(parts)]
                if inside
                else [*parts[:-1], f"{parts[-1].rstrip('0123456789').rstrip('_') or 'at'}_{number}"]
            )
            path, number = ".".join(parts), number + 1
        self.leaves.add(path)
        self.folders.update(".".join(parts[:end]) for end in range(1, len(parts)))
        return path


def clean(part: str) -> str:
    """Return a part of a name as torch takes it as the name of a module."""
    part = re.sub(r"\W", "_", part) or "at"
    return f"{part}_" if part in dir(nn.Module) or part in TAKEN else part


TAKEN = {
    "training",
    "graph",
    "code",
    "class",
    "def",
    "for",
    "if",
    "in",
    "is",
    "not",
    "and",
    "or",
    "from",
    "import",
    "return",
    "pass",
}
"""Words that a module or Python has for something else."""


def placeholder(name: str, taken: set[str]) -> str:
    """Return an input's name as that of an argument."""
    made = re.sub(r"\W", "_", name).lstrip("0123456789_") or "given"
    made = f"{made}_" if made in TAKEN else made
    while made in taken:
        made += "_"
    taken.add(made)
    return made
