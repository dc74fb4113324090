"""Solve: find the attributes to change so that the numbers in a network's code follow a cut."""

from collections.abc import Callable
from dataclasses import dataclass, field

from torch import nn

from cortado.network.coupling.attribute import Attribute, Edits, attributes_with, read_attribute
from cortado.network.coupling.tagged import Formula, Seen
from cortado.network.graph.axes.constants import Constant

KNOWN_BY_WIDTH = (
    "in_channels", "out_channels", "in_features", "out_features", "num_features", "hidden_size", "input_size",
    "embedding_dim", "num_embeddings",
)  # fmt: skip
"""Attributes that match_widths sets from the shapes of a layer's tensors."""


@dataclass
class Solved:
    """Attribute edits, and the constants without one: the code may derive them from shapes."""

    edits: Edits = field(default_factory=dict)
    open: list[Constant] = field(default_factory=list)


def solve(network: nn.Module, seen: Seen, changed: list[tuple[Constant, int]]) -> Solved:
    """Return edits for all changed constants, given the uncut network."""
    modules, solved = dict(network.named_modules()), Solved()

    def value(attribute: Attribute) -> int:
        return solved.edits.get(attribute, read_attribute(modules, attribute))

    for constant, new in changed:
        module = modules.get(constant.module)
        if module is None:
            solved.open.append(constant)
            continue
        named = same_name(module, constant)
        if named is not None:
            solved.edits[named] = new
        elif by_formula(seen, constant, new, value, solved.edits):
            continue
        elif not by_value(module, constant, new, solved.edits):
            solved.open.append(constant)
    return solved


def all_named(network: nn.Module, constants: list[Constant]) -> bool:
    """Return whether every layer stores its constants under the operator's argument names."""
    modules = dict(network.named_modules())
    return all(c.module in modules and same_name(modules[c.module], c) is not None for c in constants)


def same_name(module: nn.Module, constant: Constant) -> Attribute | None:
    """Return the attribute named like the operator's argument: groups, num_groups, normalized_shape."""
    own = module.__dict__.get(constant.argument)
    if type(own) is int and own == constant.old:
        return Attribute(constant.module, constant.argument)
    listed = type(own) in (tuple, list) and constant.place < len(own)  # type: ignore[arg-type]
    if listed and own[constant.place] == constant.old:  # type: ignore[index]
        return Attribute(constant.module, constant.argument, constant.place)
    return None


def by_formula(seen: Seen, constant: Constant, new: int, value: Callable[[Attribute], int], edits: Edits) -> bool:
    """Return whether an observed formula gives the new value, possibly after setting one of its attributes."""
    here = seen.get((constant.module, constant.operator), [])
    around = [sighting for (path, _), all_of in seen.items() if path == constant.module for sighting in all_of]
    able = [sighting for sighting in (*here, *around) if abs(int(sighting.number)) == abs(constant.old)]
    # Where two attributes have the same value, the line determines which one was meant.
    meant = [sighting for sighting in able if constant.line.startswith(sighting.line + ":")]
    formulas = list(dict.fromkeys(sighting.number.formula for sighting in meant or able))
    # In a list passed whole, each number follows its own entry, even if two entries are equal.
    formulas = [formula for formula in formulas if entry_of(formula) == constant.place >= 0] or formulas
    sign = 1 if constant.old >= 0 else -1
    for formula in formulas:
        if evaluated_expression(formula, value) in (new, sign * new):
            return True
    for formula in formulas:
        for attribute in formula.attributes():
            if attribute in edits:
                continue
            found = unknown(formula, attribute, abs(new), value)
            if found is not None:
                edits[attribute] = found
                return True
    return False


def entry_of(formula: Formula) -> int | None:
    """Return the list entry that a formula consists of, if it is nothing else."""
    return formula.source.place if isinstance(formula.source, Attribute) else None


def evaluated_expression(formula: Formula, value: Callable[[Attribute], int]) -> int | None:
    try:
        return formula.value(value)
    except ZeroDivisionError:
        return None


def unknown(formula: Formula, attribute: Attribute, new: int, value: Callable[[Attribute], int]) -> int | None:
    """Return the value of one attribute for which a formula gives `new`; None if there is none below its present one."""
    if isinstance(formula.source, Attribute):
        return new
    for candidate in range(value(attribute), 0, -1):
        if evaluated_expression(formula, lambda a, c=candidate: c if a == attribute else value(a)) == new:  # type: ignore[misc]
            return candidate
    return None


def by_value(module: nn.Module, constant: Constant, new: int, edits: Edits) -> bool:
    """Return whether exactly one attribute of the module has the old value."""
    found = [a for a in attributes_with(module, constant.module, abs(constant.old)) if a.name not in KNOWN_BY_WIDTH]
    free = [attribute for attribute in found if edits.get(attribute, abs(new)) == abs(new)]
    if not free:
        return False
    edits[free[0]] = abs(new)
    return True
