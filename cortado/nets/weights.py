"""Trained weights for the built-in networks, from plain .npz arrays."""

import os
import zipfile
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from cortado.errors import BadFile, BadNetwork, BadValue

COUNTER = "num_batches_tracked"


def weights_path(weights: str | Path | bool, file_name: str) -> Path:
    """Return `weights` as a path, or $CORTADO_DATA/weights/`file_name` if it is True.

    Raises BadValue if the variable is not set or the file is missing.
    """
    if isinstance(weights, bool):
        folder = os.environ.get("CORTADO_DATA")
        if not folder:
            raise BadValue(
                f"nets: weights=True looks for {file_name} in $CORTADO_DATA/weights, but CORTADO_DATA is not set. "
                "Set it to the data folder, or pass the path of the .npz."
            )
        path = Path(folder) / "weights" / file_name
    else:
        path = Path(weights)
    if not path.is_file():
        raise BadValue(f"nets: there are no weights at {path}. Pass the path of an .npz of plain arrays.")
    return path


def read_arrays(path: Path) -> dict[str, Tensor]:
    """Return the numeric arrays of an .npz as tensors.  Raises BadFile if it is no such file or contains pickles."""
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
            return {name: torch.from_numpy(array) for name, array in arrays.items() if array.dtype.kind != "U"}
    except (ValueError, OSError, zipfile.BadZipFile, AttributeError, TypeError) as error:
        raise BadFile(f"nets: {path} is not an .npz of plain arrays ({error}). Save it with numpy.savez.") from error


def load_arrays(network: nn.Module, arrays: dict[str, Tensor], source: str) -> None:
    """Load `arrays` into every parameter and buffer of `network`; missing batch counters become 0.

    Raises BadNetwork for a missing or unknown name, or a different shape.
    """
    wanted = network.state_dict()
    required = {name for name in wanted if not name.endswith(COUNTER)}
    missing, extra = sorted(required - set(arrays)), sorted(set(arrays) - set(wanted))
    if missing or extra:
        raise BadNetwork(
            f"nets: {source} does not fit {type(network).__name__}: missing {missing[:3]} ({len(missing)} in total), "
            f"unknown {extra[:3]} ({len(extra)} in total). Pass weights of exactly this network."
        )
    for name, array in arrays.items():
        if array.shape != wanted[name].shape:
            raise BadNetwork(
                f"nets: {source} does not fit {type(network).__name__}: {name} must be {tuple(wanted[name].shape)}, "
                f"got {tuple(array.shape)}. Pass weights of exactly this network."
            )
    if any(value.is_meta for value in wanted.values()):
        raise BadNetwork("nets: a network on the meta device cannot load weights. Build it on the CPU.")
    with torch.no_grad():
        for name, value in wanted.items():
            value.copy_(arrays.get(name, torch.zeros(())))
