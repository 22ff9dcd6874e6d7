"""Decisions, as tables."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pytest

from certrail.policy import Undo, undo_installation

NOW = datetime(2026, 11, 23, 3, 0, tzinfo=UTC)


@dataclass(frozen=True)
class Previous:
    not_after: datetime
    revoked_at: datetime | None = None


@pytest.mark.parametrize(
    ("previous", "expected"),
    [
        pytest.param(None, Undo.RESTORE, id="nothing was there"),
        pytest.param(Previous(NOW + timedelta(seconds=1)), Undo.RESTORE, id="a second left"),
        pytest.param(Previous(NOW), Undo.KEEP, id="expires now"),
        pytest.param(Previous(NOW - timedelta(days=1)), Undo.KEEP, id="expired"),
        pytest.param(Previous(NOW + timedelta(days=9), NOW), Undo.KEEP, id="revoked"),
    ],
)
def test_never_back_to_a_certificate_that_clients_refuse(
    previous: Previous | None, expected: Undo
) -> None:
    """A failed test must not replace a doubtful certificate by a surely bad one."""
    assert expected is undo_installation(previous, NOW).code
