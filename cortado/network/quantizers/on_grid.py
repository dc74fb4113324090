"""On grid: which modules read which values quantized."""

from collections.abc import Collection

from cortado.layers.roles import CLIP, MOVE
from cortado.network.graph.flow import Flow
from cortado.network.quantizers.placement import Place, is_within
from cortado.parts.activations.quantizer import INPUT, OUTPUT


def inputs_on_grid(flow: Flow, rounded: Collection[Place]) -> set[tuple[str, int]]:
    """Return which module reads which value quantized, as (path, value), for quantizers at these places.

    A quantized input covers all inner modules; a value moved from a quantized one counts too.
    """
    whole = {value for value, places in flow.places.items() if any(p in rounded and p[1] == OUTPUT for p in places)}
    for step in flow.steps:
        moves = step.inputs and (step.kind in (MOVE, CLIP) or step.name == "cat")
        if moves and all(reads_rounded(flow, step.path, value, whole, rounded) for value in step.inputs):
            whole.update(step.outputs)
    return {
        (step.path, value)
        for step in flow.steps
        for value in step.inputs
        if reads_rounded(flow, step.path, value, whole, rounded)
    }


def reads_rounded(flow: Flow, path: str, value: int, whole: Collection[int], rounded: Collection[Place]) -> bool:
    """Return whether the module at `path` reads this value quantized."""
    into = [place for place in flow.places.get(value, []) if place[1] == INPUT and place in rounded]
    return value in whole or any(is_within(path, place[0]) for place in into)
