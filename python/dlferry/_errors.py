"""The exceptions that are dlferry's own."""

from __future__ import annotations

__all__ = ["CopyRequired", "CudaError", "DriverUnavailable", "UnsupportedInput"]


class CopyRequired(ValueError, BufferError):
    """The memory cannot be shared as asked, and a copy was not allowed.

    One class under both `ValueError` and `BufferError`, because the array API asks for either in
    different places.

    Attributes:
        reasons: The name of every reason, in a fixed order: ``"dtype"``, ``"device"``,
            ``"strides"``, ``"byte order"``, ``"alignment"``, ``"read-only"``, ``"conjugate"``,
            ``"negative"``, ``"sub-byte"``, ``"sequence"``, ``"producer copy"``, ``"chunks"``. The
            text of the error says for each what to do.
    """

    def __init__(self, message: str, reasons: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.reasons = reasons

    def __reduce__(self) -> tuple[type[CopyRequired], tuple[str, tuple[str, ...]]]:
        return type(self), (str(self), self.reasons)


class UnsupportedInput(TypeError):
    """The object is not an array that a torch tensor could hold; the text says what to pass."""


class DriverUnavailable(RuntimeError):
    """CUDA was asked for and cannot be had; the text says what is missing."""


class CudaError(RuntimeError):
    """A call of the CUDA driver failed; the text names the call and the code.

    Attributes:
        call: The name of the driver's function, such as ``"cuMemcpyHtoDAsync"``.
        code: The driver's result, such as 700.
    """

    def __init__(self, message: str, call: str = "", code: int = 0) -> None:
        super().__init__(message)
        self.call = call
        self.code = code

    def __reduce__(self) -> tuple[type[CudaError], tuple[str, str, int]]:
        return type(self), (str(self), self.call, self.code)


for _error in (CopyRequired, UnsupportedInput, DriverUnavailable, CudaError):
    _error.__module__ = "dlferry"  # where users import it from, and pickle finds it
