"""One thread for all tests: two workers on two cores do not get in each other's way, and sums come out alike."""

import pytest
import torch


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    """Small products gain nothing from a second thread."""
    torch.set_num_threads(1)
