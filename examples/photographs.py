"""Real photographs to tensors, through a model, and back: what is shared, what is copied, and why.

    python examples/photographs.py            # the whole tour, under half a minute
    python examples/photographs.py --quick    # the same with a rough table of speeds

The photographs are files inside the scikit-image package; nothing is downloaded. Where this program
says "shared" or "copied" it has compared addresses, not asked the library.
"""

from __future__ import annotations

import argparse
import importlib.resources
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

import dlferry

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # for the harness of the benchmarks

from benchmarks.bench_exchange_latency import cases
from benchmarks.harness import Settings, measure
from benchmarks.machine import describe
from benchmarks.table import machine_line, show_table

Pixels = NDArray[np.uint8]

PHOTOGRAPHS = {
    "astronaut": ("astronaut.png", "Eileen Collins, NASA, public domain"),
    "cat": ("chelsea.png", "Chelsea, by Stefan van der Walt, CC0"),
    "coffee": ("coffee.png", "by Rachel Michetti, CC0"),
    "rocket": ("rocket.jpg", "Falcon 9, by SpaceX, public domain"),
}
CROP = 288
READ_ONLY = "read-only, as np.asarray(image) gives it"
SHADES = " .:-=+*#%@"


@dataclass(frozen=True)
class Conversion:
    """One conversion that has been made and looked at."""

    what: str
    call: str
    shape: tuple[int, ...]
    dtype: str
    shared: bool
    why: str

    def row(self) -> list[str]:
        form = f"{self.dtype} {'x'.join(map(str, self.shape))}"
        return [self.what, self.call, form, "shared" if self.shared else "copied", self.why]


class EdgeFinder(torch.nn.Module):
    """A small convolutional model: brightness, then Sobel filters, then a 12x24 map of edges."""

    def __init__(self) -> None:
        super().__init__()
        brightness = torch.tensor([0.299, 0.587, 0.114]) / 255
        sobel = torch.tensor([[1.0, 0.0, -1.0], [2.0, 0.0, -2.0], [1.0, 0.0, -1.0]])
        self.brightness = torch.nn.Parameter(brightness.reshape(1, 3, 1, 1))
        self.filters = torch.nn.Parameter(torch.stack([sobel, sobel.T]).unsqueeze(1))

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        gray = torch.nn.functional.conv2d(batch, self.brightness)
        slopes = torch.nn.functional.conv2d(gray, self.filters)
        strength = slopes.square().sum(dim=1, keepdim=True).sqrt()
        return torch.nn.functional.adaptive_avg_pool2d(strength, (12, 24)).squeeze(1)


def decode(file: str) -> Image.Image:
    """Decodes a photograph that lies inside the scikit-image package."""
    resource = importlib.resources.files("skimage") / "data" / file
    with resource.open("rb") as stream, Image.open(stream) as image:
        rgb: Image.Image = image.convert("RGB")
    return rgb


def why_copied(x: object, **request: Any) -> str:
    """The library's own reasons for a copy; nothing where it can share."""
    try:
        dlferry.asarray(x, copy=False, **request)
    except dlferry.CopyRequired as refusal:
        return ", ".join(refusal.reasons)
    return ""


def to_tensor(what: str, call: str, x: Any, **request: Any) -> tuple[Conversion, torch.Tensor]:
    """Converts `x`, and finds out from addresses whether memory was shared.

    Raises:
        AssertionError: The library's words and the addresses contradict each other, or the values
            differ.
    """
    tensor = dlferry.asarray(x, **request)
    array = np.asarray(x)
    shared = tensor.data_ptr() == _address(array) and np.shares_memory(array, tensor.numpy())
    why = why_copied(x, **request)
    assert shared == (why == ""), f"{what}: {'shared' if shared else 'copied'}, but said {why!r}"
    assert np.array_equal(array, tensor.numpy()), f"{what}: the values differ"
    dtype = str(tensor.dtype).removeprefix("torch.")
    return Conversion(what, call, tuple(tensor.shape), dtype, shared, why), tensor


def to_array(what: str, x: torch.Tensor) -> tuple[Conversion, NDArray[Any]]:
    """Converts a tensor to an array, and finds out from addresses whether memory was shared."""
    array = dlferry.to_numpy(x)
    shared = _address(array) == x.data_ptr() and not (x.is_conj() or x.is_neg())
    why = ""
    try:
        dlferry.to_numpy(x, copy=False)
    except dlferry.CopyRequired as refusal:
        why = ", ".join(refusal.reasons)
    assert shared == (why == ""), f"{what}: {'shared' if shared else 'copied'}, but said {why!r}"
    assert np.array_equal(array, x.detach().resolve_conj().resolve_neg().numpy()), what
    conversion = Conversion(what, "to_numpy(x)", array.shape, array.dtype.name, shared, why)
    return conversion, array


def _address(array: NDArray[Any]) -> int:
    return int(array.__array_interface__["data"][0])


