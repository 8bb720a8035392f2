"""The examples run as their readers would run them, and say what is true."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

# Runs a script with the network shut and every warning an error.
OFFLINE = """
import runpy, socket, sys, warnings

def refuse(*args, **kwargs):
    raise AssertionError("an example reached for the network")

socket.socket.connect = refuse
socket.create_connection = refuse
socket.getaddrinfo = refuse
warnings.simplefilter("error")
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def run_example(name: str, *arguments: str) -> str:
    environment = {**os.environ, "COLUMNS": "120", "NO_COLOR": "1", "PYTHONIOENCODING": "utf-8"}
    done = subprocess.run(
        [sys.executable, "-c", OFFLINE, str(ROOT / "examples" / name), *arguments],
        capture_output=True,
        encoding="utf-8",
        env=environment,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    return done.stdout


@pytest.fixture(scope="module")
def photographs() -> str:
    return run_example("photographs.py", "--quick")


def line_with(text: str, *parts: str) -> str:
    lines = [line for line in text.splitlines() if all(part in line for part in parts)]
    assert len(lines) == 1, f"{parts}: {lines or text}"
    return lines[0].rstrip()


@pytest.mark.parametrize("name", ["astronaut", "cat", "coffee", "rocket"])
def test_photographs_are_real_ones(photographs: str, name: str) -> None:
    line = next(line for line in photographs.splitlines() if line.startswith(f"   {name}"))
    height, width = re.findall(r"(\d+)x(\d+)x3", line)[0]
    assert int(height) >= 288
    assert int(width) >= 288


@pytest.mark.parametrize(
    "parts",
    [
        ("the photograph ", "asarray(x) "),
        ("photo[:288, :288]",),
        ("photo.transpose(2, 0, 1)",),
        ("photo[::2, ::2]",),
        ("photo[..., 1]",),
        ("read-only", 'readonly="share"'),
        ("a crop, channels first",),
        ("the model's maps",),
    ],
)
def test_photographs_share_what_a_tensor_can_represent(
    photographs: str, parts: tuple[str, ...]
) -> None:
    assert line_with(photographs, *parts).endswith("shared")


@pytest.mark.parametrize(
    ("parts", "reason"),
    [
        (("photo[:, ::-1]",), "strides"),
        (("photo[::-1]",), "strides"),
        (("photo[..., ::-1]",), "strides"),
        (("big-endian",), "byte order"),
        (("nested lists",), "sequence"),
        (("read-only", "asarray(x) "), "read-only"),
        (("the photograph ", "dtype=float32"), "dtype"),
        (("conjugated",), "conjugate"),
    ],
)
def test_photographs_name_the_reason_for_each_copy(
    photographs: str, parts: tuple[str, ...], reason: str
) -> None:
    assert re.search(rf"copied +{reason}$", line_with(photographs, *parts))


def test_photographs_draw_the_edges_of_all_four(photographs: str) -> None:
    lines = photographs.splitlines()
    head = next(place for place, line in enumerate(lines) if re.match(r"astronaut +cat ", line))
    picture = [line.ljust(105) for line in lines[head + 1 : head + 13]]
    for left in (0, 27, 54, 81):
        shades = {shade for line in picture for shade in line[left : left + 24]}
        assert "@" in shades, "the strongest edge of a photograph is missing"
        assert len(shades) > 4, "a photograph has more than an outline"


@pytest.mark.parametrize(
    ("call", "against"),
    [
        ("dlferry.asarray(x)", "torch.as_tensor(x)"),
        ("dlferry.asarray(x)", "torch.from_numpy(x)"),
        ("dlferry.from_dlpack(x)", "torch.from_dlpack(x)"),
        ("dlferry.asarray(x)", "torch.asarray(x)"),
        ("dlferry.to_numpy(x)", "x.numpy()"),
    ],
)
def test_photographs_compare_with_torch(photographs: str, call: str, against: str) -> None:
    found = re.findall(
        rf"{re.escape(call)} +{re.escape(against)} +([\d,]+) +([\d,]+) +([\d.e+]+)x", photographs
    )
    assert found
    for ours, theirs, ratio in found:
        assert int(ours.replace(",", "")) >= 0
        assert int(theirs.replace(",", "")) > 0
        assert float(ratio) > 0
