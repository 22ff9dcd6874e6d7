"""Started by Prefect automations: tell of a run that crashed, is late, or did not happen."""

from __future__ import annotations

from prefect import flow

from tasks.alarms import raise_alarm
from tasks.notifications import emit_events, route_events, send_messages


@flow(name="alarm", flow_run_name="alarm {event}", persist_result=False)
async def note_alarm(
    event: str, subject: str = "", resource: str = "", occurrence: str = ""
) -> None:
    """Put the alarm into the outbox, and send what is due.

    Args:
        event: one of ``certrail.run.*`` and ``certrail.system.silent``.
        subject: what it is about, where no run says it.
        resource: resource id of Prefect's event.
        occurrence: what tells this alarm from the next.
    """
    if await raise_alarm(event, subject, resource, occurrence):
        await emit_events()
        await route_events()
        await send_messages()
