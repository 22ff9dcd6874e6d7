"""The public cases of certificate path validation, one after the other."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import pytest

from tests.support import limbo

CASES = limbo.load()
APPLYING = [case for case in CASES if not limbo.out_of_scope(case)]


@pytest.mark.parametrize("case", APPLYING, ids=lambda case: case["id"])
def test_the_verdict_is_the_expected_one(case: Mapping[str, Any]) -> None:
    """What clients refuse must not be called installed; what they accept must not be taken back."""
    assert limbo.verdict(case) == case["expected_result"], case["description"]


def test_little_is_out_of_scope() -> None:
    """A suite that leaves out what it fails would prove nothing; docs/concepts.md counts it."""
    left_out = Counter(why for case in CASES if (why := limbo.out_of_scope(case)))

    assert len(CASES) == 95
    assert len(APPLYING) == 87
    assert left_out == {
        limbo.OUT_OF_SCOPE["validates a client's certificate"]: 5,
        limbo.OUT_OF_SCOPE["has-crl"]: 2,
        limbo.OUT_OF_SCOPE["rfc5280-incompatible-with-webpki"]: 1,
    }
