"""The page that a request leaves with its flow run, as an artifact."""

from __future__ import annotations

import logging
from uuid import UUID

from prefect.artifacts import acreate_markdown_artifact
from prefect.settings import PREFECT_UI_URL

from certrail.log import plain
from certrail.request_page import page
from certrail.store import request_view, requests
from tasks._threads import in_thread

_log = logging.getLogger("certrail")

# One key for all: Prefect keeps the history of each key.
_KEY = "certrail-request"
_EARLIER = 3


async def leave_page(request_id: UUID) -> None:
    """Write the page of a request that is over; what goes wrong here only costs the page.

    Members of bulk jobs need none: the job's table has a line for each of them.
    """
    try:
        location, text = await in_thread(_made, request_id)
        await acreate_markdown_artifact(text, key=_KEY, description=f"How {location} ended")
    except Exception as exc:  # noqa: BLE001 - the request is over and must stay as it is
        _log.warning("no page for the request %s: %s", request_id, plain(exc))


def _made(request_id: UUID) -> tuple[str, str]:
    request = requests.get(request_id)
    ui_url = PREFECT_UI_URL.value() or ""
    others = [
        one
        for one in requests.newest(location=request.location, limit=_EARLIER + 1)
        if one.id != request.id
    ]
    views = request_view.views([request, *others[:_EARLIER]], ui_url=ui_url)
    return request.location, page(views[0], views[1:])
