"""What Prefect is told about runs of jobs that are over."""

from __future__ import annotations

from uuid import uuid4

import pytest
from prefect.client.schemas.objects import FlowRun, State
from prefect.states import (
    Cancelled,
    Completed,
    Crashed,
    Failed,
    Paused,
    Pending,
    Running,
    Scheduled,
)

from certrail.jobs.status import JobStatus
from certrail.store.recorded import EndedJob
from tasks.job_settlement import due


@pytest.mark.parametrize(
    ("status", "is_shard", "shown", "becomes"),
    [
        (JobStatus.COMPLETED, False, Running(), "COMPLETED"),
        (JobStatus.COMPLETED, False, Crashed(), "COMPLETED"),
        (JobStatus.COMPLETED, False, Failed(), "COMPLETED"),
        (JobStatus.COMPLETED, False, Completed(), None),
        (JobStatus.FAILED, False, Running(), "FAILED"),
        (JobStatus.FAILED, False, Crashed(), "FAILED"),
        (JobStatus.FAILED, False, Failed(), None),
        (JobStatus.CANCELLED, False, Running(), "CANCELLED"),
        (JobStatus.CANCELLED, False, Cancelled(), None),
        (JobStatus.CANCELLED, False, Paused(), "CANCELLED"),
        (JobStatus.COMPLETED, True, Running(), "CRASHED"),
        (JobStatus.FAILED, True, Pending(), "CRASHED"),
        (JobStatus.COMPLETED, True, Scheduled(), "CANCELLED"),
        (JobStatus.CANCELLED, True, Paused(), "CANCELLED"),
        # How a shard ended is its own affair.
        (JobStatus.COMPLETED, True, Failed(), None),
        (JobStatus.FAILED, True, Completed(), None),
    ],
)
def test_the_state_that_a_run_gets(
    status: JobStatus, is_shard: bool, shown: State, becomes: str | None
) -> None:
    """The job's own run ends as the job did; of a shard it only counts that it ends."""
    run = FlowRun(flow_id=uuid4(), name="job spring", state=shown)

    state = due(EndedJob("spring", status, is_shard), run)

    assert (state.type.value if state else None) == becomes
    assert state is None or "spring" in (state.message or "")
