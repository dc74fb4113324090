"""Trained weights for the networks of this room, from plain .npz arrays."""

import os
import zipfile
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from cortado.errors import BadFile, BadNetwork, BadValue

COUNTER = "num_batches_tracked"


def weights_path(weights: str | Path | bool, file_name: str) -> Path:
    """Where the weights are: `weights` itself, or $CORTADO_DATA/weights/`file_name` when it is True.

    Raises BadValue when the variable is not set or there is no such file.
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
    """The arrays of an .npz as tensors, but for those of text.  Raises BadFile when it is no such file or holds pickles."""
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
            return {name: torch.from_numpy(array) for name, array in arrays.items() if array.dtype.kind != "U"}
    except (ValueError, OSError, zipfile.BadZipFile, AttributeError, TypeError) as error:
        raise BadFile(f"nets: {path} is not an .npz of plain arrays ({error}). Save it with numpy.savez.") from error


def load_arrays(network: nn.Module, arrays: dict[str, Tensor], source: str) -> None:
    """Fill every parameter and buffer of `network` from `arrays`; batch counters may be absent and become 0.

    Raises BadNetwork when a name is missing or left over, or when a shape differs.
    """
    wanted = network.state_dict()
    required = {name for name in wanted if not name.endswith(COUNTER)}
    missing, extra = sorted(required - set(arrays)), sorted(set(arrays) - set(wanted))
    if missing or extra:
        raise BadNetwork(
            f"nets: {source} does not fit {type(network).__name__}: missing {missing[:3]} ({len(missing)} in all), "
            f"left over {extra[:3]} ({len(extra)} in all). Pass the weights of this very network."
        )
    for name, array in arrays.items():
        if array.shape != wanted[name].shape:
            raise BadNetwork(
                f"nets: {source} does not fit {type(network).__name__}: {name} must be {tuple(wanted[name].shape)}, "
                f"got {tuple(array.shape)}. Pass the weights of this very network."
            )
    if any(value.is_meta for value in wanted.values()):
        raise BadNetwork("nets: the meta device holds no weights, so none can be loaded. Build the network on the CPU.")
    with torch.no_grad():
        for name, value in wanted.items():
            value.copy_(arrays.get(name, torch.zeros(())))
