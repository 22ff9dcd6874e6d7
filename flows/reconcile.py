"""Repair what crashes left behind; runs every minute."""

from __future__ import annotations

from prefect import flow

from tasks.reconcile import repair_jobs, repair_requests, withdraw_challenges


@flow(name="reconcile", flow_run_name="reconcile", persist_result=False)
async def reconcile() -> None:
    """Put requests back on their way and withdraw stray challenges."""
    await repair_requests()
    await repair_jobs()
    await withdraw_challenges()
