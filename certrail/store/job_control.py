"""What people want of a bulk job: to pause, to go on, to stop or to run what failed again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from uuid import UUID

from sqlalchemy import (
    ColumnElement,
    and_,
    bindparam,
    case,
    func,
    or_,
    select,
    update,
)
from sqlalchemy.exc import IntegrityError

from certrail.configuration.plan import Plan
from certrail.errors import Conflict, InvalidRequest
from certrail.jobs.status import OPEN, JobStatus
from certrail.store import asked_approvals, audit, steps
from certrail.store.database import transaction
from certrail.store.job_ends import announce, drop_requests
from certrail.store.jobs import Job
from certrail.store.new_requests import ONE_ACTIVE
from certrail.store.requests import Request, read, selected
from certrail.store.schema import endpoints, jobs, requests
from certrail.tracker import ACTIVE, FAILED, SUCCESSFUL, Status
from certrail.words import quoted


def ask_to_pause(job: Job, actor: str) -> None:
    """Begin no more endpoints until somebody resumes the job.

    Raises:
        InvalidRequest: it is over, or pauses already.
    """
    with transaction() as connection:
        row = connection.execute(
            update(jobs)
            .where(jobs.c.id == job.id, jobs.c.status.in_(OPEN), ~jobs.c.pause_requested)
            .values(pause_requested=True)
            .returning(jobs.c.id)
        ).first()
        if row is None:
            raise InvalidRequest(
                f"the job {job.name} is {job.status.text.lower()}"
                + (" and pauses already" if job.pause_requested else ""),
                remedy="Only a job that is scheduled or runs can be paused.",
            )
        audit.note(connection, actor, "job.pause", job.name)


def paused(job_id: UUID, owner: str) -> bool:
    """Note that nothing of the job runs any more; False when it was resumed meanwhile."""
    with transaction() as connection:
        row = connection.execute(
            update(jobs)
            .where(
                jobs.c.id == job_id,
                jobs.c.lease_owner == owner,
                jobs.c.pause_requested,
                jobs.c.status.in_(OPEN),
            )
            .values(status=JobStatus.PAUSED, lease_owner=None, lease_until=None)
            .returning(jobs.c.name)
        ).first()
        if row is not None:
            announce(connection, "certrail.job.paused", job_id, row.name)
    return row is not None


def resume(job: Job, actor: str) -> None:
    """Take a pause back.

    Raises:
        InvalidRequest: the job does not pause.
    """
    with transaction() as connection:
        row = connection.execute(
            update(jobs)
            .where(jobs.c.id == job.id, jobs.c.status.in_(OPEN), jobs.c.pause_requested)
            .values(
                pause_requested=False,
                status=case(
                    (jobs.c.status == JobStatus.PAUSED, JobStatus.RUNNING.value),
                    else_=jobs.c.status,
                ),
            )
            .returning(jobs.c.id)
        ).first()
        if row is None:
            raise InvalidRequest(
                f"the job {job.name} is {job.status.text.lower()}, it does not pause",
                remedy="`certrail job retry` runs the failed endpoints of a job that is over.",
            )
        audit.note(connection, actor, "job.resume", job.name)


def ask_to_cancel(job: Job, actor: str) -> int:
    """Cancel what has not begun; ask what runs to stop at its next safe point.

    Returns how many requests had not begun.

    Raises:
        InvalidRequest: the job is over.
    """
    with transaction() as connection:
        row = connection.execute(
            update(jobs)
            .where(jobs.c.id == job.id, jobs.c.status.in_(OPEN))
            .values(cancel_requested=True, pause_requested=False)
            .returning(jobs.c.id)
        ).first()
        if row is None:
            raise InvalidRequest(
                f"the job {job.name} is {job.status.text.lower()}",
                remedy="There is nothing to cancel.",
            )
        audit.note(connection, actor, "job.cancel", job.name)
        cancelled = drop_requests(connection, job.id)
        connection.execute(
            update(requests)
            .where(requests.c.job_id == job.id, requests.c.status.in_(ACTIVE))
            .values(cancel_requested=True)
        )
    return cancelled


def to_retry(job_id: UUID, *, rest: bool = False) -> list[Request]:
    """Return the requests of a job that failed and whose endpoints have no newer or open one.

    With *rest* also those that were cancelled before they began, but for those that somebody
    denied.
    """
    wanted: list[ColumnElement[bool]] = [requests.c.status.in_(FAILED)]
    if rest:
        wanted.append(
            and_(
                requests.c.status == Status.CANCELLED,
                requests.c.run_count == 0,
                ~asked_approvals.IS_DENIED,
            )
        )
    other = requests.alias("other")
    others = (
        select(other.c.id)
        .where(
            other.c.endpoint_id == requests.c.endpoint_id,
            other.c.id != requests.c.id,
            or_(other.c.created_at > requests.c.created_at, other.c.status.in_(ACTIVE)),
        )
        .exists()
    )
    query = selected().where(requests.c.job_id == job_id, or_(*wanted), ~others)
    with transaction() as connection:
        return [read(row) for row in connection.execute(query)]


def reopen(job: Job, plans: Mapping[UUID, Plan], actor: str, *, rest: bool = False) -> int:
    """Run requests of a job that is over again, from the step that failed.

    Those that need an approval which nobody has given wait for it. Failures of such as do not
    run again stop it no more. Returns how many run again.

    Args:
        job: which one.
        plans: what each request does this time, by the request's id.
        actor: who asks for it.
        rest: whether those that were cancelled before they began are among them.

    Raises:
        InvalidRequest: the job is not over, or nothing in it failed.
        Conflict: an endpoint has got another active request at this moment; nothing runs again.
    """
    try:
        with transaction() as connection:
            row = connection.execute(
                update(jobs)
                .where(jobs.c.id == job.id, jobs.c.status.not_in(OPEN))
                .values(
                    status=JobStatus.RUNNING,
                    pause_requested=False,
                    cancel_requested=False,
                    stop_code=None,
                    stop_message=None,
                    reopened_at=func.now(),
                    ended_at=None,
                )
                .returning(jobs.c.id)
            ).first()
            if row is None:
                raise InvalidRequest(
                    f"the job {job.name} is not over", remedy="Wait for its end, or cancel it."
                )
            again = [
                one.id
                for one in connection.execute(
                    update(requests)
                    .where(
                        requests.c.job_id == job.id,
                        requests.c.id.in_(list(plans)),
                        requests.c.status.not_in((*ACTIVE, *SUCCESSFUL)),
                        ~asked_approvals.IS_DENIED,
                    )
                    .values(
                        status=Status.AUTOMATION_REQUESTED,
                        cancel_requested=False,
                        ended_at=None,
                        ended_because=None,
                        scheduled_at=None,
                    )
                    .returning(requests.c.id)
                )
            ]
            if not again:
                raise _nothing_runs(job, rest=rest)
            steps.again(connection, again)
            connection.execute(
                update(requests)
                .where(requests.c.id == bindparam("of"))
                .values(plan=bindparam("present")),
                [{"of": one, "present": plans[one].model_dump(mode="json")} for one in again],
            )
            asked_approvals.ask_again(connection, {one: plans[one] for one in again})
            audit.note(connection, actor, "job.retry", job.name, {"endpoints": len(again)})
    except IntegrityError as exc:
        raise _conflict(exc, job, list(plans)) from exc
    return len(again)


def _nothing_runs(job: Job, *, rest: bool) -> InvalidRequest:
    """Return the error for a retry that finds nothing to do, with what can be done instead."""
    message = f"no endpoint of the job {job.name} failed that could run again"
    retry = f"`certrail job retry {quoted(job.name)} --rest`"
    if not rest and to_retry(job.id, rest=True):
        return InvalidRequest(
            message, remedy=f"{retry} runs those that were cancelled before they began."
        )
    return InvalidRequest(
        message,
        remedy="One that has got another request since, was denied or is configured no more is "
        "left out; `certrail request start LOCATION` renews a single one.",
    )


def _conflict(exc: IntegrityError, job: Job, request_ids: Sequence[UUID]) -> Exception:
    """Return what to raise for a broken constraint: a clear error where it is the known one."""
    if ONE_ACTIVE not in str(exc.orig):
        return exc
    ours, other = requests.alias("ours"), requests.alias("other")
    query = (
        select(endpoints.c.location)
        .join(other, other.c.endpoint_id == endpoints.c.id)
        .join(ours, ours.c.endpoint_id == endpoints.c.id)
        .where(ours.c.id.in_(request_ids), other.c.id != ours.c.id, other.c.status.in_(ACTIVE))
        .limit(1)
    )
    with transaction() as connection:
        location = connection.execute(query).scalar()
    return Conflict(
        f"{location or 'an endpoint'} has an active request that was made at this moment",
        remedy=f"`certrail job retry {quoted(job.name)}` once more leaves that endpoint out.",
    )
