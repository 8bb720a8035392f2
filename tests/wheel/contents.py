"""Says what is wrong with a native wheel: `python tests/wheel/contents.py WHEEL`, or nothing.

Looked at are the tag, the list of files, what the metadata asks for, and what the module needs from
the dynamic linker: one wheel serves every torch and every machine, with or without a GPU, only if
it links to neither.
"""

import re
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[2] / "python" / "dlferry"
TAG = re.compile(
    r"dlferry-(?P<version>[^-]+)-(?P<python>cp3\d+)-(?P=python)-(?P<platform>\w+)\.whl"
)
FORBIDDEN_SYMBOL = re.compile(r"torch|c10|^_ZNK?2at|caffe2|cuda|^cu[A-Z]|^nv[A-Z]")
ALLOWED_LIBRARY = re.compile(
    r"(libc|libm|libstdc\+\+|libgcc_s|libpthread|libdl|ld-linux[\w-]*)\.so"
)


def run(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def wrong_files(names: set[str], version: str) -> Iterator[str]:
    info = f"dlferry-{version}.dist-info"
    expected = {f"dlferry/{path.name}" for path in PACKAGE.glob("*.py")}
    expected |= {"dlferry/_core.pyi", "dlferry/py.typed"}
    expected |= {f"{info}/{name}" for name in ("METADATA", "WHEEL", "RECORD", "licenses/LICENSE")}
    modules = {name for name in names if re.fullmatch(r"dlferry/_core\.[\w.-]+\.so", name)}
    if len(modules) != 1:
        yield f"holds {len(modules)} native modules"
    yield from (f"lacks {name}" for name in sorted(expected - names))
    yield from (f"should not hold {name}" for name in sorted(names - expected - modules))


def wrong_metadata(text: str) -> Iterator[str]:
    required = sorted(re.findall(r"^Requires-Dist: (.*)$", text, flags=re.MULTILINE))
    unconditional = [line for line in required if "extra ==" not in line]
    if not re.fullmatch(r"numpy>=[\d.]+,torch>=[\d.]+", ",".join(unconditional)):
        yield f"requires {unconditional}, instead of numpy and torch from a version on"


def wrong_symbols(module: Path) -> Iterator[str]:
    for line in run("nm", "-D", "--undefined-only", str(module)).splitlines():
        symbol = line.split()[-1]
        if FORBIDDEN_SYMBOL.search(symbol):
            yield f"needs the symbol {symbol}"
    for line in run("nm", "-D", "--defined-only", str(module)).splitlines():
        symbol = line.split()[-1]
        if "dlferry" in symbol:
            yield f"exports {symbol}"
    for library in re.findall(r"\(NEEDED\).*\[(.*)\]", run("readelf", "-d", str(module))):
        if not ALLOWED_LIBRARY.match(library):
            yield f"needs the library {library}"


def wrong(wheel: Path) -> Iterator[str]:
    tag = TAG.fullmatch(wheel.name)
    if tag is None:
        yield f"is named {wheel.name}, which is not for one CPython and one platform"
        return
    with zipfile.ZipFile(wheel) as archive, tempfile.TemporaryDirectory() as scratch:
        names = set(archive.namelist())
        yield from wrong_files(names, tag["version"])
        info = f"dlferry-{tag['version']}.dist-info"
        yield from wrong_metadata(archive.read(f"{info}/METADATA").decode())
        if b"Root-Is-Purelib: false" not in archive.read(f"{info}/WHEEL"):
            yield "says that it is pure"
        for name in sorted(name for name in names if name.endswith(".so")):
            yield from wrong_symbols(Path(archive.extract(name, scratch)))


if __name__ == "__main__":
    complaints = list(wrong(Path(sys.argv[1])))
    print("\n".join(complaints))
    sys.exit(bool(complaints))
