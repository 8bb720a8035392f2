"""Some four hundred inputs: our answer, the contract's, and torch's.

Ours is the contract's, and where torch's differs, the row says why by a name of `reasons.REASONS`.
"""

from __future__ import annotations

from collections import Counter

import inputs
import pytest
import reasons
import sequences
import torch
from rows import OURS, TORCHS, Answer, Ask, Row, contract, measured

ROWS: list[Row] = [
    row
    for group in (
        inputs.ndarrays,
        inputs.other_ndarrays,
        inputs.scalars,
        inputs.buffers,
        inputs.producers,
        inputs.tensors,
        sequences.numbers,
        sequences.lists_of_arrays,
        sequences.protocols,
    )
    for row in group()
]


def asks(row: Row) -> list[Ask]:
    other = torch.float64 if row.dtype == torch.float32 else torch.float32
    if row.dtype is not None and row.dtype.is_complex:
        other = torch.complex128 if row.dtype == torch.complex64 else torch.complex64
    calls = [Ask("asarray", copy, dtype) for dtype in (None, other) for copy in (None, True, False)]
    if row.name.startswith("DLPack"):
        calls += [Ask("from_dlpack", copy, None) for copy in (None, True, False)]
    return calls


def agrees(answer: Answer, expected: Answer) -> bool:
    if answer.outcome == "empty":  # of no element, nobody can tell
        return expected.outcome in ("share", "copy")
    return answer == expected


def test_the_table_is_large_and_its_names_are_distinct() -> None:
    assert len(ROWS) >= 400
    assert not [name for name, count in Counter(row.name for row in ROWS).items() if count > 1]
    assert {name for row in ROWS for name in row.why} <= set(reasons.REASONS)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_our_answer_is_the_contracts(row: Row, native: bool) -> None:
    wrong = {}
    for ask in asks(row):
        answer, expected = measured(row, ask, OURS[ask.door]), contract(row, ask, native)
        if not agrees(answer, expected):
            wrong[ask] = f"{answer}, not {expected}"
    assert not wrong


@pytest.mark.parametrize("row", [row for row in ROWS if not row.aborts], ids=lambda row: row.name)
def test_every_difference_from_torch_is_explained(row: Row, native: bool) -> None:
    if row.native and not native:
        return  # ours is UnsupportedInput, as the contract says
    unexplained = {}
    for ask in asks(row):
        ours, theirs = measured(row, ask, OURS[ask.door]), measured(row, ask, TORCHS[ask.door])
        if reasons.differ(ours, theirs) and not reasons.explanation(row, ask, ours, theirs):
            unexplained[ask] = f"ours: {ours}; torch's: {theirs}"
    assert not unexplained


def test_every_reason_is_needed(native: bool) -> None:
    found: Counter[str] = Counter()
    for row in ROWS:
        if row.aborts or (row.native and not native):
            continue
        for ask in asks(row):
            ours, theirs = measured(row, ask, OURS[ask.door]), measured(row, ask, TORCHS[ask.door])
            if reasons.differ(ours, theirs):
                found[reasons.explanation(row, ask, ours, theirs) or "unexplained"] += 1
    # Another torch may have mended some.
    if torch.__version__.startswith("2.13."):
        assert set(found) == set(reasons.REASONS)
