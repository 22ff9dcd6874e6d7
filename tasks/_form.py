"""Requests that a person asks for in Prefect's pages: the form, its checks, then the steps."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated, Any, Literal, TypeVar
from uuid import UUID

from prefect import State, get_client
from prefect.context import FlowRunContext
from prefect.settings import PREFECT_UI_URL
from prefect.states import Completed, Failed, Scheduled
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError, field_validator

from certrail.cli import _prefect, _starting
from certrail.errors import CertrailError, InvalidRequest, Unreachable
from certrail.log import plain
from certrail.model import Action, Workflow
from certrail.store import request_view, requests
from certrail.store.requests import Request
from certrail.tracker import Status
from tasks._run import StepTask
from tasks._threads import in_thread
from tasks._turn import run_in_turn
from tasks._waiting import leave_until

AUTOMATIC = "enroll or renew"
NOW, AT, WINDOW = "now", "at", "maintenance window"

Location = Annotated[
    str,
    Field(
        title="Endpoint location",
        description="The endpoint as the inventory names it: host:port, such as "
        "`www.example.org:443`, or connector/object, such as `lb1/www_ssl`. `certrail endpoint "
        "list` shows all.",
        min_length=3,
        max_length=300,
        pattern=r"^\s*\S+\s*$",
    ),
]
Chosen = Annotated[
    Literal["enroll or renew", "enroll", "renew", "reissue", "redeploy"],
    Field(
        title="Action",
        description="enroll: the first certificate. renew: the next one. reissue: a new one now, "
        "with a new key. redeploy: install the present one again, nothing is ordered.",
    ),
]
When = Annotated[
    Literal["now", "at", "maintenance window"],
    Field(
        title="When",
        description="at: at the time given below. maintenance window: when the profile's window "
        "is open next. What is wrong with the request is told at once in any case.",
    ),
]
At = Annotated[
    datetime | None,
    Field(
        title="Begin at",
        description="Only where When is at: a time in the future, in the time zone beside it.",
    ),
]
Why = Annotated[
    str,
    Field(
        title="Reason",
        description="Why, in a sentence. It is kept with the request and in the audit trail. "
        "Do not put secrets here.",
        max_length=500,
    ),
]
Who = Annotated[
    str,
    Field(
        title="Requested by",
        description="Your name, for the audit trail: Prefect's pages do not know who you are.",
        max_length=100,
    ),
]


class Asker(BaseModel):
    """Who asks in a form, and why; a message names a field by its title."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    reason: str
    requested_by: str

    @field_validator("*", mode="before")
    @classmethod
    def _trimmed(cls, value: Any) -> Any:
        return plain(value).strip() if isinstance(value, str) else value

    @property
    def actor(self) -> str:
        """Who asks, for the audit trail."""
        return f"{self.requested_by} (Prefect UI)" if self.requested_by else "Prefect UI"


class Asked(Asker):
    """What the form of a request says, checked."""

    location: str = Field(min_length=1)
    action: Action | None
    when: Literal["now", "at", "maintenance window"]
    at: AwareDatetime | None

    @field_validator("action", mode="before")
    @classmethod
    def _chosen(cls, value: Any) -> Any:
        return None if value == AUTOMATIC else value

    @field_validator("at", mode="before")
    @classmethod
    def _given(cls, value: Any) -> Any:
        return value or None

    def must_fit(self) -> None:
        """Check the two fields that say when against each other.

        Raises:
            InvalidRequest: a time is missing, or is given although none is wanted.
        """
        if self.when == AT and self.at is None:
            raise InvalidRequest(
                "When is `at`, but Begin at is empty", remedy="Give the time, or choose `now`."
            )
        if self.when != AT and self.at is not None:
            raise InvalidRequest(
                f"Begin at is {self.at.astimezone(UTC):%Y-%m-%d %H:%M}Z, but When is `{self.when}`",
                remedy="Choose `at` for that time, or leave Begin at empty.",
            )


F = TypeVar("F", bound=Asker)


async def run_form(
    workflow: Workflow, steps: Sequence[StepTask], fields: dict[str, Any]
) -> State[Any]:
    """Check what was asked, make the request, and run its steps in this flow run.

    A run that is begun again (a retry, another worker) goes on with the request it made.
    """
    context = FlowRunContext.get()
    assert context is not None
    assert context.flow_run is not None
    run_id = context.flow_run.id
    try:
        request = await in_thread(requests.of_run, run_id)
        if request is not None:
            return await run_in_turn(str(request.id), workflow, steps)
        request = await in_thread(_order, run_id, workflow, fields)
        if request.plan.executor:
            return await _handed_over(run_id, request)
    except CertrailError as exc:
        return await refused(run_id, str(fields.get("location", "")), exc)
    await show(run_id, request.flow_run_name, request)
    if request.status is Status.APPROVAL_PENDING:
        return await leave_until(request.id, _prefect.approval_state(request))
    if request.scheduled_at is not None:
        message = f"Begins at {request.scheduled_at.astimezone(UTC):%Y-%m-%d %H:%M:%S}Z, as asked."
        return Scheduled(scheduled_time=_prefect.moment(request.scheduled_at), message=message)
    return await run_in_turn(str(request.id), workflow, steps)


def _order(run_id: UUID, workflow: Workflow, fields: dict[str, Any]) -> Request:
    asked = read(Asked, fields)
    asked.must_fit()
    request = _starting.order(
        asked.location,
        actor=asked.actor,
        action=asked.action,
        at=asked.at,
        in_window=asked.when == WINDOW,
        why=asked.reason,
        workflow=workflow,
    )
    if not request.plan.executor:
        requests.bind_run(request.id, run_id)
    return requests.get(request.id)


async def _handed_over(run_id: UUID, request: Request) -> State[Any]:
    """Let the executor that reaches the target run the request: this run is in no queue of its."""
    other = await in_thread(_prefect.start_run, request)
    await in_thread(requests.bind_run, request.id, other)
    await show(run_id, f"start {request.location}", None)
    page = request_view.run_url(PREFECT_UI_URL.value() or "", other)
    return Completed(
        name="Handed over",
        message=f"{request.flow_run_name} runs on {request.plan.executor}: {page or other}",
    )


def read(form: type[F], fields: dict[str, Any]) -> F:
    """Return what a form says.

    Raises:
        InvalidRequest: a field cannot be used; says which.
    """
    try:
        return form.model_validate(fields)
    except ValidationError as exc:
        first = exc.errors(include_url=False, include_input=False, include_context=False)[0]
        title = str(first["loc"][0]).replace("_", " ").capitalize() if first["loc"] else "the form"
        raise InvalidRequest(
            f"{title}: {first['msg']}", remedy="Correct the field and run it again."
        ) from None


async def refused(run_id: UUID, which: str, error: CertrailError) -> State[Any]:
    """Return the end of a run whose form asks for *which*, and cannot have it."""
    if isinstance(error, Unreachable):
        # Nothing is wrong with the form: Retry in the page does it again.
        return Failed(message=f"Not ordered: {error}. {error.remedy}")
    await show(run_id, f"refused: {plain(which).strip()}"[:200], None)
    return Failed(name="Refused", message=f"{error}. {error.remedy} Nothing was ordered.")


async def show(run_id: UUID, name: str, request: Request | None) -> None:
    """Give the flow run the name and labels that every request's run has."""
    async with get_client() as client:
        await client.update_flow_run(run_id, name=name)
        if request is not None:
            await client.update_flow_run_labels(run_id, _prefect.labels(request))
