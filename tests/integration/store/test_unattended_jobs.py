"""Jobs that no worker holds: the repair finds what pauses too, and wakes up none of it."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest
from prefect.client.schemas.objects import FlowRun, State
from prefect.states import Cancelled, Paused, Running

from certrail.jobs.status import JobStatus
from certrail.policy import Repair
from certrail.store import job_control, job_runs, jobs
from certrail.store.jobs import Job
from tasks import reconcile
from tests.integration.store.conftest import Inventory, job_of

NOTHING = timedelta(0)


@pytest.fixture
def job(inventory: Inventory) -> Job:
    """A job that a worker holds, and that somebody wants to pause."""
    inventory.endpoint("a.test:443", profile="p", target="web")
    made = job_of("a.test")
    job_runs.take(made.id, "w", timedelta(hours=1))
    job_runs.begin(made.id)
    job_control.ask_to_pause(made, "ann@host")
    return jobs.by_id(made.id)


def run(state: State) -> FlowRun:
    """Return a run that has been in *state* for a while."""
    since = datetime.now(UTC) - timedelta(minutes=5)
    state = state.model_copy(update={"timestamp": since})
    return FlowRun(flow_id=uuid4(), name="job spring", state=state)


def test_a_job_that_pauses_waits_for_a_person(job: Job) -> None:
    """It is left alone until somebody cancels it: here, or on the page of its run."""
    assert jobs.unattended(NOTHING) == []
    assert job_control.paused(job.id, "w")

    (found,) = jobs.unattended(NOTHING)

    assert found.status is JobStatus.PAUSED
    assert reconcile.due(found, run(Paused())) is Repair.LEAVE
    assert reconcile.due(found, run(Running())) is Repair.LEAVE
    assert reconcile.due(found, None) is Repair.LEAVE
    assert reconcile.due(found, run(Cancelled())) is Repair.CANCEL
    job_control.ask_to_cancel(found, "ann@host")
    (asked,) = jobs.unattended(NOTHING)
    assert reconcile.due(asked, run(Paused())) is Repair.CANCEL
    assert reconcile.due(asked, None) is Repair.CANCEL


def test_a_job_that_has_come_to_rest_since_is_not_woken_up(job: Job) -> None:
    """The database was away for longer than the lease, and its worker was taken for dead."""
    seen = replace(job, is_held=False)
    assert reconcile.due(seen, run(Running())) is Repair.RUN_AGAIN
    assert job_control.paused(job.id, "w")

    reconcile.apply_to_job(seen, Repair.RUN_AGAIN)

    assert jobs.by_id(job.id).flow_run_id is None
    assert jobs.by_id(job.id).status is JobStatus.PAUSED


def test_a_repair_cancels_what_paused(job: Job) -> None:
    """Also where a request of it still ran alone at the first try."""
    assert job_control.paused(job.id, "w")
    (found,) = jobs.unattended(NOTHING)

    reconcile.apply_to_job(found, Repair.CANCEL)

    assert jobs.by_id(job.id).status is JobStatus.CANCELLED
    assert jobs.unattended(NOTHING) == []
