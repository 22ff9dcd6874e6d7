"""When an endpoint goes back to the certificate before, as a table."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

import pytest

from certrail.rollback import Code, Facts, refusal

NOW = datetime(2026, 11, 23, 3, 0, tzinfo=UTC)


@dataclass(frozen=True)
class Before:
    not_after: datetime = NOW + timedelta(seconds=1)
    revoked_at: datetime | None = None


GOOD = Facts(
    is_installed=True,
    is_present=True,
    had_before=True,
    before=Before(),
    has_key=True,
    is_kept_there=True,
)


@pytest.mark.parametrize(
    ("facts", "expected", "forced"),
    [
        pytest.param(GOOD, None, None, id="a second left"),
        pytest.param(replace(GOOD, is_kept_there=False), None, None, id="the key is ours"),
        pytest.param(replace(GOOD, has_key=False), None, None, id="the target keeps it"),
        pytest.param(
            replace(GOOD, is_installed=False),
            Code.NOT_INSTALLED,
            Code.NOT_INSTALLED,
            id="nothing was installed",
        ),
        pytest.param(
            replace(GOOD, is_present=False),
            Code.REPLACED_SINCE,
            Code.REPLACED_SINCE,
            id="not what is there now",
        ),
        pytest.param(
            replace(GOOD, had_before=False, before=None),
            Code.NOTHING_BEFORE,
            Code.NOTHING_BEFORE,
            id="the first one",
        ),
        pytest.param(
            replace(GOOD, before=None), Code.NOT_KEPT, Code.NOT_KEPT, id="nobody knows it"
        ),
        pytest.param(
            replace(GOOD, has_key=False, is_kept_there=False),
            Code.NOT_KEPT,
            Code.NOT_KEPT,
            id="its key is nowhere",
        ),
        pytest.param(replace(GOOD, before=Before(NOW)), Code.EXPIRED, None, id="expires now"),
        pytest.param(
            replace(GOOD, before=Before(revoked_at=NOW)), Code.REVOKED, None, id="revoked"
        ),
    ],
)
def test_refusal(facts: Facts, expected: Code | None, forced: Code | None) -> None:
    """Force helps against dates, not against what is not there."""
    found = refusal(facts, NOW, force=False)
    anyway = refusal(facts, NOW, force=True)

    assert expected == (found.code if found else None)
    assert forced == (anyway.code if anyway else None)
    assert found is None or found.remedy
