"""Our smallest coder against NNC (ISO/IEC 15938-17, the package nncodec) on the same integers.

Theirs runs in an environment of its own under bench/cache/nnc, made on first use. It is given every advantage: its
coding kernel is called directly, without the headers of its units, with its own search for parameters, and each plane
takes the shorter of two scan orders. Ours is what a file would hold: the whole body, headers inside, and decoded again.
"""

import subprocess
import sys
from pathlib import Path

import numpy as np

from bench.coder_planes import planes
from bench.result import CACHE, row
from cortado.file.plane import decode_plane, encode_plane

PACKAGES = ["numpy<2", "pybind11", "setuptools", "wheel", "cmake"]
NNCODEC = "nncodec==2.1.3"
WORKER = """
import glob, importlib.util, sys
import numpy as np
found = glob.glob(sys.prefix + "/lib/python*/site-packages/nncodec/extensions/deepCABAC*.so")[0]
spec = importlib.util.spec_from_file_location("deepCABAC", found)
kernel = importlib.util.module_from_spec(spec)
spec.loader.exec_module(kernel)

def size(plane, order):
    empty = np.array([not row.any() for row in plane], dtype=np.int32)
    encoder = kernel.Encoder()
    encoder.initCtxModels(11, 1)
    encoder.encodeLayer(plane, 0, order, 1, 0, 1, empty, kernel.HdspMode.AlwaysOff, np.zeros(2, dtype=np.int8), 0, 0)
    return len(encoder.finish())

with np.load(sys.argv[1]) as stored:
    for name in stored.files:
        plane = np.ascontiguousarray(stored[name], dtype=np.int32)
        print(name, min(size(plane, order) for order in (0, 1)))
"""


def environment() -> Path:
    """The interpreter of nncodec's own environment; made when missing (two minutes: it compiles)."""
    folder = CACHE / "nnc"
    python = folder / "bin" / "python"
    if not (folder / "done").exists():
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)
        pip = [str(python), "-m", "pip", "install", "--quiet"]
        subprocess.run([*pip, *PACKAGES], check=True)
        subprocess.run([*pip, "--no-deps", "--no-build-isolation", NNCODEC], check=True)
        (folder / "done").touch()
    return python


def theirs(listed: dict[str, np.ndarray]) -> dict[str, int]:
    """The bytes of each plane by NNC."""
    path = CACHE / "coder_planes.npz"
    CACHE.mkdir(exist_ok=True)
    np.savez(path, **listed)
    command = [str(environment()), "-c", WORKER, str(path)]
    lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    return {line.rsplit(" ", 1)[0]: int(line.rsplit(" ", 1)[1]) for line in lines}


def ours(plane: np.ndarray) -> int:
    """The bytes of a plane by our smallest coder, decoded and compared."""
    coded = encode_plane(plane)
    if not np.array_equal(decode_plane(coded, plane.shape), plane):
        raise AssertionError("coder_nnc: a plane did not come back")
    return len(coded.body)


def run() -> list[dict]:
    """Sums by network, how often a single plane is larger than theirs, and the sum of all."""
    nets = planes()
    listed = {f"{net}/{number}": plane for net, group in nets.items() for number, plane in enumerate(group)}
    rival = theirs(listed)
    mine = {name: ours(plane) for name, plane in listed.items()}
    rows = []
    for net in nets:
        names = [name for name in listed if name.rsplit("/", 1)[0] == net]
        bar = sum(rival[name] for name in names)
        rows.append(row(f"{net}: bytes of {len(names)} planes (bar: NNC)", sum(mine[name] for name in names), "B", bar))
    larger = {name: mine[name] - rival[name] for name in listed if mine[name] > rival[name]}
    rows.append(row(f"planes larger than NNC's, of {len(listed)}", len(larger), "planes", 0))
    worst = max((mine[name] / rival[name] for name in listed), default=0.0)
    rows.append(row("largest ratio of a plane to NNC's", worst, "", 1.0))
    rows.append(row("all planes together (bar: NNC)", sum(mine.values()), "B", sum(rival.values())))
    return rows
