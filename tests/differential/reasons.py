"""Why torch may answer differently: each reason, and what such a difference looks like."""

from __future__ import annotations

from collections.abc import Callable

from rows import Answer, Ask, Row

Looks = Callable[[Row, Ask, Answer, Answer], bool]


def refuses(*classes: str) -> Looks:
    """torch raises one of these, whatever we do."""
    return lambda row, ask, ours, theirs: theirs.detail in classes and theirs.outcome == "error"


def shares_what_we_do_not(row: Row, ask: Ask, ours: Answer, theirs: Answer) -> bool:
    not_shared = ours.outcome == "copy" or ours.detail == "CopyRequired"
    return theirs.outcome in ("share", "empty") and not_shared and ask.copy is not True


REASONS: dict[str, tuple[str, Looks]] = {
    "torch-refuses-negative-strides": (
        "torch has no negative strides, and does not copy instead, even when told to",
        refuses("ValueError"),
    ),
    "torch-refuses-odd-strides": ("the same for strides between items", refuses("ValueError")),
    "torch-refuses-foreign-order": ("the same for bytes in foreign order", refuses("ValueError")),
    "torch-shares-misaligned": (
        "torch makes tensors whose elements are misaligned",
        shares_what_we_do_not,
    ),
    "torch-shares-read-only": (
        "torch hands out writable tensors on memory that must not be written",
        shares_what_we_do_not,
    ),
    "torch-lacks-ml-dtypes": ("torch knows no dtype of that package", refuses("TypeError")),
    "torch-lacks-it": ("torch does not convert what it has no dtype for", refuses("TypeError")),
    "torch-drops-mask": (
        "torch reads the elements under a mask",
        lambda row, ask, ours, theirs: theirs.outcome in ("share", "copy"),
    ),
    "torch-copies-0-d": (
        "torch.asarray copies arrays without axes, also when told not to",
        lambda row, ask, ours, theirs: (ours.outcome, theirs.outcome) == ("share", "copy"),
    ),
    "torch-casts-no-0-d": (
        "torch.asarray(copy=True, dtype=) refuses arrays without axes, as if told not to copy",
        lambda row, ask, ours, theirs: ask.copy is True and theirs.detail == "ValueError",
    ),
    "torch-scalar-error-class": (
        "RuntimeError where torch raises ValueError for everything else",
        lambda row, ask, ours, theirs: ask.copy is False and theirs.detail == "RuntimeError",
    ),
    "torch-misreads-buffers": (
        "torch.asarray reads buffers as flat memory of its default dtype, or not at all",
        lambda row, ask, ours, theirs: theirs.outcome in ("wrong", "error", "share", "copy"),
    ),
    "torch-aliases-dlpack-copies": (
        "torch.asarray(copy=True) of a DLPack object is not a copy",
        lambda row, ask, ours, theirs: ask.copy is True and theirs.outcome == "share",
    ),
    "torch-does-not-alias-dlpack": (
        "torch.asarray(copy=False) refuses a DLPack object that it could share",
        lambda row, ask, ours, theirs: ask.copy is False and theirs.detail == "ValueError",
    ),
    "torch-refuses-this-list": (
        "torch takes no lists of tensors, of arrays without axes, or of huge NumPy scalars",
        refuses("ValueError", "TypeError", "RuntimeError"),
    ),
    "torch-drops-dimension": (
        "torch takes tensors and arrays of one element in a list for numbers",
        lambda row, ask, ours, theirs: theirs == Answer("wrong", "shape"),
    ),
    "torch-cannot-promote": (
        "torch promotes no uint16, uint32 or uint64",
        refuses("RuntimeError"),
    ),
    "torch-lacks-the-protocol": (
        "torch reads neither __array_interface__ nor __array__",
        refuses("RuntimeError", "ValueError", "TypeError"),
    ),
    "torch-other-error-class": (
        "torch refuses it as well, by a class that says less",
        refuses("ValueError", "TypeError", "RuntimeError"),
    ),
}


def explanation(row: Row, ask: Ask, ours: Answer, theirs: Answer) -> str | None:
    """The name of a reason that the row gives and that looks like this difference."""
    for name in row.why:
        if REASONS[name][1](row, ask, ours, theirs):
            return name
    return None


def differ(ours: Answer, theirs: Answer) -> bool:
    """Whether a user could tell the two apart, by what is promised of either."""
    if ours.outcome == theirs.outcome == "error":
        # Whoever expects torch's class catches ours as well, where it is derived from it.
        return theirs.detail not in ours.parents
    if "empty" in (ours.outcome, theirs.outcome):
        return "error" in (ours.outcome, theirs.outcome)
    return ours.outcome != theirs.outcome
