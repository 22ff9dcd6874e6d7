"""A try of a step begins: the request as it was found, read and noted in one statement."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import (
    text,
)

from certrail.errors import NotFound
from certrail.store.database import statement
from certrail.store.requests import Request, read
from certrail.tracker import StepStatus


@dataclass(frozen=True, slots=True)
class StepAsFound:
    """A request when one of its steps was about to be tried.

    Attributes:
        status, detail: of the step, as they were.
        begun: whether the try was noted; not for a step that is finished, nor
            for a request that is to stop or that another run holds.
    """

    request: Request
    status: StepStatus
    detail: str
    begun: bool


def begin_step(request_id: UUID, number: int, owner: str, task_run_id: UUID | None) -> StepAsFound:
    """Note that a try of the step begins, if *owner* holds the request.

    Raises:
        NotFound: there is no such request.
    """
    values = {
        "request_id": request_id,
        "number": number,
        "owner": owner,
        "task_run_id": task_run_id,
    }
    # Nothing is done before an intent is written, which makes this last too.
    with statement(durable=False) as connection:
        row = connection.execute(_BEGIN_STEP, values).first()
    if row is None:
        raise NotFound(f"there is no request {request_id}")
    return StepAsFound(
        read(row), StepStatus(row.step_status), row.step_detail or "", begun=row.step_begun
    )


# One round trip instead of three, for each of the steps. What is selected is as it was before.
_BEGIN_STEP = text(
    """
    with begun as (
      update steps s set status = 'running', attempts = attempts + 1,
        started_at = coalesce(s.started_at, now()), ended_at = null, task_run_id = :task_run_id
      from requests r
      where s.request_id = :request_id and s.number = :number and r.id = s.request_id
        and s.status not in ('completed', 'skipped')
        and not r.cancel_requested and r.lease_owner = :owner
      returning r.run_count
    ), noted as (
      insert into step_attempts (request_id, number, run, status, started_at)
      select :request_id, :number, run_count, 'running', now() from begun
    )
    select r.*, e.location, s.status as step_status, s.detail as step_detail,
      exists (select 1 from begun) as step_begun
    from requests r join endpoints e on e.id = r.endpoint_id
    join steps s on s.request_id = r.id and s.number = :number
    where r.id = :request_id
    """
)
