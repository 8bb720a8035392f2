"""The decision: the core's table and its twin in Python agree on every combination of facts."""

from __future__ import annotations

import itertools

import pytest

from dlferry import _policy
from dlferry._native import core

COPIES = (None, True, False)
READONLY = ("copy", "share", "error")
ALL_FACTS = range(1 << sum(name.isupper() for name in vars(_policy.Fact)))


@pytest.mark.native
@pytest.mark.parametrize("readonly", READONLY)
@pytest.mark.parametrize("copy", COPIES)
def test_the_twins_agree(copy: bool | None, readonly: str) -> None:
    for facts in ALL_FACTS:
        assert core.decide(facts, copy, readonly) == _policy.decide(facts, copy, readonly), facts


@pytest.mark.parametrize(("copy", "readonly"), [*itertools.product(COPIES, READONLY)])
def test_the_table_keeps_the_policy(copy: bool | None, readonly: str) -> None:
    for facts in ALL_FACTS:
        decision = _policy.decide(facts, copy, readonly)
        if copy is True:
            assert decision.action == "copy"
        if copy is False:
            assert decision.action == ("refuse" if decision.reasons else "share")
        if decision.action == "share":
            # Nothing keeps the memory from being shared, but permission that was waived.
            hard = facts & ~(_policy.Fact.READ_ONLY | _policy.Fact.MAPPED_FILE)
            assert not hard & ~_policy.Fact.PRODUCER_COPY
            assert readonly == "share" or not facts & _policy.Fact.READ_ONLY
        assert decision.reasons & ~facts == 0
        assert not decision.implicit or (copy is None and decision.action == "copy")


def test_every_reason_has_a_name_and_a_remedy() -> None:
    subject = _policy.Subject("an array", "float32", "cpu", (2,), (-4,))
    every = sum(_policy.NAMES)
    error = _policy.refusal(every, subject)
    assert error.reasons == tuple(_policy.NAMES.values())
    lines = str(error).splitlines()[1:]
    assert [line.strip().partition(":")[0] for line in lines] == list(error.reasons)


def test_a_refusal_names_the_odd_axis() -> None:
    subject = _policy.Subject("an array", "float32", "cpu", (1, 2), (-8, -4))
    assert "axis 1 has the negative stride -4" in str(
        _policy.refusal(_policy.Fact.STRIDES, subject)
    )
    subject = subject._replace(strides=(8, 6))
    assert "(8, 6)" in str(_policy.refusal(_policy.Fact.STRIDES, subject))
