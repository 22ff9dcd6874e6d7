"""The form in Prefect's pages that goes back to the certificate before a request."""

from __future__ import annotations

from typing import Annotated, Any

from prefect import State
from prefect.context import FlowRunContext
from prefect.settings import PREFECT_UI_URL
from prefect.states import Completed
from pydantic import Field

from certrail.cli import _starting
from certrail.errors import CertrailError
from certrail.store import request_view, requests
from certrail.store.requests import Request
from tasks._form import Asker, read, refused, show
from tasks._threads import in_thread

Which = Annotated[
    str,
    Field(
        title="Request or endpoint location",
        description="The id of the request that is to be taken back (its first eight characters "
        "are enough), or a location, whose last request it is then.",
        min_length=3,
        max_length=300,
        pattern=r"^\s*\S+\s*$",
    ),
]
Force = Annotated[
    bool,
    Field(
        title="Even to what clients refuse",
        description="Go back although the certificate before is expired or revoked.",
    ),
]


class Asked(Asker):
    """What the form says, checked."""

    request: str = Field(min_length=1)
    force: bool


async def run_rollback_form(fields: dict[str, Any]) -> State[Any]:
    """Check what was asked, make the request, and leave it to a run of its own workflow.

    A run that is begun again does not go back once more: it tells of the request it made.
    """
    context = FlowRunContext.get()
    assert context is not None
    assert context.flow_run is not None
    run_id = context.flow_run.id
    made = context.flow_run.labels.get("certrail.request")
    try:
        if made is not None:
            return _told(await in_thread(requests.find, str(made)))
        request = await in_thread(_roll_back, fields)
    except CertrailError as exc:
        return await refused(run_id, str(fields.get("request", "")), exc)
    await show(run_id, f"start rollback {request.location}", request)
    return _told(request)


def _roll_back(fields: dict[str, Any]) -> Request:
    asked = read(Asked, fields)
    return _starting.roll_back(
        asked.request, force=asked.force, actor=asked.actor, why=asked.reason
    )


def _told(request: Request) -> State[Any]:
    page = request_view.run_url(PREFECT_UI_URL.value() or "", request.flow_run_id)
    told = page or f"certrail request show {request.id}"
    return Completed(name="Handed over", message=f"{request.flow_run_name} runs at {told}")
