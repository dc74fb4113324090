"""Files that version 0.1 wrote, in its three versions of the format, open to the last bit."""

import hashlib
import json
from pathlib import Path

import pytest
import torch

import cortado
from tests.file.former_nets import former_net

FOLDER = Path(__file__).parent / "former"
FACTS = json.loads((FOLDER / "facts.json").read_text(encoding="utf8"))


def sum_of_values(network: torch.nn.Module) -> str:
    """A checksum over every weight and bias, by name."""
    found = sorted(
        (f"{path}.{name}", getattr(layer, name).detach())
        for path, layer in network.named_modules()
        for name in ("weight", "bias")
        if isinstance(getattr(layer, name, None), torch.Tensor)
    )
    return hashlib.sha256(b"".join(value.contiguous().numpy().tobytes() for _, value in found)).hexdigest()


@pytest.mark.parametrize("name", list(FACTS))
def test_former_file_gives_the_same_values(name):
    network = cortado.load(FOLDER / f"{name}.cortado", original=former_net(FACTS[name]["network"]))
    assert (FOLDER / f"{name}.cortado").read_bytes()[4] == FACTS[name]["version"]
    assert sum_of_values(network) == FACTS[name]["values"]


def test_every_version_of_the_format_is_among_them():
    assert {one["version"] for one in FACTS.values()} == {1, 2, 3}
