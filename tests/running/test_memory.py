"""Memory that was freed goes back to the system, and where the C library cannot do it nothing happens."""

from pathlib import Path

import pytest
import torch

from cortado.running import memory


def resident():
    """Megabytes of this process in memory."""
    lines = Path("/proc/self/status").read_text(encoding="utf8").splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith("VmRSS:"))) / 1024


@pytest.mark.skipif(memory.trimming() is None, reason="the C library is not glibc")
def test_gaps_between_what_is_in_use_go_back():
    blocks = [torch.ones(16_000) for _ in range(2_000)]
    kept = blocks[::20]
    blocks.clear()
    memory.give_back_freed()
    before = resident()
    blocks = [torch.ones(16_000) for _ in range(2_000)]
    kept += blocks[::20]
    full = resident()
    blocks.clear()
    memory.give_back_freed()
    assert full > before + 90 and resident() < before + 40
    assert all(bool((one == 1).all()) for one in kept)


def test_without_such_a_function_nothing_happens(monkeypatch):
    monkeypatch.setattr(memory, "trimming", lambda: None)
    memory.give_back_freed()
