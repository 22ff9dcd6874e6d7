"""What counts as a difference between a bulk job that is over and its runs in Prefect."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from uuid import UUID

import pytest

from certrail.jobs.agreement import Code, JobRow, ShardRow, Shown, disagreements
from certrail.jobs.status import JobStatus

RUN, FIRST, SECOND = UUID(int=1), UUID(int=2), UUID(int=3)
JOB = JobRow(
    id=UUID(int=9),
    name="spring renewal",
    status=JobStatus.COMPLETED,
    run_count=1,
    flow_run_id=RUN,
    # The last one was never begun.
    shards=(ShardRow(1, FIRST), ShardRow(2, SECOND), ShardRow(3, None)),
)
COMPLETED, FAILED, CANCELLED = (
    Shown(name.upper(), name) for name in ("Completed", "Failed", "Cancelled")
)
CRASHED, RUNNING = Shown("CRASHED", "Crashed"), Shown("RUNNING", "Running")
AWAITED = Shown("SCHEDULED", "AwaitingRetry")
SHOWN = {RUN: COMPLETED, FIRST: COMPLETED, SECOND: CRASHED}


@pytest.mark.parametrize(
    ("job", "shown", "codes"),
    [
        pytest.param(JOB, SHOWN, [], id="as it ended; how a shard ended is its own affair"),
        pytest.param(JOB, SHOWN | {RUN: RUNNING}, [Code.JOB_RUN_STATE], id="still running"),
        pytest.param(JOB, SHOWN | {RUN: FAILED}, [Code.JOB_RUN_STATE], id="another end"),
        pytest.param(replace(JOB, status=JobStatus.FAILED), SHOWN | {RUN: FAILED}, [], id="failed"),
        pytest.param(
            replace(JOB, status=JobStatus.FAILED),
            SHOWN | {RUN: CRASHED},
            [Code.JOB_RUN_STATE],
            id="crashed is not failed",
        ),
        pytest.param(
            replace(JOB, status=JobStatus.CANCELLED), SHOWN | {RUN: CANCELLED}, [], id="cancelled"
        ),
        pytest.param(JOB, {FIRST: COMPLETED, SECOND: CRASHED}, [Code.JOB_RUN_MISSING], id="gone"),
        pytest.param(
            replace(JOB, flow_run_id=None), SHOWN, [Code.JOB_RUN_MISSING], id="ran without a run"
        ),
        pytest.param(
            replace(JOB, flow_run_id=None, run_count=0), SHOWN, [], id="never handed to Prefect"
        ),
        pytest.param(
            JOB,
            SHOWN | {FIRST: RUNNING, SECOND: AWAITED},
            [Code.SHARD_RUN_OPEN, Code.SHARD_RUN_OPEN],
            id="shards that go on",
        ),
        pytest.param(
            JOB, {RUN: COMPLETED, FIRST: COMPLETED}, [Code.SHARD_RUN_MISSING], id="a shard is gone"
        ),
        pytest.param(replace(JOB, status=JobStatus.RUNNING), {}, [], id="not over"),
        pytest.param(replace(JOB, status=JobStatus.PAUSED), {}, [], id="rests"),
    ],
)
def test_a_job_and_its_shards_are_compared(
    job: JobRow, shown: Mapping[UUID, Shown], codes: list[Code]
) -> None:
    """The job's own run ends as the job did; of a shard it only counts that it ended."""
    assert [one.code for one in disagreements(job, shown)] == codes


def test_a_difference_says_what_both_have_and_what_to_do() -> None:
    """Commands can be pasted, and each run is found by its id."""
    own, shard = disagreements(JOB, SHOWN | {RUN: RUNNING, SECOND: AWAITED})

    assert own.message == f"the job is completed, its flow run {RUN} Running"
    assert "`certrail job show 'spring renewal'`" in own.remedy
    assert f"the flow run {SECOND} of its shard 2 still AwaitingRetry" in shard.message
    assert "`certrail doctor`" in shard.remedy
    assert (own.flow_run_id, shard.flow_run_id) == (RUN, SECOND)
