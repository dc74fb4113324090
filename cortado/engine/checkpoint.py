"""Checkpoint: read a state that torch.save wrote, without running code, and strip the prefixes of wrappers."""

import pickle
import warnings
from collections.abc import Collection, Mapping
from pathlib import Path

import torch
from torch import Tensor

from cortado.errors import BadNetwork

INSIDE = ("state_dict", "model_state_dict", "model")
"""Keys of a network's state in checkpoints of training scripts; the first one present is used."""
COMPILED, PARALLEL = "_orig_mod.", "module."


def read_checkpoint(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a state that torch.save wrote, alone or inside a checkpoint.

    Raises BadNetwork for another kind of file, or one with more than tensors and plain values.
    """
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        cause = " ".join(str(error).split())[:200]
        raise BadNetwork(
            f"job: {path} is not a checkpoint of tensors ({cause}). Write it by torch.save(network.state_dict(), path)."
        ) from error
    keys = list(found) if isinstance(found, Mapping) else []
    name = next((name for name in INSIDE if isinstance(found, Mapping) and isinstance(found.get(name), Mapping)), None)
    state = found if name is None else found[name]
    if not isinstance(state, Mapping) or not state or not all(isinstance(value, Tensor) for value in state.values()):
        raise BadNetwork(
            f"job: {path} holds {type(found).__name__} {keys[:5]}, not the state of a network. It must map names to tensors, "
            f"or have such a state under {', '.join(INSIDE)}."
        )
    return {str(key): value for key, value in state.items()}


def without_wrappers(state: dict[str, Tensor], wanted: Collection[str], source: str) -> dict[str, Tensor]:
    """Return a state under the `wanted` names, without the prefixes of torch.compile and parallel wrappers.

    Warns if it changes names; prefixes that belong to the network's own names stay.
    """
    made = {key.replace(COMPILED, "").removeprefix(PARALLEL): value for key, value in state.items()}
    if len(made) < len(state) or len({*wanted} & {*made}) <= len({*wanted} & {*state}):
        return state
    prefixes = " and ".join(repr(one) for one in (PARALLEL, COMPILED) if any(one in key for key in state))
    warnings.warn(f"job: the names in {source} are read without {prefixes}, which a wrapper put there.", stacklevel=2)
    return made
