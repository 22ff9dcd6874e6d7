"""What an automation saw becomes an event like any other."""

from __future__ import annotations

from datetime import UTC, datetime
from uuid import UUID

from prefect import get_client, get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.exceptions import ObjectNotFound

from certrail.log import plain
from certrail.notify import alarms
from tasks._threads import in_thread

_FLOW_RUN = "prefect.flow-run."


@task(
    name="Raise alarm",
    task_run_name="Raise alarm",
    cache_policy=NO_CACHE,
    persist_result=False,
)
async def raise_alarm(event: str, subject: str, resource: str, occurrence: str) -> bool:
    """Note *event* about a flow run, or about something that did not happen."""
    flow_run_id: UUID | None = None
    detail = "it did not run for a while; server and workers may be down"
    if resource.startswith(_FLOW_RUN):
        flow_run_id = UUID(resource.removeprefix(_FLOW_RUN))
        async with get_client() as client:
            try:
                run = await client.read_flow_run(flow_run_id)
            except ObjectNotFound:
                detail = "the run was deleted since"
            else:
                subject = run.name
                said = run.state.message if run.state else None
                detail = f"{run.state_name}: {said or 'without a word'}"
    else:
        # What stays away for hours is told once an hour, also when the alarms queued up.
        occurrence = f"{subject} {datetime.now(UTC):%Y-%m-%dT%H}"
    new = await in_thread(
        alarms.raise_alarm,
        event,
        subject=subject,
        occurrence=occurrence,
        detail=plain(detail),
        flow_run_id=flow_run_id,
    )
    get_run_logger().info("%s about %s%s", event, subject, "" if new else ", told already")
    return new
