"""The DLPack layouts of `csrc/abi/dlpack.h` are those of the header that torch ships.

The comparison is made by the compiler, in `tests/cpp/dlpack_abi_check.cpp`. What is tested here
besides is that it would notice a difference, and that it leaves nothing out.
"""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[1]
HEADER = ROOT / "csrc" / "abi" / "dlpack.h"
CHECK = ROOT / "tests" / "cpp" / "dlpack_abi_check.cpp"
TORCH_INCLUDE = Path(torch.__file__).parent / "include"


def compile_check(csrc: Path) -> subprocess.CompletedProcess[str]:
    compiler = os.environ.get("CXX") or shutil.which("c++") or shutil.which("g++") or "c++"
    return subprocess.run(
        [
            *compiler.split(),
            "-std=c++20",
            "-fsyntax-only",
            f"-I{csrc}",
            f"-isystem{TORCH_INCLUDE}",
            str(CHECK),
        ],
        capture_output=True,
        text=True,
        check=False,
    )


def test_layouts_are_those_of_torch() -> None:
    result = compile_check(ROOT / "csrc")
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize(
    ("before", "after", "complaint"),
    [
        ("std::int32_t ndim;", "std::int64_t ndim;", "DLTensor.ndim type"),
        ("std::uint64_t byte_offset;", "std::int64_t byte_offset;", "DLTensor.byte_offset type"),
        (
            "std::uint64_t flags;\n  Tensor dl_tensor;",
            "Tensor dl_tensor;\n  std::uint64_t flags;",
            "DLManagedTensorVersioned.flags offset",
        ),
        ("std::uint16_t lanes;", "std::uint32_t lanes;", "DLDataType size"),
        ("kCUDAHost = 3,", "kCUDAHost = 4,", "kDLCUDAHost value"),
        ("kFlagIsCopied = 1U << 1U", "kFlagIsCopied = 1U << 3U", "IS_COPIED value"),
        (
            "current_work_stream)(std::int32_t device_type, std::int32_t device_id",
            "current_work_stream)(std::int32_t device_type, std::int64_t device_id",
            "DLPackExchangeAPI.current_work_stream type",
        ),
        (
            "(void* py_object, Tensor* out)",
            "(void* py_object, Tensor** out)",
            "DLPackExchangeAPI.dltensor_from_py_object_no_sync type",
        ),
    ],
)
def test_a_difference_is_noticed(tmp_path: Path, before: str, after: str, complaint: str) -> None:
    text = HEADER.read_text(encoding="utf-8")
    assert text.count(before) == 1
    changed = tmp_path / "abi" / "dlpack.h"
    changed.parent.mkdir()
    changed.write_text(text.replace(before, after), encoding="utf-8")

    result = compile_check(tmp_path)

    assert result.returncode != 0
    assert complaint in result.stderr


def test_nothing_is_left_out() -> None:
    """Every field and every constant of our header stands in the check."""
    header = re.sub(r"//.*", "", HEADER.read_text(encoding="utf-8"))
    check = CHECK.read_text(encoding="utf-8")
    structs = re.findall(r"struct (\w+) \{(.*?)\n\};", header, flags=re.DOTALL)
    assert len(structs) == 8
    for name, body in structs:
        # A declarator is the last word before `;`, or the name inside `(*name)` at the outer level.
        members = re.findall(
            r"^  (?:[\w:]+\*? (\w+);|[\w:]+ \(\*(\w+)\))", body, flags=re.MULTILINE
        )
        fields = [plain or function for plain, function in members]
        assert len(fields) == len(re.findall(r";", body)), name
        for field in fields:
            assert re.search(rf"SAME_FIELD\({name}, \w+, {field}\);", check), f"{name}.{field}"
    enumerators = re.findall(r"^  (k\w+) = \d+,", header, flags=re.MULTILINE)
    flags = re.findall(r"std::uint64_t (kFlag\w+) =", header)
    assert len(enumerators) > 20
    assert len(flags) == 3
    for constant in [*enumerators, *flags]:
        assert f"SAME_VALUE({constant}, " in check, constant
