"""House tables: places outside their rooms that know several layer classes or several operators, counted from the text.

What is known of a layer class stands in `cortado/layers/`, what is known of an operator in `cortado/network/graph/`.
"""

import ast
from collections.abc import Callable
from pathlib import Path

from bench.house_counts import House

NO_LAYERS = ("Module", "Parameter", "Buffer")
NO_OPERATORS = ("float", "bfloat", "int", "uint", "bool", "complex", "strided", "sparse")
"""How names in torch begin that are dtypes or layouts."""


def layer_tables(house: House) -> list[str]:
    """Return the tables of two layer classes or more outside layers/, and the checks against such a table elsewhere."""
    named = {
        target.id
        for tree in house.trees.values()
        for node in tree.body
        if isinstance(node, (ast.Assign, ast.AnnAssign)) and is_table(node.value, is_layer_class)
        for target in (node.targets if isinstance(node, ast.Assign) else [node.target])
        if isinstance(target, ast.Name)
    }
    found = []
    for path, node in outside(house, "layers"):
        asked = isinstance(node, ast.Call) and dotted(node.func) in ("isinstance", "issubclass")
        several = asked and {one.id for one in ast.walk(node.args[1]) if isinstance(one, ast.Name)} & named  # type: ignore[union-attr]
        if several or is_table(node, is_layer_class):
            found.append(place(house, path, node))
    return found


def operator_tables(house: House) -> list[str]:
    """Return the tables of two operators or more outside network/graph/: operators, torch's functions, or their names."""
    names = operator_names(house)

    def is_operator(node: ast.AST) -> bool:
        if isinstance(node, ast.Constant):
            return isinstance(node.value, str) and node.value.removesuffix("_") in names
        base, _, rest = dotted(node).partition(".")
        if base in ("aten", "functional") or dotted(node).startswith("torch.ops.aten."):
            return bool(rest)
        return base == "torch" and rest.islower() and "." not in rest and not rest.startswith(NO_OPERATORS)

    return [
        place(house, path, node) for path, node in outside(house, "network/graph") if is_table(node, is_operator, True)
    ]


def operator_names(house: House) -> set[str]:
    """Return the names in the calls of `known` in the families of operators."""
    families = house.root / "cortado" / "network" / "graph" / "operators"
    return {
        name
        for path, nodes in house.nodes.items()
        for node in nodes
        if families in path.parents and isinstance(node, ast.Call) and dotted(node.func) == "known"
        for word in node.args[:1]
        if isinstance(word, ast.Constant)
        for name in str(word.value).split()
    }


def outside(house: House, room: str) -> list[tuple[Path, ast.AST]]:
    """Return every node of the files outside a room."""
    inside = house.root / "cortado" / room
    return [(path, node) for path, nodes in house.nodes.items() if inside not in path.parents for node in nodes]


def is_table(node: ast.AST | None, suits: Callable[[ast.AST], bool], all_of: bool = False) -> bool:
    """Return whether a set, tuple, list or dict (by its keys or values) has two entries that suit, or only such."""
    if isinstance(node, ast.Dict):
        columns = [[key for key in node.keys if key is not None], node.values]
    else:
        columns = [node.elts] if isinstance(node, (ast.Tuple, ast.List, ast.Set)) else []
    return any((count := sum(map(suits, column))) > 1 and (not all_of or count == len(column)) for column in columns)


def is_layer_class(node: ast.AST) -> bool:
    """Return whether a node names one of torch's layer classes; a loss is none."""
    base, _, name = dotted(node).rpartition(".")
    return base == "nn" and name[:1].isupper() and name not in NO_LAYERS and not name.endswith("Loss")


def dotted(node: ast.AST) -> str:
    """Return "nn.Linear" for such a node, and "" for others."""
    if isinstance(node, ast.Attribute):
        return f"{inner}.{node.attr}" if (inner := dotted(node.value)) else ""
    return node.id if isinstance(node, ast.Name) else ""


def place(house: House, path: Path, node: ast.AST) -> str:
    """Return file, line and the beginning of the text."""
    return f"{path.relative_to(house.root)}:{node.lineno}: {ast.unparse(node)[:60]}"  # type: ignore[attr-defined]
