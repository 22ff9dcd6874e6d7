"""Repair what crashes left behind; runs every minute."""

from __future__ import annotations

from typing import Any

from prefect import State, flow
from prefect.states import Completed

from tasks.job_settlement import settle_jobs
from tasks.reconcile import repair_jobs, repair_requests, withdraw_challenges
from tasks.settlement import IDLE, forget_idle, settle_records
from tasks.upkeep import (
    end_dead_runs,
    end_what_is_over,
    find_silent_executors,
    follow_prefect,
)


@flow(name="reconcile", flow_run_name="reconcile", persist_result=False)
async def reconcile() -> State[Any]:
    """Put requests and jobs back on their way, follow operators in Prefect, end what is dead."""
    followed = await follow_prefect()
    await end_what_is_over()
    done = {
        "taken over from Prefect": followed,
        **await repair_requests(),
        "jobs": await repair_jobs(),
        "challenges withdrawn": await withdraw_challenges(),
        "silent executors": await find_silent_executors(),
        **await settle_records(),
        "job runs": await settle_jobs(),
        "dead runs": await end_dead_runs(),
    }
    await forget_idle()
    told = "; ".join(f"{what}: {number}" for what, number in done.items() if number)
    if not told:
        return Completed(name=IDLE, message="Everything is as it should be.")
    return Completed(message=told)
