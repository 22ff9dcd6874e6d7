"""Numbers, and what people type, in sentences."""

from __future__ import annotations

import shlex

import pytest

from certrail.words import counted, quoted, served_again


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


@pytest.mark.parametrize(
    ("before", "told"),
    [
        ("0123456789abcdef0123", "0123456789abcdef… put back"),
        (None, "the new certificate was taken away again, there was none before"),
    ],
)
def test_what_serves_after_a_failed_test(before: str | None, told: str) -> None:
    """The detail of the step that failed says it."""
    assert served_again(before) == told


@pytest.mark.parametrize(
    ("name", "typed"),
    [
        ("spring-2027", "spring-2027"),
        ("www.example.test:443", "www.example.test:443"),
        ("spring renewal", "'spring renewal'"),
        ("*.example.test:443", "'*.example.test:443'"),
        ("[2001:db8::1]:443", "'[2001:db8::1]:443'"),
        ("it's", None),
        ("$(reboot)", None),
    ],
)
def test_a_command_can_be_pasted_as_it_is_shown(name: str, typed: str | None) -> None:
    """What needs no quotes has none, so that most commands read as people write them."""
    assert shlex.split(f"certrail job show {quoted(name)}")[3:] == [name]
    assert typed in (None, quoted(name))
