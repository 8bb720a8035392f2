"""`transfer` and its kin: trees of arrays between host and device, now or while others work.

`_arrivals`, and with it all that knows of links, is imported by the first call.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from typing import TYPE_CHECKING, Any

from dlferry import _move, _torch
from dlferry._torch import torch
from dlferry._tree import Tree

if TYPE_CHECKING:
    from torch.types import Device

    from dlferry._arrivals import Arrivals


class Transfer:
    """Copies on their way, and the tree that they make: what `transfer` returns.

    The values can be reached through the handle alone, so nobody reads half-written memory. A
    handle that is dropped keeps both sides of its copies alive until they are done. Handles may be
    used from any thread.
    """

    def __init__(self, tree: Tree, arrivals: Arrivals) -> None:
        self._tree = tree
        self._arrivals = arrivals

    def done(self) -> bool:
        """Whether all is copied and the source is free again; also when the transfer has failed.

        Never waits.
        """
        return self._arrivals.done()

    def wait(self, stream: Any = None) -> None:
        """Make a CUDA stream wait for the copies; work submitted to it later sees the values.

        The host waits only until the last copy has been submitted, or until ordinary memory of its
        own has been written: for work on a stream only where the copies read, or overwrite, what
        that produces.

        Args:
            stream: A `torch.cuda.Stream` of the device, an object with ``__cuda_stream__``, or a
                handle; by default the current stream of the device.

        Raises:
            TypeError: `stream` is none of these.
            ValueError: `stream` is of another device.
            CudaError: A call of the driver failed, or the stream is being captured and the copies
                are not done.
            DriverUnavailable: The process is ending, or is a fork of the one that started it.
            concurrent.futures.CancelledError: The transfer was cancelled.
        """
        self._arrivals.wait(stream)

    def synchronize(self, timeout: float | None = None) -> None:
        """Wait until the transfer is done.

        Args:
            timeout: How long to wait at most, in seconds.

        Raises:
            TimeoutError: It was not done by then, and goes on.
            CudaError: A call of the driver failed.
            DriverUnavailable: The process is ending, or is a fork of the one that started it.
            concurrent.futures.CancelledError: The transfer was cancelled.
        """
        self._arrivals.synchronize(timeout)

    def result(self, timeout: float | None = None) -> Any:
        """The tree with its arrays where they were to go: for the current stream, or to be read.

        Tensors on a device are ordered for the stream that is current at the time of the call, and
        the host does not wait for the copies. Tensors on the host are complete. Each call returns
        the same tensors; their containers are new ones.

        Args:
            timeout: How long to wait for the copies at most, in seconds.

        Raises:
            TimeoutError: They were not done by then, and go on.
            CudaError: A call of the driver failed.
            DriverUnavailable: The process is ending, or is a fork of the one that started it.
            concurrent.futures.CancelledError: The transfer was cancelled.
        """
        if timeout is not None:
            self.synchronize(timeout)
        return self._tree.with_leaves(self._arrivals.values())

    def cancel(self) -> bool:
        """Submit no more copies. False when all have been submitted: then the transfer goes on."""
        return self._arrivals.cancel()

    def __await__(self) -> Generator[Any, None, Any]:
        """`result`, without keeping the event loop from other work; cancelled with its task."""
        import asyncio
        from concurrent.futures import CancelledError

        try:
            if not self.done():
                loop = asyncio.get_running_loop()
                yield from loop.run_in_executor(None, self.synchronize).__await__()
            return self.result()
        except asyncio.CancelledError:
            self.cancel()
            raise
        except CancelledError as error:
            raise asyncio.CancelledError(*error.args) from error

    def _wait_until_read(self) -> None:
        """Wait until the source may be changed."""
        self._arrivals.wait_until_read()


def transfer(
    tree: Any,
    device: Device,
    *,
    dtype: torch.dtype | Mapping[torch.dtype, torch.dtype] | None = None,
    pack: bool = True,
) -> Transfer:
    """Start to move the arrays of a tree to a device, and return at once.

    Args:
        tree: An array, or containers of arrays: dict, list, tuple, their subclasses, named tuples,
            dataclasses, other mappings, and what is registered with optree. Tensors, numeric
            ndarrays and DLPack or CUDA arrays move; everything else stays as it is. An array that
            stands in several places is moved once. Arrays on the host must stay unchanged until
            `Transfer.done`.
        device: Where to: ``"cuda"``, ``"cuda:1"``, ``"cpu"``, a `torch.device` or an index.
        dtype: Of the floating arrays in the tree; of any array, where the tree is nothing but one.
            A mapping says it exactly: ``{torch.uint8: torch.float32}``. The narrower dtype crosses
            the link.
        pack: Move small arrays (up to 64 KiB each) to a device as one copy. They are tensors in
            their own right on one shared storage: keeping one keeps them all.

    Returns:
        A handle with the tree. Copies to the host, which read what the current stream produces,
        wait for the work queued on it; copies to new memory of a device do not.

    Raises:
        DriverUnavailable: `device` is a CUDA device, and there is none.
        UnsupportedInput: torch has no such elements.
        CudaError: A call of the driver failed, or the current stream is being captured.

    Example:
        >>> import numpy as np, dlferry
        >>> handle = dlferry.transfer({"image": np.zeros((2, 3)), "name": "a"}, "cpu")
        >>> handle.result()["image"].shape
        torch.Size([2, 3])
    """
    return started(tree, _torch.device(device), dtype=dtype, pack=pack)


def started(
    tree: Any,
    target: torch.device,
    *,
    dtype: torch.dtype | Mapping[torch.dtype, torch.dtype] | None,
    pack: bool,
    aside: bool = False,
) -> Transfer:
    """As `transfer`; `aside` as in `_crossing.to_new_memory`."""
    from dlferry import _arrivals

    taken = Tree(tree, _arrivals.is_array)
    casts = _arrivals.Casts(dtype, exact=taken.is_bare)
    arrivals = _arrivals.started(taken.leaves, target, casts, pack=pack, aside=aside)
    return Transfer(taken, arrivals)


def to_device(
    tree: Any,
    device: Device,
    *,
    dtype: torch.dtype | Mapping[torch.dtype, torch.dtype] | None = None,
    pack: bool = True,
) -> Any:
    """Move the arrays of a tree to a device.

    When it returns, the source may be changed or freed: pageable memory has been read. Page-locked
    memory is read by the link itself, and waited for; `transfer` does not.

    Args:
        tree: As in `transfer`.
        device: As in `transfer`.
        dtype: As in `transfer`.
        pack: As in `transfer`.

    Returns:
        The tree, in new containers, for the current stream. The host has not waited for it.

    Raises:
        DriverUnavailable: `device` is a CUDA device, and there is none.
        UnsupportedInput: torch has no such elements.
        CudaError: A call of the driver failed, or the current stream is being captured.

    Example:
        >>> import numpy as np, dlferry
        >>> dlferry.to_device([np.arange(3), "label"], "cpu")
        [tensor([0, 1, 2]), 'label']
    """
    target = _torch.device(device)
    if target.type == "cuda" and (dtype is None or isinstance(dtype, torch.dtype)):
        little = _move.little(tree, target, dtype)
        if little is not None:
            return little
    moving = started(tree, target, dtype=dtype, pack=pack)
    moving._wait_until_read()
    return moving.result()


def to_host(tree: Any) -> Any:
    """Move the arrays of a tree to the host, ready to read.

    Args:
        tree: As in `transfer`.

    Returns:
        The tree, in new containers, with CPU tensors: page-locked ones within dlferry's cap, where
        they came from a device. Arrays that are on the host already share their memory where they
        can.

    Raises:
        UnsupportedInput: torch has no such elements.
        CudaError: A call of the driver failed, or the current stream is being captured.

    Example:
        >>> import torch, dlferry
        >>> dlferry.to_host({"loss": torch.ones(2)})
        {'loss': tensor([1., 1.])}
    """
    return transfer(tree, "cpu").result()
