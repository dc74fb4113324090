"""python -m bench ID [--threads N] [--seeds 0,1,2]: run one bench, print its table, store its result; `check` lists all."""

import argparse
import importlib
import inspect
import os
import sys

import torch

from bench import result


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("id", help="a file of bench/, or check, or docs")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--seeds", default="", help="such as 0,1,2, where the bench takes seeds")
    options = parser.parse_args()
    if options.id == "check":
        return check()
    if options.id == "docs":
        return importlib.import_module("bench.docs").main()
    torch.set_num_threads(options.threads)
    module = importlib.import_module(f"bench.{options.id}")
    takes_seeds = "seeds" in inspect.signature(module.run).parameters
    seeds = [int(part) for part in options.seeds.split(",") if part] or getattr(module, "SEEDS", [0])
    clock = result.Clock()
    rows = module.run(seeds=seeds) if takes_seeds else module.run()
    print(result.table(rows))
    path = result.write(
        options.id, rows, clock.minutes, seeds if takes_seeds else getattr(module, "SEEDS", [0]), sys.argv[2:]
    )
    print(f"\n{path.name}: {len(rows)} rows, {clock.minutes:.1f} minutes")
    return 0


def check() -> int:
    """All stored rows, missed ones first; exit status 1 when a bar is missed."""
    rows = [
        {**entry, "what": f"{stored['id']}: {entry['what']}"}
        for stored in result.read_all()
        for entry in stored["rows"]
    ]
    ranked = sorted(rows, key=lambda entry: {False: 0, True: 1, None: 2}[entry["met"]])
    print(result.table(ranked))
    missed = sum(entry["met"] is False for entry in rows)
    print(f"\n{len(rows)} rows, {sum(entry['met'] is True for entry in rows)} bars met, {missed} missed")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