def views_of(image: Image.Image) -> list[Conversion]:
    """A photograph in the forms that image code hands around."""
    photo = np.array(image)
    locked = np.asarray(image)
    assert not locked.flags.writeable
    plain: list[tuple[str, Any]] = [
        ("the photograph", photo),
        ("a crop: photo[:288, :288]", photo[:CROP, :CROP]),
        ("channels first: photo.transpose(2, 0, 1)", photo.transpose(2, 0, 1)),
        ("every second pixel: photo[::2, ::2]", photo[::2, ::2]),
        ("the green channel: photo[..., 1]", photo[..., 1]),
        ("mirrored: photo[:, ::-1]", photo[:, ::-1]),
        ("upside down: photo[::-1]", photo[::-1]),
        ("BGR instead of RGB: photo[..., ::-1]", photo[..., ::-1]),
        ("16 bits, big-endian, as PNG and TIFF store them", photo.astype(">u2")),
        ("one row as nested lists", photo[0].tolist()),
        (READ_ONLY, locked),
    ]
    conversions = [to_tensor(what, "asarray(x)", x)[0] for what, x in plain]
    share, _ = to_tensor(READ_ONLY, 'asarray(x, readonly="share")', locked, readonly="share")
    cast, _ = to_tensor("the photograph", "asarray(x, dtype=float32)", photo, dtype=torch.float32)
    return [*conversions, share, cast]


def find_edges(photos: Sequence[Pixels]) -> tuple[list[Conversion], NDArray[np.float32]]:
    """Batches a crop of every photograph, runs the model, and brings its maps back to NumPy."""
    conversions, crops = [], []
    for photo in photos:
        top, left = (photo.shape[0] - CROP) // 2, (photo.shape[1] - CROP) // 2
        crop = photo[top : top + CROP, left : left + CROP].transpose(2, 0, 1)
        conversion, tensor = to_tensor("a crop, channels first", "asarray(x)", crop)
        conversions.append(conversion)
        crops.append(tensor)
    assert all(conversion.shared for conversion in conversions)
    maps = EdgeFinder()(torch.stack(crops).float())
    back, edges = to_array("the model's maps, which require grad", maps)
    spectrum = torch.fft.rfft2(maps.detach())
    conjugate, _ = to_array("their spectrum, conjugated", spectrum.conj())
    return [conversions[0], back, conjugate], edges


def draw(names: Sequence[str], edges: NDArray[np.float32]) -> str:
    """The maps side by side, as text."""
    shades = np.array(list(SHADES))
    levels = (edges / edges.max(axis=(1, 2), keepdims=True) * (len(SHADES) - 1)).round()
    pictures = shades[levels.astype(int)]
    rows = [[name.ljust(24) for name in names]]
    rows += [["".join(picture[row]) for picture in pictures] for row in range(edges.shape[1])]
    return "\n".join("   ".join(row).rstrip() for row in rows)


def show_speed(photo: Pixels, settings: Settings) -> None:
    """Times the conversions of this photograph that copy nothing, against torch's own."""
    sections = []
    for case in cases(lambda _rng: photo):
        result = measure(case, settings)
        ours, others = result.timings[0], result.timings[1:]
        section = []
        for timing in others:
            assert timing.ratio is not None
            calls = [ours.contestant.title, timing.contestant.title]
            ns = [f"{each.ns.median:,.0f}" for each in (ours, timing)]
            section.append([case.title, *calls, *ns, f"{timing.ratio.median:.3g}x"])
        sections.append(section)
    columns = ["conversion", "dlferry", "without", "dlferry, ns", "without, ns", "times faster"]
    show_table(columns, sections, left=3)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Real photographs to tensors and back.")
    parser.add_argument("--quick", action="store_true", help="time the calls only roughly")
    options = parser.parse_args(arguments)
    images = {name: decode(file) for name, (file, _) in PHOTOGRAPHS.items()}
    photos = {name: np.array(image) for name, image in images.items()}
    styles = {"shared": "green", "copied": "yellow"}
    columns = ["what goes in", "call", "what comes out", "memory", "reason for the copy"]

    print("1. Four photographs, decoded to arrays of bytes\n")
    for name, photo in photos.items():
        shape = "x".join(map(str, photo.shape))
        print(f"   {name:10} {shape:10} {photo.nbytes // 1024:5} KiB   {PHOTOGRAPHS[name][1]}")

    print(
        "\n2. Views of the astronaut as tensors: shared where a tensor can represent the memory\n"
    )
    rows = [conversion.row() for conversion in views_of(images["astronaut"])]
    show_table(columns, [rows], left=5, styles=styles)

    print("3. A crop of each in one batch, through a small model that finds edges, and back\n")
    conversions, edges = find_edges(list(photos.values()))
    show_table(columns, [[each.row() for each in conversions]], left=5, styles=styles)
    print(draw(list(photos), edges))

    print("\n4. What one conversion costs when nothing is copied, in nanoseconds\n")
    print(machine_line(describe()))
    settings = Settings.for_smoke_test() if options.quick else Settings(21, 2_000_000, 1_000)
    show_speed(photos["astronaut"], settings)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
