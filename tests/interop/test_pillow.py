"""Pillow: images, by `__array_interface__`, which copies them out."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

import dlferry


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "I", "F", "I;16"])
def test_an_image_is_rows_by_columns(mode: str) -> None:
    image = Image.new(mode, (3, 2))
    image.putpixel((2, 0), 7)
    t = dlferry.asarray(image)
    assert np.array_equal(t.numpy(), np.asarray(image))
    before = image.tobytes()
    t.zero_()
    assert image.tobytes() == before


def test_an_image_cannot_be_shared() -> None:
    with pytest.raises(dlferry.CopyRequired) as caught:
        dlferry.asarray(Image.new("L", (3, 2)), copy=False, readonly="share")
    assert caught.value.reasons == ("producer copy",)


def test_round_trip() -> None:
    image = Image.radial_gradient("L")
    t = dlferry.asarray(image)
    assert t.dtype == torch.uint8
    back = Image.fromarray(dlferry.to_numpy(t))
    assert back.tobytes() == image.tobytes()
