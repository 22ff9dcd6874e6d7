"""What the Prefect server remembers, filled up, so that filling it is not taken for growth.

It keeps the ids of the last 10,000 events and messages, however long ago they came. A request
has about 15, so a server that was started anew grows over the next seven hundred requests.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import httpx

EVENTS = 10_000
_AT_ONCE = 250
_SECONDS = 60


def fill(api_url: str) -> None:
    """Send the server at *api_url* so many events that it begins to forget.

    They are about nothing that an automation looks at.

    Raises:
        httpx.HTTPError: the server is away or refuses them.
    """
    with httpx.Client(base_url=api_url, timeout=_SECONDS, trust_env=False) as api:
        for some in _events():
            api.post("/events", json=some).raise_for_status()


def _events() -> Iterator[list[dict[str, Any]]]:
    for _ in range(EVENTS // _AT_ONCE):
        now = datetime.now(UTC).isoformat()
        yield [
            {
                "id": str(uuid4()),
                "occurred": now,
                "event": "soak.filler",
                "resource": {"prefect.resource.id": "soak"},
            }
            for _ in range(_AT_ONCE)
        ]
