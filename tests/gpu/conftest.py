"""What only hardware shows: `make test-gpu`, where there is a GPU and a torch that uses it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import dlferry

# `hardware` stands here, and is imported by name, whichever import mode pytest runs in.
sys.path.insert(0, str(Path(__file__).parent))

from hardware import keep_busy, settle

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


@pytest.fixture(scope="session")
def device() -> torch.device:
    """The device, with what is made once only made: contexts, threads and staging memory."""
    device = torch.device("cuda", torch.cuda.current_device())
    for size in (10, 6_000_000):
        there = dlferry.to_device([np.ones(size, np.float32)], device)[0]
        dlferry.to_host([there, there + 1])
    settle()
    return device


@pytest.fixture(autouse=True)
def nothing_stays_behind(device: torch.device) -> Iterator[None]:
    """No test leaves device memory behind. (What a failed one held may go during the next.)"""
    before = torch.cuda.memory_allocated()
    yield
    settle(collect=False)
    if torch.cuda.memory_allocated() > before:
        settle()
    assert torch.cuda.memory_allocated() <= before


@pytest.fixture
def busy(device: torch.device) -> Iterator[Any]:
    """The current stream is busy for a while; the event is done when it no longer is."""
    yield keep_busy(torch.cuda.current_stream(device))
    torch.cuda.synchronize()
