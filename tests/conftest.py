"""Fixtures and marks that every test shares."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

# The exchange table must go before dlferry first looks for it, hence at import of this file.
if os.environ.get("DLFERRY_TEST_HIDE_EXCHANGE") == "1":
    for _klass in torch.Tensor.__mro__:
        if "__dlpack_c_exchange_api__" in vars(_klass):
            delattr(_klass, "__dlpack_c_exchange_api__")
    assert not hasattr(torch.Tensor, "__dlpack_c_exchange_api__")

import numpy as np

import dlferry

# `forge`, `regions` and `kinds` stand beside the contract tests and are imported by name,
# whichever import mode pytest runs in.
sys.path.insert(0, str(Path(__file__).parent / "contract"))

SEED = 20260522


def pytest_configure(config: pytest.Config) -> None:
    """Registers the marks and turns every warning into a failure."""
    config.addinivalue_line("filterwarnings", "error")
    config.addinivalue_line("markers", "native: holds for the native core only")
    config.addinivalue_line("markers", "fallback: holds for the fallback only")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselects what the contract promises of the other core only.

    Deselected rather than skipped, so that a skip in the summary always means a gap.
    """
    other = "fallback" if dlferry.show_config()["native"] else "native"
    gone = [item for item in items if item.get_closest_marker(other)]
    if gone:
        config.hook.pytest_deselected(items=gone)
        items[:] = [item for item in items if not item.get_closest_marker(other)]


@pytest.fixture(scope="session")
def native() -> bool:
    """Whether the native core serves this run."""
    return bool(dlferry.show_config()["native"])


@pytest.fixture
def rng() -> np.random.Generator:
    """A seeded NumPy generator; torch's global generator is seeded with it."""
    torch.manual_seed(SEED)
    return np.random.default_rng(SEED)


@pytest.fixture(autouse=True)
def torch_defaults() -> Iterator[None]:
    """Gives torch's global defaults back after each test."""
    dtype = torch.get_default_dtype()
    yield
    torch.set_default_dtype(dtype)
    torch.set_default_device(None)
