"""The architecture is a test: who may include or import whom, and how large a file may grow.

`violations(root)` reads the text of a tree and lists what breaks a rule. The project's own tree
must have none, and small made-up trees show that each rule is noticed.
"""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

# Each floor may include what stands on it or below, in this order.
FLOORS = ("abi", "tensor", "cuda", "python")
KNOWS_PYTHON = "python"

# Lines a file may have: past that it holds two nouns.
MAX_LINES = {
    "csrc/**/*.h": 120,
    "csrc/**/*.cpp": 300,
    "tests/cpp/**/*.cpp": 400,
    "tests/sim/**/*.cpp": 300,
    "python/**/*.py": 250,
    "tests/**/*.py": 400,
    "benchmarks/**/*.py": 400,
    "examples/**/*.py": 400,
}

INCLUDE = re.compile(r'^\s*#\s*include\s*([<"])([^>"]+)[>"]', re.MULTILINE)
COMMENT_OR_STRING = re.compile(r'//[^\n]*|/\*.*?\*/|("(?:\\.|[^"\\\n])*")', re.DOTALL)
PYTHON_NAMES = re.compile(r"\bPython\.h\b|(?i:pybind11|numpy)|\bPy[A-Z_]\w*")
FOREIGN_HEADER = re.compile(r"^(torch|ATen|c10|caffe2|cuda\w*|nvml)\b")


def without_comments(text: str) -> str:
    return COMMENT_OR_STRING.sub(lambda match: match.group(1) or " ", text)


def cpp_violations(csrc: Path) -> Iterator[str]:
    for path in sorted([*csrc.rglob("*.h"), *csrc.rglob("*.cpp"), *csrc.rglob("*.cu")]):
        name = path.relative_to(csrc).as_posix()
        floor = name.split("/")[0]
        if floor not in FLOORS:
            yield f"csrc/{name}: stands on no floor"
            continue
        code = without_comments(path.read_text(encoding="utf-8"))
        for bracket, target in INCLUDE.findall(code):
            if bracket == "<":
                if FOREIGN_HEADER.match(target):
                    yield f"csrc/{name}: includes {target}, which the build must not need"
            elif not (csrc / target).is_file() or target.split("/")[0] not in FLOORS:
                yield f'csrc/{name}: "{target}" is not a path from csrc/'
            elif FLOORS.index(target.split("/")[0]) > FLOORS.index(floor):
                yield f"csrc/{name}: includes {target}, which stands above it"
        if floor != KNOWS_PYTHON:
            for word in sorted(set(PYTHON_NAMES.findall(code))):
                yield f"csrc/{name}: names {word}; only csrc/python/ knows Python"
        if name != "cuda/driver.cpp" and re.search(r"\bdlopen\b", code):
            yield f"csrc/{name}: names dlopen; only csrc/cuda/driver.cpp does"


def is_type_checking(test: ast.expr) -> bool:
    return ast.unparse(test) in {"TYPE_CHECKING", "typing.TYPE_CHECKING"}


