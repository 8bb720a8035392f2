"""Imports an installed dlferry where NumPy is all there is: `python smoke.py native|pure`."""

import importlib.util
import logging
import os
import sys
import threading
from pathlib import Path

import numpy as np

expected_native = {"native": True, "pure": False}[sys.argv[1]]
assert importlib.util.find_spec("torch") is None, "this environment is not bare"
assert int(np.__version__.split(".")[0]) >= 1

records: list[logging.LogRecord] = []


class Recorder(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        records.append(record)


def threads() -> int:
    tasks = Path(f"/proc/{os.getpid()}/task")
    return len(list(tasks.iterdir())) if tasks.exists() else threading.active_count()


logging.getLogger("dlferry").setLevel(logging.INFO)
logging.getLogger("dlferry").addHandler(Recorder())
before = threads()

import dlferry  # noqa: E402  (what is looked at here is the import itself)

config = dlferry.show_config()
assert threads() == before, "importing dlferry started a thread"
assert "torch" not in sys.modules, "importing dlferry looked for torch"
assert Path(sys.prefix) in Path(dlferry.__file__).parents, dlferry.__file__
assert config["native"] is expected_native, config

if expected_native:
    assert config["native_reason"] is None, config
    assert not records, [record.getMessage() for record in records]
else:
    # Said once, in the log and in the configuration.
    assert isinstance(config["native_reason"], str), config
    assert len(records) == 1, [record.getMessage() for record in records]
    assert "\n" not in records[0].getMessage()
    print(records[0].getMessage())
