"""Numbers in sentences."""

from __future__ import annotations

import pytest

from certrail.words import counted


@pytest.mark.parametrize(
    ("number", "words", "expected"),
    [
        (0, ("endpoint",), "0 endpoints"),
        (1, ("endpoint",), "1 endpoint"),
        (2, ("endpoint",), "2 endpoints"),
        (1, ("entry", "entries"), "1 entry"),
        (2, ("entry", "entries"), "2 entries"),
        (1, ("request waits", "requests wait"), "1 request waits"),
    ],
)
def test_the_noun_follows_the_number(number: int, words: tuple[str, ...], expected: str) -> None:
    """ "1 endpoints" reads as if nobody had looked."""
    assert counted(number, *words) == expected
