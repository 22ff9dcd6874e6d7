"""What an endpoint did last: asked before it may take part in a job."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

from sqlalchemy import and_, any_, func, literal, select
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.dialects.postgresql import UUID as UUID_

from certrail.jobs.waves import Lane
from certrail.store.database import transaction
from certrail.store.reasons import is_automatic
from certrail.store.schema import (
    endpoints,
    jobs,
    requests,
)
from certrail.tracker import (
    ACTIVE,
    FAILED,
    SUCCESSFUL,
    Status,
)

_LATEST = 200


@dataclass(frozen=True, slots=True)
class Activity:
    """The request of an endpoint that is active, or else what it did last."""

    status: Status
    job_name: str | None
    gives_way: bool = False

    @property
    def is_active(self) -> bool:
        """Whether it holds its endpoint: another one cannot be started.

        A renewal that is only scheduled gives way to what a person asks for.
        """
        return self.status in ACTIVE and not self.gives_way


def latest(endpoint_ids: Sequence[UUID]) -> dict[UUID, Activity]:
    """Return the active request of each endpoint that has one, or else what it did last."""
    gives_way = and_(
        requests.c.status.in_((Status.AUTOMATION_SCHEDULED, Status.APPROVAL_PENDING)),
        is_automatic(requests.c.reason_code),
        requests.c.certificate_id.is_(None),
    ).label("gives_way")
    query = (
        select(requests.c.endpoint_id, requests.c.status, jobs.c.name, gives_way)
        .select_from(requests.outerjoin(jobs, jobs.c.id == requests.c.job_id))
        .where(
            requests.c.endpoint_id == any_(literal(list(endpoint_ids), ARRAY(UUID_))),
            requests.c.is_latest,
        )
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
    """Return the lane of an endpoint by what became of its latest request."""
    return Lane.FAILING if activity_ and activity_.status in FAILED else Lane.MAIN
