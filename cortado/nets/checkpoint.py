"""Checkpoint: load the state of a network from a file (safetensors, npz, torch.save) without running code."""

import json
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
FOLDER_FILES = ("model.safetensors", "pytorch_model.bin")
"""Files of weights in a folder that save_pretrained writes, the safer first; split ones have an index beside them."""
INDEX = ".index.json"


def load_weights(network: nn.Module, path: Path, where: str = "job") -> None:
    """Load a state strictly (safetensors, npz, torch's own, or a folder); batch counters may be missing.  Raises BadNetwork."""
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
    if path.is_dir():
        return read_folder_state(path, where)
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


def read_folder_state(folder: Path, where: str = "job") -> dict[str, Tensor]:
    """Return the tensors of a folder as save_pretrained writes it, from one file or several.  Raises BadNetwork."""
    for name in FOLDER_FILES:
        index = folder / f"{name}{INDEX}"
        if (folder / name).is_file():
            return read_state(folder / name, where)
        if index.is_file():
            try:
                files = sorted(set(json.loads(index.read_text(encoding="utf8"))["weight_map"].values()))
            except (ValueError, KeyError, AttributeError, TypeError) as error:
                raise BadNetwork(
                    f"{where}: {index} is no index of weights ({error}). Download the folder again."
                ) from error
            # A name in the index is that of a file beside it, whatever it says.
            return {key: value for file in files for key, value in read_state(folder / Path(file).name, where).items()}
    raise BadNetwork(f"{where}: {folder} has none of {', '.join(FOLDER_FILES)}. Give the file of the weights.")


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
    """Return a state under the `wanted` names, without the prefixes of wrappers: torch.compile, parallel, Lightning's "model.".

    Warns if it changes names, and if it leaves out tensors outside the wrapped network, such as a loss's. Prefixes that
    belong to the network's own names stay.
    """
    made = {key.replace(COMPILED, "").removeprefix(PARALLEL): value for key, value in state.items()}
    if len(made) < len(state):
        return state
    prefix = shared_prefix(made, wanted)
    made = {key.removeprefix(prefix): value for key, value in made.items() if key.startswith(prefix)}
    if len({*wanted} & {*made}) <= len({*wanted} & {*state}):
        return state
    taken = [one for one in (PARALLEL, COMPILED) if any(one in key for key in state)] + ([prefix] if prefix else [])
    left = [key for key in state if not key.replace(COMPILED, "").removeprefix(PARALLEL).startswith(prefix)]
    more = f" {len(left)} tensors outside it are left out, such as {left[0]}." if left else ""
    prefixes = " and ".join(repr(one) for one in taken)
    warnings.warn(
        f"job: the names in {source} are read without {prefixes}, which a wrapper put there.{more}", stacklevel=2
    )
    return made


def shared_prefix(state: Mapping[str, Tensor], wanted: Collection[str]) -> str:
    """Return what stands before all wanted names in a state; "" if they stand there as they are, or not all."""
    if not wanted or any(name in state for name in wanted):
        return ""
    first = next(iter(wanted))
    prefixes = sorted((key.removesuffix(first) for key in state if key.endswith(f".{first}")), key=len)
    needed = [name for name in wanted if not name.endswith("num_batches_tracked")]
    return next((prefix for prefix in prefixes if all(prefix + name in state for name in needed)), "")
