"""The dashboard and the reports that are due; runs every quarter of an hour."""

from __future__ import annotations

from prefect import flow

from tasks.report import make_reports, show_dashboard


@flow(name="report", flow_run_name="report", persist_result=False)
async def report() -> None:
    """Bring the dashboard up to date and make the reports whose time has come."""
    await show_dashboard()
    await make_reports()
