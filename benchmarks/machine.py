"""The machine and the versions that a result belongs to."""

from __future__ import annotations

import datetime as dt
import os
import platform
import re
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any


def describe() -> dict[str, Any]:
    """Everything a reader needs to judge a number: hardware, versions, settings, load, date.

    The GPU is among it where torch has begun to use one.
    """
    import numpy as np
    import torch

    import dlferry

    return {
        **({"gpu": gpu()} if _gpu_in_use() else {}),
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
    """A short name for file names: the processor, the number of cores, and a GPU in use."""
    import torch

    words = re.sub(r"\((r|tm)\)|cpu|processor|@.*", " ", cpu_model().lower())
    used = torch.cuda.get_device_name() if _gpu_in_use() else ""
    return "-".join([*_words(words), f"{core_count()}cores", *_words(used.lower())])


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


def gpu() -> dict[str, Any]:
    """torch's current GPU, its driver, and its link as `nvidia-smi` and the kernel know them."""
    import torch

    properties = torch.cuda.get_device_properties(torch.cuda.current_device())
    asked = ("driver_version", "pcie.link.gen.max", "pcie.link.width.max", "clocks.max.sm")
    known = dict(zip(asked, _nvidia_smi(asked, _uuid(properties)), strict=False))
    driver = re.search(r"\s(\d+\.\d+[.\d]*)\s", _read("/proc/driver/nvidia/version"))
    generation = known.get("pcie.link.gen.max", "?")
    return {
        "name": properties.name,
        "memory_gib": round(properties.total_memory / 2**30, 1),
        "multiprocessors": properties.multi_processor_count,
        "capability": f"{properties.major}.{properties.minor}",
        "driver": known.get("driver_version") or (driver.group(1) if driver else "unknown"),
        "cuda": torch.version.cuda,
        "link": f"PCIe gen {generation} x{known.get('pcie.link.width.max', '?')}",
        "highest_clock": known.get("clocks.max.sm", "unknown"),
    }


def _uuid(properties: Any) -> str:
    """As `nvidia-smi` writes it."""
    return "GPU-" + str(properties.uuid).removeprefix("GPU-")


def _gpu_in_use() -> bool:
    import torch

    cuda: Any = torch.cuda  # torch leaves this one without types
    return bool(cuda.is_available() and cuda.is_initialized())


def _nvidia_smi(asked: Sequence[str], identity: str) -> list[str]:
    """What it answers, in the order of the questions; nothing where it is missing or fails."""
    command = ["nvidia-smi", f"--query-gpu={','.join(asked)}", "--format=csv,noheader"]
    try:
        done = subprocess.run(
            [*command, f"--id={identity}"], capture_output=True, text=True, timeout=20, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return []
    return [word.strip() for word in done.stdout.strip().split(",")]


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


def _words(text: str) -> list[str]:
    return re.findall(r"[a-z0-9]+", text)


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
