"""The Link header."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from certrail.acme.links import links


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("", []),
        ('<https://ca/1>;rel="alternate"', ["https://ca/1"]),
        ("</1>; rel=alternate", ["/1"]),
        ('<https://ca/dir>;rel="index", </1>;rel="alternate", </2>;rel="alternate"', ["/1", "/2"]),
        ('</1>; title="a, b"; rel="alternate"', ["/1"]),
        ('</1>; rel="up alternate"', ["/1"]),
        ('</1>; REL="Alternate"', ["/1"]),
        ('</1?a=1,2>; rel="alternate"', ["/1?a=1,2"]),
        ('</1>; rel="alternatively"', []),
        ("garbage", []),
    ],
)
def test_every_alternate_chain_is_found(header: str, expected: list[str]) -> None:
    """Of several links with one relation, a mapping by relation keeps only the last."""
    assert links(header, "alternate") == expected


@given(st.text(max_size=200))
def test_any_header_is_read_without_error(header: str) -> None:
    """The header comes from outside."""
    assert isinstance(links(header, "alternate"), list)
