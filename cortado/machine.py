"""This machine: its processor, what that can do in one instruction, and the folder for what may be made or fetched again."""

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


FLAGS = {
    "avx2": "AVX2", "avx512f": "AVX-512", "avx512_vnni": "VNNI", "avx_vnni": "VNNI", "avx512_bf16": "BF16",
    "avx512_vpopcntdq": "VPOPCNTDQ", "amx_int8": "AMX", "amx_bf16": "AMX",
    "asimd": "NEON", "asimddp": "DOTPROD", "i8mm": "I8MM", "bf16": "BF16", "sve": "SVE",
}  # fmt: skip
"""The system's names of instructions that runtimes use, and the usual ones."""


def instruction_sets() -> tuple[str, ...]:
    """The vector instructions of this processor that runtimes use, such as AVX2, VNNI, AMX; empty when unknown."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf8").splitlines()
    except OSError:
        return ()
    flags = next((line.partition(":")[2].split() for line in lines if line.startswith(("flags", "Features"))), [])
    return tuple(dict.fromkeys(name for flag, name in FLAGS.items() if flag in flags))


def processor_saturates() -> bool:
    """Whether integer products run over here: before VNNI, x86 adds pairs of products of 8 bits in 16."""
    known = instruction_sets()
    return "AVX2" in known and "VNNI" not in known and "AMX" not in known
