"""Repair what crashes left behind; runs every minute."""

from __future__ import annotations

from prefect import flow

from tasks.reconcile import repair_jobs, repair_requests, withdraw_challenges
from tasks.upkeep import (
    end_dead_runs,
    end_what_is_over,
    find_silent_executors,
    follow_prefect,
)


@flow(name="reconcile", flow_run_name="reconcile", persist_result=False)
async def reconcile() -> None:
    """Put requests and jobs back on their way, follow operators in Prefect, end what is dead."""
    await follow_prefect()
    await end_what_is_over()
    await repair_requests()
    await repair_jobs()
    await withdraw_challenges()
    await find_silent_executors()
    await end_dead_runs()
