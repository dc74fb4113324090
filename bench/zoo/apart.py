"""Apart: each network of the zoo is checked in a process of its own, with a time limit, and the findings kept as they come."""

import json
import multiprocessing
import resource
import signal
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch

from bench.rivals.optional import timm, torch_pruning
from bench.zoo.entry import Entry

LIMIT_S = 30
"""Time of the processor that a network may take, making it included."""
LIMIT_BYTES = 10 * 2**30
"""Memory that it may take."""
WAIT_S = 1200.0
"""Time on the clock after which it is given up: ten others may run beside it."""

Check = Callable[[Entry], dict[str, Any]]


def all_checked(
    entries: dict[str, Entry], check: Check, path: Path, version: str, rivals: bool = True
) -> list[dict[str, Any]]:
    """What `check` finds of each entry, one line of JSON each in the file at `path`; lines of this version are reused.

    `rivals`: whether entries or check need timm and Torch-Pruning.
    """
    done = stored(path, version)
    path.parent.mkdir(parents=True, exist_ok=True)
    if rivals:
        # Loaded once, here: the processes of the networks are forks.
        timm(), torch_pruning()
    for number, (name, entry) in enumerate(entries.items()):
        if name in done:
            continue
        print(f"{path.stem}: {number + 1} of {len(entries)}, {name}", flush=True)
        done[name] = {"name": name, "version": version, "family": entry.family, **apart(check, entry)}
        with path.open("a", encoding="utf8") as lines:
            lines.write(json.dumps(done[name]) + "\n")
    return [done[name] for name in entries]


def stored(path: Path, version: str) -> dict[str, dict[str, Any]]:
    """The findings of this version by network; a line that was cut short by an interruption is left out."""
    found: dict[str, dict[str, Any]] = {}
    for line in path.read_text(encoding="utf8").splitlines() if path.exists() else []:
        try:
            entry = json.loads(line)
        except json.JSONDecodeError:
            continue
        if entry["version"] == version:
            found[entry["name"]] = entry
    return found


def apart(check: Check, entry: Entry) -> dict[str, Any]:
    """What a check finds in a process of its own; an error as words under "error"."""
    context = multiprocessing.get_context("fork")
    here, there = context.Pipe(duplex=False)
    process = context.Process(target=work, args=(check, entry, there))
    start = time.perf_counter()
    process.start()
    there.close()
    try:
        found = here.recv() if here.poll(WAIT_S) else {"error": f"not done after {WAIT_S:.0f} s"}
    except EOFError:
        process.join()
        late = process.exitcode == -signal.SIGXCPU
        found = {"error": f"not done after {LIMIT_S} s" if late else f"its process ended by {process.exitcode}"}
    process.kill()
    process.join()
    return {**found, "total_s": round(time.perf_counter() - start, 2)}


def work(check: Check, entry: Entry, there: Connection) -> None:
    """In the process of a network: check it on one thread and send what was found."""
    torch.set_num_threads(1)
    resource.setrlimit(resource.RLIMIT_CPU, (LIMIT_S, LIMIT_S + 5))
    resource.setrlimit(resource.RLIMIT_DATA, (LIMIT_BYTES, LIMIT_BYTES))
    try:
        there.send(check(entry))
    except Exception as error:  # noqa: BLE001 - whatever a network or a rival raises is a finding about it
        there.send({"error": " ".join(f"{type(error).__name__}: {error}".split())[:400]})
