"""This machine: the name of its processor, and the folder for what may be made or fetched again."""

import os
import platform
from pathlib import Path


def cache_folder() -> Path:
    """$CORTADO_CACHE, else $XDG_CACHE_HOME/cortado, else ~/.cache/cortado."""
    if os.environ.get("CORTADO_CACHE"):
        return Path(os.environ["CORTADO_CACHE"])
    if os.environ.get("XDG_CACHE_HOME"):
        return Path(os.environ["XDG_CACHE_HOME"]) / "cortado"
    return Path.home() / ".cache" / "cortado"


def processor_name() -> str:
    """The processor's name as the system gives it, or "unknown"."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf8").splitlines()
    except OSError:
        return platform.processor() or "unknown"
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")
