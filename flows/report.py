"""The dashboard, every quarter of an hour; a saved report, at its times or now."""

from __future__ import annotations

from prefect import flow

from tasks.notifications import emit_events, route_events, send_messages
from tasks.report import keep_schedules, make_report, show_dashboard


@flow(name="report", flow_run_name="report", persist_result=False)
async def report() -> None:
    """Bring the dashboard up to date, and the schedules of saved reports in Prefect."""
    await show_dashboard()
    await keep_schedules()


@flow(name="saved-report", flow_run_name="report {name}", persist_result=False)
async def make_saved_report(name: str) -> None:
    """Make a saved report, and send it to those who are to have it.

    Args:
        name: under which it was saved, with `certrail report save`.
    """
    if await make_report(name):
        await emit_events()
        await route_events()
        await send_messages()
