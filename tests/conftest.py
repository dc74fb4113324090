"""One thread for all tests: two workers on two cores do not get in each other's way, and sums come out alike.  Examples repeat."""

import builtins
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
import torch
from hypothesis import settings

settings.register_profile("house", deadline=None, max_examples=40, derandomize=True, database=None)
settings.load_profile("house")


def pytest_addoption(parser: pytest.Parser) -> None:
    """For a long run by hand."""
    parser.addoption(
        "--all-pairs", action="store_true", help="try all methods on all states, and all pairs on every tiny network"
    )


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    """Small products gain nothing from a second thread."""
    torch.set_num_threads(1)


@pytest.fixture(autouse=True, scope="session")
def one_table_of_operators() -> Iterator[None]:
    """torch makes its tables of operators again at every export, most of the time of a small one; here they are made once."""
    try:
        from torch._export import utils  # noqa: PLC0415
        from torch.onnx._internal.exporter._registration import ONNXRegistry  # noqa: PLC0415
    except ImportError:
        yield
        return
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ONNXRegistry, "from_torchlib", staticmethod(cache(ONNXRegistry.from_torchlib)))
        # It fills torch.ops with the operators written in C++; nothing that the tests load adds others.
        patch.setattr(utils, "_materialize_cpp_cia_ops", cache(utils._materialize_cpp_cia_ops))
        yield


@pytest.fixture(autouse=True, scope="session")
def short_clocks() -> Iterator[None]:
    """Stopwatches run for a moment only: no test asks for more than a slow network told from a fast one."""
    from cortado.runtimes import stopwatch, timing  # noqa: PLC0415

    real = timing.interleaved
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(timing, "WARM_UP_SECONDS", 0.01)
        for room in (timing, stopwatch):
            patch.setattr(room, "interleaved", lambda calls, seconds: real(calls, min(seconds, 0.05)))
        yield


@pytest.fixture(autouse=True, scope="module")
def two_presets(request: pytest.FixtureRequest) -> Iterator[None]:
    """Where files are not what is tested, their coder tries two of its eight presets, as it does for large weights."""
    from cortado.file import mix  # noqa: PLC0415

    room = request.path.relative_to(Path(__file__).parent).parts[0]
    with pytest.MonkeyPatch.context() as patch:
        if room in ("laws", "planner", "recipes"):
            patch.setattr(mix, "FEW", 0)
        yield


@pytest.fixture
def no_optuna(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a machine without this optional package."""
    real = builtins.__import__

    def without(name, *rest):
        if name == "optuna":
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
