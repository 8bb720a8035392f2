"""The machine and the versions that a result belongs to."""

from __future__ import annotations

import datetime as dt
import os
import platform
import re
from pathlib import Path
from typing import Any


def describe() -> dict[str, Any]:
    """Everything a reader needs to judge a number: hardware, versions, settings, load, date."""
    import numpy as np
    import torch

    import dlferry

    return {
        "name": name(),
        "cpu": cpu_model(),
        "cores": core_count(),
        "caches": caches(),
        "memory_gib": round(_memory_bytes() / 2**30, 1),
        "huge_pages": _chosen("/sys/kernel/mm/transparent_hugepage/enabled"),
        "load_at_start": load(),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torch_threads": torch.get_num_threads(),
        "numpy": np.__version__,
        "dlferry": getattr(dlferry, "__version__", "unknown"),
        "dlferry_config": {key: _plain(value) for key, value in dlferry.show_config().items()},
        "date": dt.datetime.now(dt.timezone.utc).isoformat(timespec="seconds"),
    }


def name() -> str:
    """A short name for file names: the processor and the number of cores."""
    words = re.sub(r"\((r|tm)\)|cpu|processor|@.*", " ", cpu_model().lower())
    return "-".join([*re.findall(r"[a-z0-9]+", words), f"{core_count()}cores"])


def core_count() -> int:
    """The cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def cpu_model() -> str:
    """The processor's name; where that is only a brand, with family and model."""
    fields: dict[str, str] = {}
    for line in _read("/proc/cpuinfo").splitlines():
        key, _, value = line.partition(":")
        fields.setdefault(key.strip(), value.strip())
    model = fields.get("model name") or platform.processor() or platform.machine()
    if any(character.isdigit() for character in model):
        return model
    return f"{model} family {fields.get('cpu family', '?')} model {fields.get('model', '?')}"


def load() -> float:
    """Processes that want a core, averaged over the last minute; this one included."""
    return round(os.getloadavg()[0], 2)


def caches() -> dict[str, str]:
    """Cache sizes as the first core sees them, by level and kind."""
    sizes: dict[str, str] = {}
    for index in sorted(Path("/sys/devices/system/cpu/cpu0/cache").glob("index*")):
        kind = _read(index / "type").strip()
        label = (
            "L" + _read(index / "level").strip() + {"Data": "d", "Instruction": "i"}.get(kind, "")
        )
        sizes[label] = _read(index / "size").strip()
    return sizes


def _memory_bytes() -> int:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError):
        return 0


def _chosen(path: str) -> str:
    """The word in brackets of a kernel setting such as `always [madvise] never`."""
    found = re.search(r"\[(\w+)\]", _read(path))
    return found.group(1) if found else "unknown"


def _read(path: str | Path) -> str:
    try:
        return Path(path).read_text()
    except OSError:
        return ""


def _plain(value: object) -> object:
    return value if isinstance(value, (bool, int, float, str, type(None))) else str(value)
