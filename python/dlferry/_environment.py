"""Settings that are numbers, read from the environment."""

from __future__ import annotations

import os


def positive_number(name: str) -> int:
    """The number that a variable asks for; 0 when it does not.

    Raises:
        ValueError: The variable holds no positive number.
    """
    text = os.environ.get(name, "")
    if not text:
        return 0
    if not text.isdecimal() or int(text) == 0:
        raise ValueError(f"{name} is {text!r}; it takes a positive number")
    return int(text)
