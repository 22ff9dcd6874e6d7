"""A bulk job: the same automation for many endpoints, in waves."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from prefect import State, flow

from tasks.bulk_job import run_job


@flow(name="bulk-job", validate_parameters=False, persist_result=False)
async def bulk_job(job_id: str) -> State[Any]:
    """Run what is left of the job; its endpoints are child runs of this one."""
    return await run_job(UUID(job_id))
