"""Block taps: objectives that learn from what blocks of one class give, named by path or all that a network has."""

from dataclasses import replace
from typing import Any

from cortado.errors import BadNetwork
from cortado.network.view import View
from cortado.parts.blocks.block import Block, blocks_in
from cortado.training.objectives.layer_pairs import paths_in
from cortado.training.objectives.objective import Taps

WHOLE = "."


def at_blocks(objective: Any, view: View, kind: type[Block], where: str) -> Any:
    """Return an objective whose knob `at` names blocks: those it has, or all of this class in the network.

    "." is one around the whole network. Raises BadNetwork for a path that is none of them, and where there are none; `where`
    says which stage makes them.
    """
    found = [path or WHOLE for path, block in blocks_in(view.network) if isinstance(block, kind)]
    if not found:
        raise BadNetwork(f"{objective.name()}: there is no {kind.__name__} in the network. Put {where} before.")
    strange = next((path for path in paths_in(objective.at) if path not in found), None)
    if strange is not None:
        raise BadNetwork(
            f"{objective.name()}: there is no {kind.__name__} at {strange!r}. It has them at {', '.join(found)}. Name those, or "
            "leave at empty."
        )
    return objective if objective.at else replace(objective, at=", ".join(found))


def taps_in(at: str, module: str) -> Taps:
    """Return the taps on one module inside each of some blocks."""
    return Taps(tuple(f"{path}.{module}".lstrip(".") for path in paths_in(at)))
