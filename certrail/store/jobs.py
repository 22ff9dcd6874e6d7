"""Bulk automation jobs: their rows, made whole or not at all, and how they are read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import Connection, Row, and_, any_, func, insert, literal, or_, select
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.dialects.postgresql import UUID as UUID_
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.exc import IntegrityError

from certrail.configuration import Plan
from certrail.errors import Conflict, InvalidRequest, NotFound
from certrail.jobs.status import GROUPS, Counts, JobStatus
from certrail.jobs.threshold import Threshold, Wave
from certrail.jobs.waves import Lane, Place, Shard
from certrail.model import Action
from certrail.store import audit
from certrail.store.database import transaction
from certrail.store.requests import supersede
from certrail.store.schema import (
    endpoints,
    job_members,
    job_shards,
    jobs,
    requests,
    steps,
)
from certrail.tracker import (
    ACTIVE,
    AUTOMATIC_REASONS,
    FAILED,
    STEPS,
    SUCCESSFUL,
    Status,
    StepStatus,
)

REASON = "bulk-job"
_LATEST = 200


@dataclass(frozen=True, slots=True)
class Job:
    """One bulk automation job.

    Attributes:
        action: of all its requests, None for what each endpoint needed.
        concurrency: how many endpoints run at the same time.
        threshold: how many failures it puts up with, None if none was given.
        canary: whether its first wave is a canary.
        stop_code, stop_message: why it begins no more endpoints, where it decided so itself.
    """

    id: UUID
    name: str
    action: Action | None
    status: JobStatus
    concurrency: int
    threshold: Threshold | None
    canary: bool
    in_window: bool
    requested_by: str
    flow_run_id: UUID | None
    run_count: int
    lease_owner: str | None
    is_held: bool
    pause_requested: bool
    cancel_requested: bool
    stop_code: str | None
    stop_message: str | None
    created_at: datetime
    scheduled_at: datetime | None
    started_at: datetime | None
    ended_at: datetime | None

    @property
    def flow_run_name(self) -> str:
        """The name that Prefect shows."""
        return f"job {self.name}"

    @property
    def tag(self) -> str:
        """The one tag of its runs in Prefect."""
        return f"job:{self.name}"


@dataclass(frozen=True, slots=True)
class Chosen:
    """An endpoint that takes part, with the request to be made for it."""

    endpoint_id: UUID
    action: Action
    plan: Plan
    place: Place
    previous_certificate_id: UUID | None
    certificate_id: UUID | None


@dataclass(frozen=True, slots=True)
class LeftOut:
    """An endpoint that does not take part, and why."""

    location: str
    code: str
    message: str


@dataclass(frozen=True, slots=True)
class Draft:
    """A job to be made."""

    name: str
    action: Action | None
    concurrency: int
    max_failures: str | None
    canary: bool
    in_window: bool
    scheduled_at: datetime | None
    actor: str


def create(
    draft: Draft, chosen: Sequence[Chosen], left_out: Sequence[LeftOut], shards: Sequence[Shard]
) -> Job:
    """Store a job with its requests.

    An endpoint that got a request from somebody else meanwhile is left out.

    Raises:
        Conflict: there is a job of that name.
        InvalidRequest: no endpoint is left to take part.
    """
    try:
        with transaction() as connection:
            job_id: UUID = connection.execute(
                insert(jobs)
                .values(
                    name=draft.name,
                    action=str(draft.action or ""),
                    status=JobStatus.SCHEDULED,
                    requested_by=draft.actor,
                    scheduled_at=draft.scheduled_at,
                    settings={
                        "concurrency": draft.concurrency,
                        "max_failures": draft.max_failures,
                        "canary": draft.canary,
                        "in_window": draft.in_window,
                    },
                )
                .returning(jobs.c.id)
            ).scalar_one()
            made = _requests(connection, job_id, draft, chosen)
            taken = [
                LeftOut(one.plan.location, "active-request", "it has got a request meanwhile")
                for one in chosen
                if one.endpoint_id not in made
            ]
            if not made:
                raise InvalidRequest("no endpoint is left that could take part in the job")
            _members(connection, job_id, chosen, made, [*left_out, *taken])
            connection.execute(
                insert(job_shards),
                [
                    {
                        "job_id": job_id,
                        "number": shard.number,
                        "wave": shard.wave,
                        "pool": shard.route.pool,
                        "queue": shard.route.queue,
                        "lane": shard.lane,
                        "size": shard.size,
                    }
                    for shard in shards
                ],
            )
            audit.note(
                connection,
                draft.actor,
                "job.start",
                draft.name,
                {"job_id": str(job_id), "endpoints": len(made)},
            )
    except IntegrityError as exc:
        if "uq_jobs_name" in str(exc.orig):
            raise named_twice(draft.name) from exc
        raise
    return by_id(job_id)


def named_twice(name: str) -> Conflict:
    """Return the error for a name that a job has already."""
    return Conflict(
        f"there is a job {name} already",
        remedy=f"Choose another name; `certrail job show {name}` shows that one.",
    )


def exists(name: str) -> bool:
    """Return whether a job has that name."""
    with transaction() as connection:
        return connection.execute(select(jobs.c.id).where(jobs.c.name == name)).first() is not None


def get(name: str) -> Job:
    """Return the job of that name.

    Raises:
        NotFound: there is none.
    """
    with transaction() as connection:
        row = connection.execute(_select().where(jobs.c.name == name)).first()
    if row is None:
        raise NotFound(f"there is no job {name}", remedy="List them with `certrail job list`.")
    return _read(row)


def by_id(job_id: UUID) -> Job:
    """Return a job.

    Raises:
        NotFound: there is none with that id.
    """
    with transaction() as connection:
        row = connection.execute(_select().where(jobs.c.id == job_id)).first()
    if row is None:
        raise NotFound(f"there is no job {job_id}")
    return _read(row)


def newest(limit: int = 50) -> list[Job]:
    """Return jobs, newest first."""
    with transaction() as connection:
        rows = connection.execute(_select().order_by(jobs.c.created_at.desc()).limit(limit))
        return [_read(row) for row in rows]


def unattended(older_than: timedelta) -> list[Job]:
    """Return open jobs that are due and that no living worker holds."""
    query = _select().where(
        jobs.c.status.in_((JobStatus.SCHEDULED, JobStatus.RUNNING)),
        func.coalesce(jobs.c.lease_until, jobs.c.created_at + older_than) < func.now(),
    )
    with transaction() as connection:
        return [_read(row) for row in connection.execute(query)]


def counts(job_ids: Sequence[UUID]) -> dict[UUID, Counts]:
    """Return how many endpoints of each job are in which state."""
    query = (
        select(job_members.c.job_id, *_counted())
        .select_from(_MEMBERS)
        .where(job_members.c.job_id.in_(job_ids))
        .group_by(job_members.c.job_id)
    )
    with transaction() as connection:
        found = {row.job_id: _counts(row) for row in connection.execute(query)}
    return {job_id: found.get(job_id, Counts()) for job_id in job_ids}


def waves(job: Job) -> list[Wave]:
    """Return the waves with the states of their endpoints."""
    query = (
        select(job_members.c.wave, *_counted())
        .select_from(_MEMBERS)
        .where(job_members.c.job_id == job.id, job_members.c.wave.is_not(None))
        .group_by(job_members.c.wave)
        .order_by(job_members.c.wave)
    )
    with transaction() as connection:
        return [
            Wave(row.wave, job.canary and row.wave == 1, _counts(row))
            for row in connection.execute(query)
        ]


@dataclass(frozen=True, slots=True)
class Cause:
    """Failures of one kind in a job."""

    error: str
    step: str
    count: int
    example: str
    message: str
    remedy: str


def causes(job_id: UUID) -> list[Cause]:
    """Return why endpoints of the job failed, the most frequent cause first."""
    error = func.coalesce(steps.c.error, "unknown")
    query = (
        select(
            error.label("error"),
            func.min(steps.c.title).label("step"),
            func.count().label("failures"),
            func.min(job_members.c.location).label("example"),
            func.min(steps.c.cause).label("cause"),
            func.min(steps.c.remedy).label("remedy"),
        )
        .select_from(
            job_members.join(requests, requests.c.id == job_members.c.request_id).join(
                steps, steps.c.request_id == requests.c.id
            )
        )
        .where(
            job_members.c.job_id == job_id,
            requests.c.status.in_(FAILED),
            steps.c.status == StepStatus.FAILED,
        )
        .group_by(error)
        .order_by(func.count().desc(), error)
    )
    with transaction() as connection:
        return [
            Cause(row.error, row.step, row.failures, row.example, row.cause, row.remedy)
            for row in connection.execute(query)
        ]


@dataclass(frozen=True, slots=True)
class Member:
    """One endpoint of a job, for lists: *status* is None where it does not take part."""

    position: int
    location: str
    wave: int | None
    status: Status | None
    request_id: UUID | None
    flow_run_id: UUID | None
    code: str | None
    message: str | None
    seconds: float | None


def members(job_id: UUID) -> list[Member]:
    """Return every endpoint of a job in its order, with what became of it."""
    failed = (
        select(func.concat(steps.c.title, ": ", steps.c.cause))
        .where(steps.c.request_id == requests.c.id, steps.c.status == StepStatus.FAILED)
        .limit(1)
        .scalar_subquery()
    )
    query = (
        select(
            job_members,
            requests.c.status,
            requests.c.flow_run_id,
            func.extract("epoch", requests.c.ended_at - requests.c.started_at).label("seconds"),
            failed.label("cause"),
        )
        .select_from(_MEMBERS)
        .where(job_members.c.job_id == job_id)
        .order_by(job_members.c.position)
    )
    with transaction() as connection:
        return [
            Member(
                position=row.position,
                location=row.location,
                wave=row.wave,
                status=Status(row.status) if row.status else None,
                request_id=row.request_id,
                flow_run_id=row.flow_run_id,
                code=row.reason_code,
                message=row.reason_message or row.cause,
                seconds=float(row.seconds) if row.seconds is not None else None,
            )
            for row in connection.execute(query)
        ]


@dataclass(frozen=True, slots=True)
class Activity:
    """The newest request of an endpoint."""

    status: Status
    job_name: str | None
    gives_way: bool = False

    @property
    def is_active(self) -> bool:
        """Whether it holds its endpoint: another one cannot be started.

        A renewal that is only scheduled gives way to what a person asks for.
        """
        return self.status in ACTIVE and not self.gives_way


def activity(endpoint_ids: Sequence[UUID]) -> dict[UUID, Activity]:
    """Return what became of the newest request of each endpoint that has one."""
    gives_way = and_(
        requests.c.status.in_((Status.AUTOMATION_SCHEDULED, Status.APPROVAL_PENDING)),
        or_(*(requests.c.reason_code.startswith(begin) for begin in AUTOMATIC_REASONS)),
        requests.c.certificate_id.is_(None),
    ).label("gives_way")
    query = (
        select(requests.c.endpoint_id, requests.c.status, jobs.c.name, gives_way)
        .distinct(requests.c.endpoint_id)
        .select_from(requests.outerjoin(jobs, jobs.c.id == requests.c.job_id))
        .where(requests.c.endpoint_id == any_(literal(list(endpoint_ids), ARRAY(UUID_))))
        .order_by(requests.c.endpoint_id, requests.c.created_at.desc())
    )
    with transaction() as connection:
        return {
            row.endpoint_id: Activity(Status(row.status), row.name, row.gives_way)
            for row in connection.execute(query)
        }


def identified(locations: Sequence[str]) -> dict[str, UUID]:
    """Return the ids of those of *locations* that the inventory has."""
    query = select(endpoints.c.id, endpoints.c.location).where(
        endpoints.c.location == any_(literal(list(locations), ARRAY(endpoints.c.location.type)))
    )
    with transaction() as connection:
        return {row.location: row.id for row in connection.execute(query)}


def open_profiles(job_id: UUID) -> list[str]:
    """Return the profiles of the endpoints whose requests are not over."""
    name = requests.c.plan["profile"].astext
    query = (
        select(name).distinct().where(requests.c.job_id == job_id, requests.c.status.in_(ACTIVE))
    )
    with transaction() as connection:
        return list(connection.execute(query).scalars())


def usual_duration() -> timedelta | None:
    """Return how long the latest successful requests took in the middle, None without any."""
    latest = (
        select((requests.c.ended_at - requests.c.started_at).label("took"))
        .where(requests.c.status.in_(SUCCESSFUL), requests.c.started_at.is_not(None))
        .order_by(requests.c.ended_at.desc())
        .limit(_LATEST)
        .subquery()
    )
    middle = func.percentile_cont(0.5).within_group(latest.c.took)
    with transaction() as connection:
        found: timedelta | None = connection.execute(select(middle)).scalar()
    return found


def lane_of(activity_: Activity | None) -> Lane:
    """Return the lane of an endpoint by what became of its newest request."""
    return Lane.FAILING if activity_ and activity_.status in FAILED else Lane.MAIN


def _requests(
    connection: Connection, job_id: UUID, draft: Draft, chosen: Sequence[Chosen]
) -> dict[UUID, UUID]:
    """Insert the requests; returns their ids by endpoint, without those that lost a race."""
    if not chosen:
        return {}
    reason = f"bulk job {draft.name}, asked by {draft.actor}"
    supersede(connection, [one.endpoint_id for one in chosen], draft.actor)
    usual = Status.AUTOMATION_SCHEDULED if draft.scheduled_at else Status.AUTOMATION_REQUESTED
    asked = {one.endpoint_id: one.plan.approval for one in chosen if _asks(one)}
    rows = connection.execute(
        upsert(requests).on_conflict_do_nothing().returning(requests.c.id, requests.c.endpoint_id),
        [
            {
                "id": uuid4(),
                "endpoint_id": one.endpoint_id,
                "job_id": job_id,
                "workflow": one.plan.workflow,
                "action": one.action,
                "status": Status.APPROVAL_PENDING if one.endpoint_id in asked else usual,
                "approval": approval.model_dump(mode="json")
                if (approval := asked.get(one.endpoint_id))
                else None,
                "approval_until": datetime.now(UTC) + timedelta(hours=approval.expires_hours)
                if approval
                else None,
                "told_at": draft.scheduled_at,
                "reason_code": REASON,
                "reason_message": reason,
                "requested_by": draft.actor,
                "plan": one.plan.model_dump(mode="json"),
                "scheduled_at": draft.scheduled_at,
                "certificate_id": one.certificate_id,
                "previous_certificate_id": one.previous_certificate_id,
            }
            for one in chosen
        ],
    )
    made = {row.endpoint_id: row.id for row in rows}
    planned = [
        {"request_id": made[one.endpoint_id], "number": n, "title": title, "status": "pending"}
        for one in chosen
        if one.endpoint_id in made
        for n, title in enumerate(STEPS[one.plan.workflow], start=1)
    ]
    if planned:
        connection.execute(insert(steps), planned)
    return made


def _asks(one: Chosen) -> bool:
    return one.plan.approval is not None and one.action.obtains


def _members(
    connection: Connection,
    job_id: UUID,
    chosen: Sequence[Chosen],
    made: Mapping[UUID, UUID],
    left_out: Sequence[LeftOut],
) -> None:
    rows: list[dict[str, Any]] = [
        {
            "job_id": job_id,
            "position": one.place.position,
            "location": one.plan.location,
            "wave": one.place.wave,
            "shard": one.place.shard,
            "request_id": made[one.endpoint_id],
        }
        for one in chosen
        if one.endpoint_id in made
    ]
    connection.execute(insert(job_members), rows)
    if left_out:
        connection.execute(
            insert(job_members),
            [
                {
                    "job_id": job_id,
                    "position": position,
                    "location": one.location,
                    "reason_code": one.code,
                    "reason_message": one.message,
                }
                for position, one in enumerate(left_out, start=len(chosen) + 1)
            ],
        )


_MEMBERS = job_members.outerjoin(requests, requests.c.id == job_members.c.request_id)


def _counted() -> list[Any]:
    return [
        func.count().label("total"),
        func.count().filter(job_members.c.request_id.is_(None)).label("skipped"),
        *(
            func.count().filter(requests.c.status.in_(statuses)).label(name)
            for name, statuses in GROUPS.items()
        ),
    ]


def _counts(row: Row[Any]) -> Counts:
    return Counts(**{name: row._mapping[name] for name in ("total", "skipped", *GROUPS)})


def _select() -> Any:
    return select(jobs, func.coalesce(jobs.c.lease_until > func.now(), False).label("is_held"))


def _read(row: Row[Any]) -> Job:
    settings = row.settings
    text = settings.get("max_failures")
    return Job(
        id=row.id,
        name=row.name,
        action=Action(row.action) if row.action else None,
        status=JobStatus(row.status),
        concurrency=int(settings.get("concurrency", 1)),
        threshold=Threshold.parse(text) if text is not None else None,
        canary=bool(settings.get("canary", False)),
        in_window=bool(settings.get("in_window", False)),
        requested_by=row.requested_by,
        flow_run_id=row.flow_run_id,
        run_count=row.run_count,
        lease_owner=row.lease_owner,
        is_held=row.is_held,
        pause_requested=row.pause_requested,
        cancel_requested=row.cancel_requested,
        stop_code=row.stop_code,
        stop_message=row.stop_message,
        created_at=row.created_at,
        scheduled_at=row.scheduled_at,
        started_at=row.started_at,
        ended_at=row.ended_at,
    )
