"""Items of a sequence whose conversion runs code that changes the other items."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

import dlferry

COUNT = 1 << 18  # so large that memory goes back to the system when it is freed


class Meddling:
    """An array that does something else when it is asked for its memory."""

    def __init__(self, meddle: Callable[[], object]) -> None:
        self.meddle = meddle

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray[Any, Any]:
        self.meddle()
        return np.full(COUNT, 2.0, np.float32)


@pytest.mark.parametrize("convert", [dlferry.asarray, dlferry.stack], ids=lambda f: f.__name__)
@pytest.mark.parametrize("name", ["set_", "data"])
def test_a_tensor_that_gets_other_memory_is_read_there(convert: Any, name: str) -> None:
    tensor = torch.zeros(COUNT)
    other = torch.ones(2 * COUNT)[::2]

    def meddle() -> None:
        if name == "set_":
            tensor.set_(other)  # type: ignore[call-overload]
        else:
            tensor.data = other

    result = convert([tensor, Meddling(meddle), tensor])
    assert result[:, 0].tolist() == result[:, -1].tolist() == [1, 2, 1]


@pytest.mark.parametrize("convert", [dlferry.asarray, dlferry.stack], ids=lambda f: f.__name__)
@pytest.mark.parametrize("size", [0, 1, 2 * COUNT])
def test_a_tensor_that_is_resized_is_refused(convert: Any, size: int) -> None:
    tensor = torch.zeros(COUNT)

    def meddle() -> None:
        tensor.resize_(size)
        tensor.untyped_storage().resize_(4 * size)

    with pytest.raises(ValueError, match="changed while the others were converted"):
        convert([tensor, Meddling(meddle)])


def test_nothing_reaches_out_that_was_refused() -> None:
    tensor = torch.zeros(COUNT)
    out = torch.full((2, COUNT), 7.0)
    with pytest.raises(ValueError, match="changed while the others were converted"):
        dlferry.stack([tensor, Meddling(lambda: tensor.resize_(1))], out=out)
    assert bool((out == 7).all())


@pytest.mark.parametrize("convert", [dlferry.asarray, dlferry.stack], ids=lambda f: f.__name__)
def test_the_sequence_is_read_once(convert: Any) -> None:
    items: list[Any] = [np.zeros(COUNT, np.float32)]
    items += [Meddling(items.clear), np.ones(COUNT, np.float32)]
    assert convert(items)[:, 0].tolist() == [0, 2, 1]
