"""What a message tells people to type."""

from __future__ import annotations

from datetime import UTC, datetime
from uuid import UUID

import pytest

from certrail.notify.words import commands
from certrail.store.outbox import Happened


@pytest.mark.parametrize(
    ("event", "about", "expected"),
    [
        (
            "certrail.job.failed",
            "spring renewal",
            ["certrail job show 'spring renewal'", "certrail job retry 'spring renewal'"],
        ),
        (
            "certrail.job.paused",
            "spring",
            ["certrail job show spring", "certrail job resume spring"],
        ),
        (
            "certrail.certificate.expiring",
            "*.shop.test:443",
            [
                "certrail endpoint show '*.shop.test:443'",
                "certrail request start '*.shop.test:443' --wait",
            ],
        ),
    ],
)
def test_its_commands_can_be_pasted(event: str, about: str, expected: list[str]) -> None:
    """Whoever is woken up by it does not think about blanks and asterisks."""
    happened = Happened(
        outbox_id=1,
        event_id=UUID(int=1),
        event=event,
        resource=f"certrail.any.{about}",
        location=about,
        request_id=None,
        payload={},
        occurred=datetime(2027, 1, 1, tzinfo=UTC),
    )

    assert commands(happened) == expected
