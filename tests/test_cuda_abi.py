"""What `csrc/abi/cuda_*.h` declares of the CUDA driver is what the toolkit's `cuda.h` declares.

The comparison is made by the compiler, in `tests/cpp/cuda_abi_check.cpp`, where a toolkit of CUDA
13.0 or later is installed. What is tested here besides is that it would notice a difference, and
that it leaves nothing out.
"""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
TYPES = ROOT / "csrc" / "abi" / "cuda_driver.h"
FUNCTIONS = ROOT / "csrc" / "abi" / "cuda_functions.h"
CHECK = ROOT / "tests" / "cpp" / "cuda_abi_check.cpp"


def find_toolkit() -> Path | None:
    """The include directory of the newest toolkit that has all of our functions."""
    compiler = shutil.which("nvcc")
    roots = [*Path("/usr/local").glob("cuda*")]
    if compiler:
        roots.append(Path(compiler).resolve().parents[1])
    found: list[tuple[int, Path]] = []
    for root in roots:
        for header in (root / "include" / "cuda.h", *root.glob("targets/*/include/cuda.h")):
            if header.is_file() and (header.parent / "cudaTypedefs.h").is_file():
                text = header.read_text(encoding="utf-8", errors="replace")
                version = re.search(r"#define CUDA_VERSION (\d+)", text)
                if version and int(version[1]) >= 13000:
                    found.append((int(version[1]), header.parent))
    return max(found)[1] if found else None


TOOLKIT = find_toolkit()
needs_toolkit = pytest.mark.skipif(
    TOOLKIT is None, reason="the headers of CUDA 13.0 or later are not installed"
)


def compile_check(csrc: Path) -> subprocess.CompletedProcess[str]:
    compiler = os.environ.get("CXX") or shutil.which("c++") or shutil.which("g++") or "c++"
    return subprocess.run(
        [
            *compiler.split(),
            "-std=c++20",
            "-fsyntax-only",
            f"-I{csrc}",
            f"-isystem{TOOLKIT}",
            str(CHECK),
        ],
        capture_output=True,
        text=True,
        check=False,
    )


@needs_toolkit
def test_declarations_are_those_of_the_toolkit() -> None:
    result = compile_check(ROOT / "csrc")
    assert result.returncode == 0, result.stderr


@needs_toolkit
@pytest.mark.parametrize(
    ("before", "after", "complaint"),
    [
        ("kErrorNotReady = 600,", "kErrorNotReady = 601,", "CUDA_ERROR_NOT_READY value"),
        ("kHostNumaId = 134,", "kHostNumaId = 135,", "CU_DEVICE_ATTRIBUTE_HOST_NUMA_ID value"),
        ("kHostRegisterReadOnly = 8;", "kHostRegisterReadOnly = 4;", "READ_ONLY value"),
        ("enum Result : std::uint32_t", "enum Result : std::int32_t", "CUresult type"),
        ("using Device = int;", "using Device = long;", "CUdevice type"),
        ("  unsigned flags;", "  std::size_t flags;", "CUmemcpyAttributes size"),
        (
            "Location source_hint;\n  Location destination_hint;",
            "Location destination_hint;\n  Location source_hint;",
            "CUmemcpyAttributes.srcLocHint offset",
        ),
        ("(Event, Stream))", "(Stream, Event))", "cuEventRecord parameters"),
        ("(void**, std::size_t, unsigned)", "(void**, unsigned, unsigned)", "cuMemHostAlloc para"),
        ("(DevicePtr, const void*,", "(DevicePtr, void*,", "cuMemcpyHtoDAsync_v2 parameters"),
        ("std::size_t, std::size_t*, Stream", "std::size_t, Stream", "BatchAsync parameters"),
        ("cuStreamDestroy_v2, 4000", "cuStreamDestroy_v2, 4010", "PFN_cuStreamDestroy_v4010"),
        ("cuInit, cuInit, 2000", "cuInit, cuInit_v2, 2000", "cuInit_v2"),
    ],
)
def test_a_difference_is_noticed(tmp_path: Path, before: str, after: str, complaint: str) -> None:
    texts = {header.name: header.read_text(encoding="utf-8") for header in (TYPES, FUNCTIONS)}
    assert sum(text.count(before) for text in texts.values()) == 1
    changed = tmp_path / "abi"
    changed.mkdir()
    for name, text in texts.items():
        (changed / name).write_text(text.replace(before, after), encoding="utf-8")

    result = compile_check(tmp_path)

    assert result.returncode != 0
    assert complaint in result.stderr


@needs_toolkit
def test_symbols_are_those_of_their_versions() -> None:
    """Versions of a function with one type are told apart by what `cuda.h` renames it to."""
    assert TOOLKIT is not None
    header = (TOOLKIT / "cuda.h").read_text(encoding="utf-8", errors="replace")
    typedefs = (TOOLKIT / "cudaTypedefs.h").read_text(encoding="utf-8", errors="replace")
    renamed = dict(
        re.findall(r"^#define (cu\w+) +(?:__CUDA_API_PT[DS][SZ]\()?(cu\w+)", header, re.MULTILINE)
    )
    rows = re.findall(r"X\(\w+, (cu\w+), (cu\w+), (\d+),", FUNCTIONS.read_text(encoding="utf-8"))
    assert len(rows) > 30
    for name, symbol, version in rows:
        newest = max(int(found) for found in re.findall(rf"PFN_{name}_v(\d+)\)", typedefs))
        expected = renamed.get(name, name) if int(version) == newest else name
        assert symbol == expected, name


def test_nothing_is_left_out() -> None:
    """Every type, constant and field of our header stands in the check."""
    header = re.sub(r"//.*", "", TYPES.read_text(encoding="utf-8"))
    check = CHECK.read_text(encoding="utf-8")
    enums = re.findall(r"enum (\w+) : std::uint32_t \{(.*?)\};", header, flags=re.DOTALL)
    constants = [name for _, body in enums for name in re.findall(r"(k\w+) = \d+", body)]
    constants += re.findall(
        r"(k\w+) = \d+[,;]", re.sub(r"enum .*?\};", "", header, flags=re.DOTALL)
    )
    assert len(enums) == len(re.findall(r"^enum ", header, flags=re.MULTILINE))
    assert len(constants) == len(re.findall(r"k\w+ = \d+", header)) > 45
    for name, _ in enums:
        assert f"SAME_ENUM({name}, " in check, name
    for constant in constants:
        assert re.search(rf"SAME_VALUE\({constant},\s", check), constant
    structs = re.findall(r"^struct (\w+) \{(.*?)\n\};", header, flags=re.DOTALL | re.MULTILINE)
    assert len(structs) == 2
    for name, body in structs:
        assert f"SAME_STRUCT({name}, " in check, name
        for field in re.findall(r"(\w+);", body):
            assert f"SAME_FIELD({name}, {field}, " in check, f"{name}.{field}"
    for name in re.findall(r"^using (\w+) =", header, flags=re.MULTILINE):
        assert f"ours::{name}" in check, name
    assert "DLFERRY_CUDA_FUNCTIONS(SAME_FUNCTION)" in check
