"""The stub `_core.pyi` says what the native module is.

stubtest compares the two, but has nothing to say about a name that stands in neither: hence the
list of builtins here.
"""

import ast
import inspect
import os
import subprocess
import sys
from pathlib import Path

import pytest

import dlferry

pytestmark = pytest.mark.native

# What pybind11 adds to every class of its own: a metaclass, and an `__init__` that refuses.
OPAQUE = ("Arrays", "Batch", "Source", "Transfer", "PinnedRange", "KnownRange")
ALLOWED = [
    *(f"dlferry._core.{name}" for name in OPAQUE),
    *(f"dlferry._core.{name}.__init__" for name in ("Arrays", "Batch", "Source", "Transfer")),
]

# What stands in torch's and NumPy's own sources plays no part here, and takes a minute to read.
# Without it the package's own modules would not pass, which are checked elsewhere.
CONFIGURATION = """
[mypy]
[mypy-torch.*,numpy.*]
follow_imports = skip
follow_imports_for_stubs = True
[mypy-dlferry.*]
ignore_errors = True
"""

PACKAGE = Path(__file__).resolve().parents[1] / "python" / "dlferry"
BUILTINS = ("asarray", "from_dlpack", "stack", "to_numpy")


def stub_functions() -> set[str]:
    tree = ast.parse((PACKAGE / "_core.pyi").read_text(encoding="utf-8"))
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


@pytest.mark.parametrize("name", BUILTINS)
def test_builtin_stands_in_stub_and_module(name: str) -> None:
    from dlferry import _core

    assert name in stub_functions()
    assert inspect.isbuiltin(getattr(_core, name))
    # What people call is the builtin itself, with nothing in front of it.
    assert getattr(dlferry, name) is getattr(_core, name)


@pytest.mark.parametrize("name", BUILTINS)
def test_builtin_has_a_signature_and_a_docstring(name: str) -> None:
    function = getattr(dlferry, name)
    parameters = list(inspect.signature(function).parameters.values())
    assert parameters[0].kind is inspect.Parameter.POSITIONAL_ONLY
    assert {parameter.kind for parameter in parameters[1:]} == {inspect.Parameter.KEYWORD_ONLY}
    assert inspect.getdoc(function)


def stubtest(package_root: Path, elsewhere: Path) -> subprocess.CompletedProcess[str]:
    allowlist = elsewhere / "allowed"
    allowlist.write_text("\n".join(ALLOWED), encoding="utf-8")
    configuration = elsewhere / "mypy.ini"
    configuration.write_text(CONFIGURATION, encoding="utf-8")
    command = [sys.executable, "-m", "mypy.stubtest", "dlferry._core"]
    command += ["--allowlist", str(allowlist), "--mypy-config-file", str(configuration)]
    return subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"MYPYPATH": str(package_root)},
        cwd=elsewhere,  # not where the package's source is: the installed module is what counts
    )


def test_stubtest_accepts_the_stub(tmp_path: Path) -> None:
    result = stubtest(PACKAGE.parent, tmp_path)
    assert result.returncode == 0, result.stdout + result.stderr


def test_stubtest_notices_a_wrong_stub(tmp_path: Path) -> None:
    """The run above looks at this stub and this module, and not past them."""
    package = tmp_path / "changed" / "dlferry"
    package.mkdir(parents=True)
    for file in PACKAGE.iterdir():
        if file.suffix in {".py", ".pyi", ".typed"}:
            (package / file.name).write_text(file.read_text(encoding="utf-8"), encoding="utf-8")
    stub = package / "_core.pyi"
    text = stub.read_text(encoding="utf-8")
    stub.write_text(text + "\n\ndef not_in_the_module() -> None: ...\n", encoding="utf-8")

    result = stubtest(package.parent, tmp_path)

    assert result.returncode != 0
    assert "not_in_the_module" in result.stdout
