"""cut_detectors: detectors of all families, cut at random, saved, loaded and exported; all outputs as before.

Each has random weights with every path alive. Of each exact group 60 % of the units are kept, drawn at random: the cut network
must answer fresh pictures as the uncut one does when the removed units are zero, to 1e-4 of the largest output. It is saved as
one file, loaded into a fresh network, which must give the same bits, and exported to ONNX Runtime, whose outputs must differ by
at most 1e-3 of the largest one. The structures are written in plain PyTorch here: torchvision has no build for this PyTorch.
"""

import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import nn

from bench.result import CACHE, row
from bench.zoo import law
from bench.zoo.apart import all_checked
from bench.zoo.detectors import entries
from bench.zoo.entry import Entry
from cortado.errors import CortadoError
from cortado.file.artifact import load, save
from cortado.network.coupling.cut import cut
from cortado.network.coupling.find import find_groups
from cortado.runtimes.export import export_into
from cortado.runtimes.onnxruntime import Onnxruntime
from cortado.task.data import Data

VERSION = "1"
FOLDER = CACHE / "cut_detectors"
EXPORTED = 1e-3

Finding = dict[str, Any]


def checked(entry: Entry) -> Finding:
    """What became of one detector: the law of cuts, then the file and the exported file of the cut network."""
    found = law.checked(entry)
    original, example = entry.network(), entry.example()
    small = entry.network()
    groups = find_groups(small, example)
    cut(small, groups, law.drawn([group for group in groups.free if group.exact]))
    try:
        found |= filed(small, original, entry) | exported(small, entry)
    except (CortadoError, RuntimeError, ValueError) as error:
        found["file_error"] = law.said(error)
    return found


def filed(small: nn.Module, original: nn.Module, entry: Entry) -> Finding:
    """Whether the file brings back the same outputs, in a network with other weights."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "small.cortado"
        save(small, path, original)
        again = load(path, entry.network())
        size = path.stat().st_size
    pairs = zip(law.outputs(again, entry.example(law.FRESH)), law.outputs(small, entry.example(law.FRESH)), strict=True)
    return {"same_bits": all(torch.equal(one, other) for one, other in pairs), "file_bytes": size}


def exported(small: nn.Module, entry: Entry) -> Finding:
    """How far the outputs of ONNX Runtime are from PyTorch's."""
    fresh = entry.example(law.FRESH)
    data = Data(fresh, torch.zeros(len(fresh)))
    with tempfile.TemporaryDirectory() as folder:
        _, made = export_into(Path(folder), small, entry.example(), Onnxruntime(), data, None, EXPORTED)
    return {"exported": made.difference}


def sound(found: Finding) -> bool:
    """Whether cut, file and exported file are right."""
    one = found.get("cut_of_exact") or {}
    return (
        one.get("difference", 1.0) <= law.SAME
        and one.get("control", 0.0) > law.ALIVE
        and one.get("parameters") == one.get("predicted")
        and found.get("same_bits", False)
        and found.get("exported", 1.0) <= EXPORTED
    )


def run() -> list[dict[str, Any]]:
    """All rows."""
    zoo = {entry.name: entry for entry in entries()}
    found = all_checked(zoo, checked, FOLDER / "cortado.jsonl", VERSION, rivals=False)
    cuts = [one["cut_of_exact"] for one in found if one.get("cut_of_exact") and "error" not in one["cut_of_exact"]]
    rows = [
        row("detectors", len(found), "networks", bar=10, better="higher"),
        row("cut exactly, saved, loaded and exported", 100 * sum(map(sound, found)) / len(found), "%", 100, "higher"),
        row("worst difference from the zeroed network", max(one["difference"] for one in cuts), "of output", law.SAME),
        row(
            "least difference of the uncut network",
            min(one["control"] for one in cuts),
            "of output",
            law.ALIVE,
            "higher",
        ),
        row("worst difference in ONNX Runtime", max(one.get("exported", 1.0) for one in found), "of output", EXPORTED),
        row(
            "longest search for groups, of the processor's time",
            max(one.get("find_processor_s", 0.0) for one in found),
            "s",
        ),
    ]
    for one in found:
        after = (one.get("cut_of_exact") or {}).get("parameters")
        words = f"{one['name']}: {one.get('exact_groups', 0)} exact groups of {one.get('free', 0)} free ones"
        more = {key: one[key] for key in ("error", "file_error", "frozen", "refused", "inexact") if one.get(key)}
        share = None if after is None else 100 * after / one["parameters"]
        rows.append(row(f"{words}, parameters left", share, "%", **more))
    return rows
