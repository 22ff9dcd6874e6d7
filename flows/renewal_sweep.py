"""Renewals become scheduled runs in time; runs every minute."""

from __future__ import annotations

from prefect import flow

from tasks.renewal import ask_cas, decide_and_schedule, tell_prefect


@flow(name="renewal-sweep", flow_run_name="renewal-sweep", persist_result=False)
async def sweep_renewals() -> None:
    """Ask the CAs when they want certificates renewed, decide, schedule, and show it in Prefect."""
    await ask_cas()
    await decide_and_schedule()
    await tell_prefect()
