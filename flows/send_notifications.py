"""Tell people and programs what happened; runs every minute, and at once when something failed."""

from __future__ import annotations

from prefect import flow

from tasks.notifications import emit_events, route_events, send_messages


@flow(name="send-notifications", flow_run_name="send notifications", persist_result=False)
async def send_notifications() -> None:
    """Emit what was not emitted, route what happened, send what is due."""
    await emit_events()
    await route_events()
    await send_messages()
