"""One thread for all tests: two workers on two cores do not get in each other's way, and sums come out alike.  Examples repeat."""

import pytest
import torch
from hypothesis import settings

settings.register_profile("house", deadline=None, max_examples=40, derandomize=True, database=None)
settings.load_profile("house")


def pytest_addoption(parser: pytest.Parser) -> None:
    """For a long run by hand."""
    parser.addoption(
        "--all-networks", action="store_true", help="try pairs of methods on every network, not on one each"
    )


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    """Small products gain nothing from a second thread."""
    torch.set_num_threads(1)
