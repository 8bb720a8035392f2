"""The wheel: what it holds and asks for, and that it works where NumPy is all there is.

`DLFERRY_WHEEL` names the wheel to look at, as `make test` does; without it, one is built.
"""

import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest

pytestmark = pytest.mark.native

ROOT = Path(__file__).resolve().parents[1]
TOOLS = ROOT / "tests" / "wheel"
NO_COMPILER = {"CXX": shutil.which("false") or "/bin/false"}


def run(*command: object, **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs outside of whatever this run was told about the core, and outside of the checkout."""
    outside = {k: v for k, v in os.environ.items() if not k.startswith(("DLFERRY_", "PYTHON"))}
    return subprocess.run(
        [str(part) for part in command],
        capture_output=True,
        text=True,
        check=False,
        cwd="/",
        env=outside | environment,
    )


def checked(*command: object, **environment: str) -> str:
    result = run(*command, **environment)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def pip_wheel(target: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    options = ("--no-deps", "--no-build-isolation", "--wheel-dir", target)
    return run(sys.executable, "-m", "pip", "wheel", *options, ROOT, **environment)


def only_wheel(folder: Path) -> Path:
    (wheel,) = folder.glob("*.whl")
    return wheel


@pytest.fixture(scope="module")
def native_wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    given = os.environ.get("DLFERRY_WHEEL")
    if given:
        return ROOT / given
    folder = tmp_path_factory.mktemp("native")
    result = pip_wheel(folder, DLFERRY_NATIVE="on")
    assert result.returncode == 0, result.stdout + result.stderr
    return only_wheel(folder)


@pytest.fixture(scope="module")
def pure_wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a source install gives where no compiler works."""
    folder = tmp_path_factory.mktemp("pure")
    result = pip_wheel(folder, **NO_COMPILER)
    assert result.returncode == 0, result.stdout + result.stderr
    return only_wheel(folder)


@pytest.fixture(scope="module")
def bare_python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An interpreter with NumPy and nothing else."""
    folder = tmp_path_factory.mktemp("bare")
    checked(sys.executable, "-m", "venv", "--without-pip", folder)
    python = folder / "bin" / "python"
    install(python, f"numpy=={np.__version__}")
    return python


def install(python: Path, what: object) -> None:
    options = ("--no-deps", "--force-reinstall")
    checked(sys.executable, "-m", "pip", "--python", python, "install", *options, what)


def test_contents_tag_and_symbols(native_wheel: Path) -> None:
    checked(sys.executable, TOOLS / "contents.py", native_wheel)


def test_a_pure_wheel_is_refused(pure_wheel: Path) -> None:
    assert pure_wheel.name.endswith("-py3-none-any.whl")
    result = run(sys.executable, TOOLS / "contents.py", pure_wheel)
    assert result.returncode != 0
    assert "not for one CPython and one platform" in result.stdout


def test_native_wheel_imports_without_torch(native_wheel: Path, bare_python: Path) -> None:
    install(bare_python, native_wheel)
    checked(bare_python, "-W", "error", TOOLS / "smoke.py", "native")


def test_pure_wheel_works_and_says_so_once(pure_wheel: Path, bare_python: Path) -> None:
    install(bare_python, pure_wheel)
    said = checked(bare_python, "-W", "error", TOOLS / "smoke.py", "pure")
    assert "core" in said


def test_insisting_on_the_core_shuts_the_way_out(tmp_path: Path) -> None:
    result = pip_wheel(tmp_path, DLFERRY_NATIVE="on", **NO_COMPILER)
    assert result.returncode != 0
    assert not list(tmp_path.iterdir())


def test_source_distribution_holds_what_the_build_needs(tmp_path: Path) -> None:
    build = "import sys, scikit_build_core.build as b; b.build_sdist(sys.argv[1])"
    checked("env", f"--chdir={ROOT}", sys.executable, "-c", build, tmp_path)
    (archive,) = tmp_path.glob("dlferry-*.tar.gz")
    with tarfile.open(archive) as files:
        names = {name.partition("/")[2] for name in files.getnames()}
    needed = [*(ROOT / "csrc").rglob("*.h"), *(ROOT / "csrc").rglob("*.cpp")]
    needed += [
        *(ROOT / "python" / "dlferry").glob("*.py*"),
        ROOT / "CMakeLists.txt",
        ROOT / "LICENSE",
    ]
    assert {path.relative_to(ROOT).as_posix() for path in needed} <= names
    assert not [name for name in names if name.startswith((".ci", ".venv", "build"))]
