"""When somebody else's certificate counts as news."""

from __future__ import annotations

import pytest

from certrail.drift import Drift, judge, not_looked_at


@pytest.mark.parametrize(
    ("served", "ours", "told", "is_busy", "expected"),
    [
        pytest.param(["o"], "o", "", False, Drift(0), id="ours"),
        pytest.param(["x"], "", "", False, Drift(0), id="none of ours was ever installed"),
        pytest.param(["x"], "o", "", False, Drift(0, "x", is_new=True), id="another one"),
        pytest.param(["x"], "o", "x", False, Drift(0, "x"), id="told already"),
        pytest.param(["y"], "o", "x", False, Drift(0, "y", is_new=True), id="yet another one"),
        pytest.param(["o"], "o", "x", False, Drift(0), id="back again"),
        pytest.param(["x"], "o", "", True, Drift(0), id="a request is at work"),
        pytest.param(["o", "x"], "o", "", False, Drift(1, "x", is_new=True), id="one of two"),
        pytest.param(["y", "x"], "o", "x", False, Drift(1, "x"), id="two others, one told"),
    ],
)
def test_drift(served: list[str], ours: str, told: str, is_busy: bool, expected: Drift) -> None:
    """Told once for each change, never for what a request of ours is doing."""
    assert expected == judge(served, ours=ours, told=told, is_busy=is_busy)


@pytest.mark.parametrize(
    ("location", "addresses", "is_looked_at"),
    [
        ("www.example.test:443", [], True),
        ("www.example.test:443", ["10.0.0.1:443"], True),
        ("vault/secret/www", [], False),
        ("vault/secret/www", ["10.0.0.1:443"], True),
    ],
)
def test_what_nobody_looks_at_says_so(
    location: str, addresses: list[str], is_looked_at: bool
) -> None:
    """Else silence looks as if all were well."""
    said = not_looked_at(location, addresses, "vault")

    assert (said is None) == is_looked_at
    assert said is None or "vault holds is read back" in said
