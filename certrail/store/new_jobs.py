"""How a bulk job is made: its rows, requests, members and shards, whole or not at all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import Connection, insert
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.exc import IntegrityError

from certrail.configuration.plan import Plan
from certrail.errors import Conflict, InvalidRequest
from certrail.jobs.status import JobStatus
from certrail.jobs.waves import Place, Shard
from certrail.model import Action
from certrail.store import asked_approvals, audit
from certrail.store.database import transaction
from certrail.store.jobs import Job, by_id
from certrail.store.new_requests import supersede
from certrail.store.schema import (
    job_members,
    job_shards,
    jobs,
    requests,
    steps,
)
from certrail.tracker import (
    STEPS,
    Status,
)
from certrail.words import quoted

REASON = "bulk-job"


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
        remedy=f"Choose another name; `certrail job show {quoted(name)}` shows that one.",
    )


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
            # In one order, or two jobs over the same endpoints would wait for each other.
            for one in sorted(chosen, key=lambda one: one.endpoint_id)
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
    asked_approvals.tell(connection, [made[one] for one in asked if one in made])
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
