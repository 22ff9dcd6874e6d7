"""Names that a certificate can carry."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from certrail.errors import InvalidRequest
from certrail.names import Name, matches, parse_names


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        ("www.example.test", "www.example.test"),
        ("WWW.Example.TEST.", "www.example.test"),
        ("  a.test ", "a.test"),
        ("*.a.test", "*.a.test"),
        ("bücher.example", "xn--bcher-kva.example"),
        ("straße.example", "xn--strae-oqa.example"),
        ("192.0.2.1", "192.0.2.1"),
        ("2001:DB8::0:1", "2001:db8::1"),
        ("[2001:db8::1]", "2001:db8::1"),
        ("_acme-challenge.a.test", "_acme-challenge.a.test"),
    ],
)
def test_what_people_type_becomes_the_canonical_name(raw: str, text: str) -> None:
    """Two spellings of one name must not become two certificates."""
    assert text == Name.parse(raw).text


@pytest.mark.parametrize(
    "raw",
    [
        "",
        ".",
        "*",
        "a..test",
        "-a.test",
        "a-.test",
        "a b.test",
        "a.*.test",
        "*.*.test",
        "a/b.test",
        "x" * 64 + ".test",
        ".".join(["abcdefgh"] * 30),
        "1.2.3",
        "300.1.1.1",
        "a\x00.test",
        "‮a.test",
    ],
)
def test_what_no_ca_would_sign_is_refused(raw: str) -> None:
    """A bad name is found before anything is ordered."""
    with pytest.raises(InvalidRequest):
        Name.parse(raw)


@given(st.text(max_size=80))
def test_any_text_is_a_good_name_or_a_clear_refusal(raw: str) -> None:
    """Names come from files that others wrote."""
    with suppress(InvalidRequest):
        name = Name.parse(raw)

        assert name == Name.parse(name.text)
        assert name.text.isascii()


def test_a_wildcard_is_validated_at_its_base() -> None:
    """RFC 8555 looks for the record at the base domain."""
    assert Name.parse("*.a.test").challenge_name == "_acme-challenge.a.test"


def test_duplicates_fall_together_in_the_given_order() -> None:
    """The first name becomes the common name."""
    assert [n.text for n in parse_names(["B.test", "a.test", "b.test."])] == ["b.test", "a.test"]


@pytest.mark.parametrize(
    ("pattern", "name", "expected"),
    [
        ("a.test", "A.test.", True),
        ("*.a.test", "b.a.test", True),
        ("*.a.test", "a.test", False),
        ("*.a.test", "c.b.a.test", False),
        ("a.test", "b.test", False),
        ("*.test", "test", False),
    ],
)
def test_a_wildcard_stands_for_one_label(pattern: str, name: str, expected: bool) -> None:
    """RFC 6125 section 6.4.3."""
    assert expected is matches(pattern, name)