def imports_at_run_time(node: ast.AST) -> Iterator[tuple[str, bool]]:
    """Names of the modules that `node` imports, and whether merely importing it does so."""

    def walk(node: ast.AST, at_once: bool) -> Iterator[tuple[str, bool]]:
        if isinstance(node, ast.Import):
            yield from ((alias.name, at_once) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = "dlferry" if node.level else ""
            module = ".".join(part for part in (base, node.module) if part)
            yield module, at_once
            yield from ((f"{module}.{alias.name}", at_once) for alias in node.names)
        elif isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            if called in {"importlib.import_module", "import_module", "__import__"} and node.args:
                yield ast.unparse(node.args[0]).strip("'\""), at_once
        children = ast.iter_child_nodes(node)
        if isinstance(node, ast.If) and is_type_checking(node.test):
            children = iter(node.orelse)
        inside = isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
        for child in children:
            yield from walk(child, at_once and not inside)

    yield from walk(node, True)


def python_violations(package: Path) -> Iterator[str]:
    arrows: dict[str, set[str]] = {}
    for path in sorted(package.glob("*.py")):
        found = list(imports_at_run_time(ast.parse(path.read_text(encoding="utf-8"))))
        for module, at_once in found:
            if module.split(".")[0] == "torch":
                if path.name != "_torch.py":
                    yield f"{path.name}: imports {module}; _torch.py is the one door to torch"
                elif at_once:
                    yield f"{path.name}: imports {module} when it is itself imported"
        modules = {module.split(".")[1] for module, _ in found if module.startswith("dlferry.")}
        arrows[path.stem] = {name for name in modules if (package / f"{name}.py").is_file()}
    yield from cycles(arrows)


def cycles(arrows: dict[str, set[str]]) -> Iterator[str]:
    done: set[str] = set()

    def visit(name: str, above: tuple[str, ...]) -> Iterator[str]:
        if name in above:
            yield "imports run in a circle: " + " -> ".join((*above[above.index(name) :], name))
        elif name not in done:
            for below in sorted(arrows.get(name, ())):
                yield from visit(below, (*above, name))
            done.add(name)

    for name in sorted(arrows):
        yield from visit(name, ())


def size_violations(root: Path) -> Iterator[str]:
    for pattern, limit in MAX_LINES.items():
        for path in sorted(root.glob(pattern)):
            lines = len(path.read_text(encoding="utf-8").splitlines())
            if lines > limit:
                yield f"{path.relative_to(root).as_posix()}: {lines} lines, of {limit} at most"


def listed_violations(root: Path) -> Iterator[str]:
    """The sources that exist are the sources that are built."""
    listed = set(re.findall(r"csrc/\S+\.cpp", (root / "CMakeLists.txt").read_text("utf-8")))
    there = {path.relative_to(root).as_posix() for path in (root / "csrc").rglob("*.cpp")}
    yield from (f"CMakeLists.txt: does not build {name}" for name in sorted(there - listed))
    yield from (
        f"CMakeLists.txt: lists {name}, which is missing" for name in sorted(listed - there)
    )


def violations(root: Path) -> list[str]:
    return [
        *cpp_violations(root / "csrc"),
        *python_violations(root / "python" / "dlferry"),
        *size_violations(root),
        *listed_violations(root),
    ]


def test_the_project_keeps_its_floors() -> None:
    assert violations(ROOT) == []


# A tree in order, which the cases below disturb one file at a time.
SOUND = {
    "CMakeLists.txt": "add_library(t csrc/tensor/view.cpp csrc/cuda/driver.cpp csrc/python/m.cpp)",
    "csrc/abi/dlpack.h": "#include <cstdint>\n",
    "csrc/tensor/view.h": '#include "abi/dlpack.h"\n// As NumPy and PyObject_GetBuffer say.\n',
    "csrc/tensor/view.cpp": '#include "tensor/view.h"\n',
    "csrc/cuda/driver.h": '#include "tensor/view.h"\n',
    "csrc/cuda/driver.cpp": '#include "cuda/driver.h"\n#include <dlfcn.h>\nauto f = &dlopen;\n',
    "csrc/python/m.cpp": '#include <Python.h>\n#include "cuda/driver.h"\nPyObject* one;\n',
    "python/dlferry/__init__.py": "from dlferry import _convert\n",
    "python/dlferry/_convert.py": (
        "from typing import TYPE_CHECKING\n"
        "from . import _torch\n"
        "if TYPE_CHECKING:\n    import torch\n    from dlferry import __init__\n"
    ),
    "python/dlferry/_torch.py": "def door():\n    import torch\n    return torch\n",
}


def write_tree(root: Path, changes: dict[str, str]) -> None:
    for name, text in (SOUND | changes).items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


def test_a_sound_tree_has_no_violation(tmp_path: Path) -> None:
    write_tree(tmp_path, {})
    assert violations(tmp_path) == []


@pytest.mark.parametrize(
    ("name", "text", "complaint"),
    [
        ("csrc/abi/dlpack.h", '#include "tensor/view.h"', "stands above it"),
        ("csrc/tensor/view.h", '#include "cuda/driver.h"', "stands above it"),
        ("csrc/cuda/driver.h", '  #  include "python/m.cpp"', "stands above it"),
        ("csrc/tensor/view.cpp", '#include "view.h"', "not a path from csrc/"),
        ("csrc/tensor/view.cpp", "#include <Python.h>", "only csrc/python/ knows Python"),
        ("csrc/tensor/view.cpp", "#include <pybind11/pybind11.h>", "only csrc/python/ knows"),
        ("csrc/cuda/driver.h", "#include <numpy/ndarraytypes.h>", "only csrc/python/ knows"),
        ("csrc/tensor/view.cpp", "struct PyObject;", "only csrc/python/ knows Python"),
        ("csrc/python/m.cpp", "#include <torch/extension.h>", "must not need"),
        ("csrc/python/m.cpp", "#include <ATen/dlpack.h>", "must not need"),
        ("csrc/cuda/driver.h", "#include <cuda.h>", "must not need"),
        ("csrc/cuda/driver.h", "#include <cuda_runtime_api.h>", "must not need"),
        ("csrc/cuda/driver.h", '#include "cuda.h"', "not a path from csrc/"),
        ("csrc/python/m.cpp", 'auto* f = dlopen("x", 1);', "names dlopen"),
        ("csrc/misc/thing.h", "", "stands on no floor"),
        ("csrc/tensor/new.cpp", "", "does not build csrc/tensor/new.cpp"),
        ("CMakeLists.txt", "csrc/tensor/gone.cpp", "lists csrc/tensor/gone.cpp"),
        ("csrc/tensor/view.h", "\n" * 121, "121 lines, of 120"),
        ("csrc/tensor/view.cpp", "\n" * 301, "301 lines, of 300"),
        ("python/dlferry/_convert.py", "\n" * 251, "251 lines, of 250"),
        ("tests/test_x.py", "\n" * 401, "401 lines, of 400"),
        ("python/dlferry/_convert.py", "import torch", "the one door"),
        ("python/dlferry/_convert.py", "def f():\n    from torch.utils import dlpack", "one door"),
        (
            "python/dlferry/_convert.py",
            "import importlib\nimportlib.import_module('torch')",
            "door",
        ),
        ("python/dlferry/_torch.py", "import torch", "when it is itself imported"),
        ("python/dlferry/_torch.py", "from dlferry import _convert", "_convert -> _torch"),
        ("python/dlferry/_torch.py", "def f():\n    from . import _convert", "_convert -> _torch"),
    ],
)
def test_each_rule_is_noticed(tmp_path: Path, name: str, text: str, complaint: str) -> None:
    write_tree(tmp_path, {name: text})
    assert any(complaint in found for found in violations(tmp_path)), violations(tmp_path)
