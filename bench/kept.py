"""Kept: results of long pieces of a bench, on disk as they come, so that an interrupted bench continues."""

import json
from collections.abc import Callable
from hashlib import blake2b
from pathlib import Path
from typing import Any

from bench.result import CACHE


def kept(name: str, settings: Any, make: Callable[[], dict[str, Any]], folder: Path = CACHE) -> dict[str, Any]:
    """The stored result of this piece under the same settings, or what `make` gives now.

    `folder`: the cache of this machine, or PIECES, which is kept with the code.
    """
    mark = blake2b(json.dumps(settings, sort_keys=True, default=str).encode(), digest_size=6).hexdigest()
    path = folder / f"{name}_{mark}.json"
    if path.exists():
        return dict(json.loads(path.read_text(encoding="utf8")))
    made = make()
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".part")
    partial.write_text(json.dumps(made, indent=1), encoding="utf8")
    partial.replace(path)
    return made
