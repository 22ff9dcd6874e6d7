"""The audit trail of requests and jobs: who asked what, when, why, and with what result."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from certrail.jobs.status import JobStatus
from certrail.jobs.waves import Lane, Place, Route, Shard
from certrail.model import Action
from certrail.store import (
    audit,
    database,
    job_control,
    job_ends,
    jobs,
    new_jobs,
    new_requests,
    plans,
    request_ends,
    request_runs,
)
from certrail.store.jobs import Job
from certrail.store.requests import Reason
from certrail.tracker import Status
from tests.integration.store.conftest import Inventory

LOCATION = "www.test:443"


def entries(action: str, about: str) -> list[tuple[str, str, dict[str, Any]]]:
    """Return actor, action and detail of what the trail has of *about*, the oldest first."""
    found = audit.newest(limit=None, action=action, object_=about)
    return [(one.actor, one.action, dict(one.detail)) for one in reversed(found)]


def configured(inventory: Inventory) -> plans.Prepared:
    inventory.endpoint(
        LOCATION,
        names=["www.test"],
        profile="p",
        target="web",
        server={"kind": "nginx", "site": "www.test"},
    )
    return plans.for_location(LOCATION)


def new_job(prepared: plans.Prepared) -> Job:
    draft = new_jobs.Draft(
        name="spring",
        action=Action.ENROLL,
        concurrency=1,
        max_failures="0",
        canary=False,
        in_window=False,
        scheduled_at=None,
        actor="ann@desk",
    )
    chosen = new_jobs.Chosen(
        endpoint_id=prepared.endpoint_id,
        action=Action.ENROLL,
        plan=prepared.plan,
        place=Place(position=1, wave=1, shard=1),
        previous_certificate_id=None,
        certificate_id=None,
    )
    return new_jobs.create(draft, [chosen], [], [Shard(1, 1, Route("agents"), Lane.MAIN, 1)])


def test_a_request_tells_who_asked_why_and_what_came_of_it(inventory: Inventory) -> None:
    """The end is the worker's; both entries name the same request."""
    prepared = configured(inventory)
    began = database.now()
    request = new_requests.create(
        prepared.endpoint_id,
        action=Action.ENROLL,
        plan=prepared.plan,
        reason=Reason("requested", "by hand"),
        actor="ann@desk",
    )
    request_runs.take(request.id, "host:7:abc", timedelta(minutes=1))
    request_ends.finish(request.id, "host:7:abc", Status.AUTOMATION_FAILED)

    which = {"request_id": str(request.id)}
    assert entries("request.*", LOCATION) == [
        ("ann@desk", "request.start", {**which, "action": "enroll", "reason": "requested"}),
        ("worker host:7:abc", "request.end", {**which, "status": "automation-failed"}),
    ]
    times = [one.at for one in audit.newest(limit=2, object_=LOCATION)]
    assert began <= times[1] <= times[0]


def test_a_job_tells_who_asked_why_it_stopped_and_how_it_ended(inventory: Inventory) -> None:
    """The first reason to stop is the one that counts, and an end that is told twice is one."""
    job = new_job(configured(inventory))
    worker = "worker host:7:abc"
    for reason in ("2 failed", "3 failed"):
        job_ends.stop(job.id, "too-many-failures", reason, actor=worker)
    for _ in range(2):
        job_ends.finish(job.id, JobStatus.FAILED, "stopped: 2 failed", actor=worker)

    which = {"job_id": str(job.id)}
    assert entries("job.*", "spring") == [
        ("ann@desk", "job.start", {**which, "endpoints": 1}),
        (worker, "job.stop", {**which, "code": "too-many-failures", "message": "2 failed"}),
        (worker, "job.end", {**which, "status": "failed", "message": "stopped: 2 failed"}),
    ]


def test_a_job_that_is_run_again_ends_again(inventory: Inventory) -> None:
    """Each of its ends is a result of its own."""
    prepared = configured(inventory)
    job = new_job(prepared)
    job_ends.drop(job.id)
    job_ends.finish(job.id, JobStatus.CANCELLED, "cancelled", actor="ann@desk")
    (left,) = job_control.to_retry(job.id, rest=True)
    job_control.reopen(jobs.by_id(job.id), {left.id: prepared.plan}, "bob@desk")
    job_ends.finish(job.id, JobStatus.COMPLETED, "1 of 1 successful", actor="worker host:7:abc")

    found = [(actor, action) for actor, action, _ in entries("job.*", "spring")]
    assert found == [
        ("ann@desk", "job.start"),
        ("ann@desk", "job.end"),
        ("bob@desk", "job.retry"),
        ("worker host:7:abc", "job.end"),
    ]
