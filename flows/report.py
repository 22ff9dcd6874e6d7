"""The dashboard and the reports that are due, every quarter of an hour; or one report now."""

from __future__ import annotations

from prefect import flow

from tasks.notifications import emit_events, route_events, send_messages
from tasks.report import make_report, make_reports, show_dashboard


@flow(name="report", flow_run_name="report", persist_result=False)
async def report() -> None:
    """Bring the dashboard up to date and make the reports whose time has come."""
    await show_dashboard()
    if await make_reports():
        await _tell()


@flow(name="saved-report", flow_run_name="report {name}", persist_result=False)
async def make_saved_report(name: str) -> None:
    """Make a saved report, and send it to those who are to have it.

    Args:
        name: under which it was saved, with `certrail report save`.
    """
    if await make_report(name):
        await _tell()


async def _tell() -> None:
    await emit_events()
    await route_events()
    await send_messages()
