"""Checkpoint: the state that torch.save wrote, without running code, and the names that wrappers leave in it."""

import pickle
import warnings
from collections.abc import Collection, Mapping
from pathlib import Path

import torch
from torch import Tensor

from cortado.errors import BadNetwork

INSIDE = ("state_dict", "model_state_dict", "model")
"""Where training scripts keep a network's state in a checkpoint; the first that is there counts."""
COMPILED, PARALLEL = "_orig_mod.", "module."


def read_checkpoint(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a state that torch.save wrote, alone or inside a checkpoint.

    Raises BadNetwork for a file of another kind, and for one that holds more than tensors and plain values.
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
            f"job: {path} holds no state of a network, but {type(found).__name__} {keys[:5]}. It must map names to tensors, "
            f"or have such a state under {', '.join(INSIDE)}."
        )
    return {str(key): value for key, value in state.items()}


def without_wrappers(state: dict[str, Tensor], wanted: Collection[str], source: str) -> dict[str, Tensor]:
    """Return a state under the names that are wanted: without the prefixes of torch.compile and of parallel wrappers.

    Warns where names are changed; a network that has such names itself gets them as they are.
    """
    made = {plain_name(key): value for key, value in state.items()}
    if len(made) < len(state) or len({*wanted} & {*made}) <= len({*wanted} & {*state}):
        return state
    prefixes = " and ".join(repr(one) for one in (PARALLEL, COMPILED) if any(one in key for key in state))
    warnings.warn(f"job: the names in {source} are read without {prefixes}, which a wrapper put there.", stacklevel=2)
    return made


def plain_name(key: str) -> str:
    """Return a parameter's name as the network inside the wrappers has it."""
    return key.replace(COMPILED, "").removeprefix(PARALLEL)
