"""Checkpoint: load the state of a network from a file (safetensors, npz, torch.save) without running code."""

import pickle
import warnings
import zipfile
from collections.abc import Collection, Mapping
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from cortado.errors import BadNetwork

INSIDE = ("state_dict", "model_state_dict", "model")
"""Keys of a network's state in checkpoints of training scripts; the first one present is used."""
COMPILED, PARALLEL = "_orig_mod.", "module."


def load_weights(network: nn.Module, path: Path, where: str = "job") -> None:
    """Load a state strictly (safetensors, npz or torch's own); batch counters may be missing.  Raises BadNetwork."""
    if not path.exists():
        raise BadNetwork(f"{where}: the weights {path} do not exist. Check the path.")
    wanted = network.state_dict()
    state = without_wrappers(read_state(path, where), wanted, path.name)
    missing = [name for name in wanted if name not in state and not name.endswith("num_batches_tracked")]
    surplus = [name for name in state if name not in wanted]
    wrong = [name for name in wanted if name in state and state[name].shape != wanted[name].shape]
    if missing or surplus or wrong:
        raise BadNetwork(
            f"{where}: {path.name} does not fit {type(network).__name__}: missing {missing[:3]}, unexpected {surplus[:3]}, "
            f"of another shape {wrong[:3]}. Pass weights of this network."
        )
    network.load_state_dict(wanted | state)


def read_state(path: Path, where: str = "job") -> dict[str, torch.Tensor]:
    """Return the tensors of a safetensors, npz or torch.save file.  Raises BadNetwork if it is none of these."""
    if path.suffix not in ("", ".npz", ".safetensors"):
        return read_checkpoint(path, where)
    try:
        if path.suffix != ".npz":
            return load_file(path)
        with np.load(path) as arrays:
            return {name: torch.from_numpy(arrays[name]) for name in arrays.files}
    except (OSError, ValueError, TypeError, AttributeError, zipfile.BadZipFile, SafetensorError) as error:
        raise BadNetwork(
            f"{where}: {path} is not a {path.suffix[1:] or 'safetensors'} file ({error}). "
            "Save the weights as safetensors or npz."
        ) from error


def read_checkpoint(path: Path, where: str = "job") -> dict[str, Tensor]:
    """Return the tensors of a state that torch.save wrote, alone or inside a checkpoint.

    Raises BadNetwork for another kind of file, or one with more than tensors and plain values.
    """
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        cause = " ".join(str(error).split())[:200]
        raise BadNetwork(
            f"{where}: {path} is not a checkpoint of tensors ({cause}). Write it by torch.save(network.state_dict(), path)."
        ) from error
    keys = list(found) if isinstance(found, Mapping) else []
    name = next((name for name in INSIDE if isinstance(found, Mapping) and isinstance(found.get(name), Mapping)), None)
    state = found if name is None else found[name]
    if not isinstance(state, Mapping) or not state or not all(isinstance(value, Tensor) for value in state.values()):
        raise BadNetwork(
            f"{where}: {path} holds {type(found).__name__} {keys[:5]}, not the state of a network. It must map names to tensors, "
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
