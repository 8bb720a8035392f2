"""What `import dlferry` does and leaves undone."""

from __future__ import annotations
import __future__

import os
import subprocess
import sys
import types
from typing import Any

import pytest

import dlferry

PROMISED = {
    "asarray", "from_dlpack", "to_numpy", "stack", "explain", "copy_guard",
    "transfer", "to_device", "to_host", "copyto", "Transfer", "prefetch", "collate",
    "empty_pinned", "pin", "memory_stats", "show_config",
    "CopyRequired", "UnsupportedInput", "DriverUnavailable", "CudaError",
}  # fmt: skip

MAPS = "import pathlib; maps = pathlib.Path('/proc/self/maps').read_text()"


def run(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs a line of Python in a fresh interpreter."""
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={**os.environ, **environment},
    )


def answer(code: str, **environment: str) -> str:
    """What that line prints; it must end well, and say nothing on the error stream."""
    done = run(code, **environment)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout.strip()


def test_torch_is_not_imported() -> None:
    assert answer("import dlferry, sys; print('torch' in sys.modules)") == "False"


def test_what_knows_of_links_waits_for_the_first_transfer() -> None:
    late = ["_arrivals", "_arrow", "_blocks", "_crossing", "_link", "_queued"]
    code = f"import dlferry, sys; print([x for x in {late} if 'dlferry.' + x in sys.modules])"
    assert answer(code) == "[]"


def test_torch_is_imported_by_the_first_conversion() -> None:
    code = "import dlferry, sys; dlferry.asarray([1.0]); print('torch' in sys.modules)"
    assert answer(code) == "True"


def test_methods_of_torch_that_somebody_replaced_are_called() -> None:
    code = """
import torch
asked = []
def replaced(kind, name):
    own = getattr(kind, name)
    def method(self):
        asked.append(name)
        return own(self)
    setattr(kind, name, method)
replaced(torch.Tensor, "is_neg")
replaced(torch.Tensor, "untyped_storage")
replaced(torch.UntypedStorage, "resizable")
import dlferry
tensor = torch.arange(3.0)
arrays = [dlferry.to_numpy(tensor) for _ in range(2)]
print([a.tolist() for a in arrays], "untyped_storage" in asked)
"""
    assert answer(code) == f"{[[0.0, 1.0, 2.0]] * 2} True"


def test_asking_for_the_configuration_does_not_import_torch() -> None:
    code = "import dlferry, sys; dlferry.show_config(); print('torch' in sys.modules)"
    assert answer(code) == "False"


def test_no_thread_is_started() -> None:
    threads = "len(os.listdir('/proc/self/task'))"
    # NumPy may start threads of its own, so it comes first.
    code = f"import os, numpy; a = {threads}; import dlferry; print({threads} - a)"
    assert answer(code) == "0"


@pytest.mark.parametrize("library", ["libcuda.so", "libcudart", "libtorch", "libc10"])
def test_no_library_is_opened(library: str) -> None:
    code = f"import dlferry; {MAPS}; print({library!r} in maps)"
    assert answer(code) == "False"


def test_no_library_of_cuda_is_opened_by_a_conversion() -> None:
    code = (
        f"import torch, numpy, dlferry; {MAPS}; had = 'libcuda.so' in maps; "
        f"dlferry.to_numpy(dlferry.asarray(numpy.ones(3))); {MAPS}; "
        "print('libcuda.so' in maps and not had)"
    )
    assert answer(code) == "False"


def test_the_environment_is_left_alone() -> None:
    code = "import os; before = dict(os.environ); import dlferry; print(before == dict(os.environ))"
    assert answer(code) == "True"


def test_the_order_of_imports_plays_no_part() -> None:
    use = "print(dlferry.to_numpy(dlferry.asarray(numpy.ones(3))).sum())"
    for order in ("dlferry, numpy, torch", "torch, numpy, dlferry", "numpy, dlferry, torch"):
        assert answer(f"import {order}; {use}") == "3.0"


# --- names ---


def is_public(name: str, value: Any) -> bool:
    silent = isinstance(value, (types.ModuleType, __future__._Feature))
    return not name.startswith("_") and not silent


def test_the_public_names_are_the_declared_ones() -> None:
    declared = set(dlferry.__all__)
    assert declared >= PROMISED
    assert len(dlferry.__all__) == len(declared)
    for name in declared:
        assert getattr(dlferry, name) is getattr(dlferry, name)
    present = {name for name, value in vars(dlferry).items() if is_public(name, value)}
    assert present == {name for name in declared if not name.startswith("_")}


def test_other_names_are_not_there() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = dlferry.nothing  # type: ignore[attr-defined]


def test_every_public_name_has_a_docstring() -> None:
    for name in dlferry.__all__:
        if name == "__version__":
            continue
        assert getattr(dlferry, name).__doc__, name
    assert dlferry.__doc__


def test_a_star_import_gives_the_public_names() -> None:
    scope: dict[str, Any] = {}
    exec("from dlferry import *", scope)
    assert scope.keys() >= PROMISED


# --- which core ---

ASK = "import dlferry; c = dlferry.show_config(); print(c['native'], c['native_reason'])"


def test_show_config_says_which_core_and_why() -> None:
    config = dlferry.show_config()
    assert isinstance(config["native"], bool)
    if not config["native"]:
        assert isinstance(config["native_reason"], str) and config["native_reason"]
    asked = os.environ.get("DLFERRY_NATIVE", "auto")
    assert {"on": config["native"], "off": not config["native"]}.get(asked, True)


def test_off_is_the_fallback_and_names_itself() -> None:
    said = answer(ASK, DLFERRY_NATIVE="off")
    assert said.startswith("False") and "DLFERRY_NATIVE" in said


def test_on_insists() -> None:
    available = answer(ASK, DLFERRY_NATIVE="auto").startswith("True")
    done = run(ASK, DLFERRY_NATIVE="on")
    if available:
        assert done.returncode == 0 and done.stdout.startswith("True")
    else:
        assert done.returncode != 0 and "DLFERRY_NATIVE" in done.stderr


@pytest.mark.parametrize("value", ["banana", "1 ", "yes please"])
def test_an_unknown_setting_is_named(value: str) -> None:
    done = run(ASK, DLFERRY_NATIVE=value)
    assert done.returncode != 0
    last = done.stderr.strip().splitlines()[-1]
    assert "DLFERRY_NATIVE" in last and value.strip() in last
    for choice in ("auto", "on", "off"):
        assert choice in last


@pytest.mark.parametrize("setting", ["on", "off"])
def test_both_cores_give_the_same_answer(setting: str) -> None:
    if setting == "on" and not answer(ASK, DLFERRY_NATIVE="auto").startswith("True"):
        setting = "auto"
    code = "import dlferry, numpy as np; print(dlferry.asarray(np.arange(3)[::-1]).tolist())"
    assert answer(code, DLFERRY_NATIVE=setting) == "[2, 1, 0]"
