"""What only hardware shows: `make test-gpu`, where there is a GPU and a torch that uses it."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest
import torch

HAS_GPU = torch.cuda.is_available()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Says so loudly where nothing of this could run."""
    if not HAS_GPU:
        terminalreporter.section("NO GPU: nothing of tests/gpu was run", sep="!", red=True)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if not HAS_GPU:
        for item in items:
            if "gpu" in item.path.parts:
                item.add_marker(pytest.mark.skip(reason="torch finds no CUDA device"))


@pytest.fixture
def device() -> torch.device:
    return torch.device("cuda", torch.cuda.current_device())


@pytest.fixture(autouse=True)
def nothing_stays_behind() -> Iterator[None]:
    """Device memory is as it was before each test."""
    gc.collect()
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    yield
    gc.collect()
    torch.cuda.synchronize()
    assert torch.cuda.memory_allocated() == before


@pytest.fixture
def busy(device: torch.device) -> Iterator[torch.cuda.Event]:
    """The current stream is busy for a while; the event is done when it no longer is."""
    torch.cuda._sleep(int(2e8))
    event = torch.cuda.Event()
    event.record(torch.cuda.current_stream(device))
    yield event
    torch.cuda.synchronize()
