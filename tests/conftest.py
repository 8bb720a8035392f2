"""Fixtures and marks that every test shares."""

from __future__ import annotations

import gc
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

# `forge`, `regions` and `kinds` stand beside the contract tests, `sim_driver` and `sim_torch` here;
# they are imported by name, whichever import mode pytest runs in.
sys.path[:0] = [str(Path(__file__).parent / "contract"), str(Path(__file__).parent)]

from sim_driver import SimDriver, library_path  # noqa: E402
from sim_torch import SimDoor  # noqa: E402

SEED = 20260522

# Counters of the simulated driver: what nobody may hold any more, and what nobody may have done.
HELD = ("streams", "host_allocations", "registrations", "device_allocations")
MISUSE = ("pageable_copies", "freed_in_use", "invalid_handles", "foreign_streams")


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


def pytest_collection_finish() -> None:
    """Spares the collections that tests ask for a walk through all of torch."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def native() -> bool:
    """Whether the native core serves this run."""
    return bool(dlferry.show_config()["native"])


@pytest.fixture(scope="session")
def sim_driver() -> SimDriver:
    """The simulated driver, in place of libcuda for the rest of the session.

    A test that needs it fails where it has not been built: it is never skipped.
    """
    from dlferry._native import core

    sim = SimDriver(library_path())
    core.set_driver_library(str(sim.path))
    assert core.driver_state(True) == (13000, None)
    return sim


@pytest.fixture
def gpu(sim_driver: SimDriver, monkeypatch: pytest.MonkeyPatch) -> Iterator[SimDoor]:
    """torch's door with a simulated GPU behind it, which must be left as it was found."""
    from dlferry._native import core

    sim_driver.reset()
    door = SimDoor(sim_driver)
    door.install(monkeypatch)
    yield door
    gc.collect()
    door.wait()
    assert core.close_transfers(10.0, False)
    assert core.unfinished_count() == 0
    door.close()
    left = {name: sim_driver.count(name) for name in HELD}
    misused = {name: sim_driver.count(name) for name in MISUSE}
    sim_driver.reset()
    assert set(left.values()) == {0}, left
    assert set(misused.values()) == {0}, misused


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
