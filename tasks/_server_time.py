"""What time it is for the Prefect server: every moment that it notes is by its own clock."""

from __future__ import annotations

from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from prefect.client.orchestration import PrefectClient


async def server_now(client: PrefectClient) -> datetime:
    """Return the server's time, to the second; this machine's if the answer names none."""
    answer = await client._client.get("/health")
    try:
        return parsedate_to_datetime(answer.headers["date"]).astimezone(UTC)
    except (KeyError, ValueError):
        return datetime.now(UTC)
