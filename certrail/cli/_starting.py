"""Starting, retrying and cancelling requests: the row first, then Prefect's flow run."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from certrail.cli import _prefect
from certrail.configuration.plan import Plan
from certrail.errors import CertrailError, InvalidRequest, Unreachable
from certrail.model import Action, Workflow
from certrail.rollback import refusal
from certrail.store import (
    approvals,
    audit,
    jobs,
    new_requests,
    orders,
    plans,
    request_ends,
    request_schedule,
    requests,
    rollbacks,
)
from certrail.store.requests import Reason, Request
from certrail.words import quoted


def start(
    location: str,
    *,
    action: Action | None = None,
    at: datetime | None = None,
    in_window: bool = False,
) -> Request:
    """Make a request for an endpoint and the flow run that carries it.

    Args:
        location: of the endpoint.
        action: enroll without a certificate of ours, else renew, unless told.
        at: begin then rather than now.
        in_window: begin when the profile's maintenance window is open.

    Raises:
        NotFound, InvalidRequest: the endpoint is unknown, or not configured well enough.
        Conflict: it has an active request.
        Unreachable: the request is stored, but its run could not be made; a repair that runs
            every minute makes it later.
    """
    actor = audit.local_actor()
    return _handed_over(order(location, actor=actor, action=action, at=at, in_window=in_window))


def _handed_over(request: Request) -> Request:
    try:
        run_id = _prefect.start_run(request)
    except CertrailError as exc:
        raise Unreachable(
            f"the request {request.id} is stored, but was not handed to Prefect: {exc}",
            remedy="It is handed over within a minute of Prefect's return; follow it with "
            f"`certrail request show {quoted(request.location)}`.",
        ) from exc
    requests.bind_run(request.id, run_id)
    return requests.get(request.id)


def order(
    location: str,
    *,
    actor: str,
    action: Action | None = None,
    at: datetime | None = None,
    in_window: bool = False,
    why: str = "",
    workflow: Workflow | None = None,
) -> Request:
    """Check all that can be checked beforehand and store the request; nothing runs yet.

    Whoever asks, on the command line or in Prefect's pages, asks through here.

    Args:
        location, action, at, in_window: see :func:`start`.
        actor: who asks, for the audit trail.
        why: their reason, for people.
        workflow: refuse an endpoint of another one.

    Raises:
        NotFound, InvalidRequest, Conflict: see :func:`start`.
    """
    prepared = plans.for_location(location)
    if workflow is not None and prepared.plan.workflow is not workflow:
        raise InvalidRequest(
            f"{prepared.plan.location} has the profile {prepared.profile.name}, whose workflow is "
            f"{prepared.plan.workflow}, not {workflow}",
            remedy=f"Use the form of {prepared.plan.workflow} requests, or give the endpoint "
            "another profile.",
        )
    if in_window:
        at = _window(prepared)
    elif at is not None and at <= datetime.now(UTC):
        raise InvalidRequest(
            f"{at:%Y-%m-%d %H:%M:%S}Z is in the past",
            remedy="Give a later time, or none to begin now.",
        )
    chosen = action or prepared.default_action
    return new_requests.create(
        prepared.endpoint_id,
        action=chosen,
        plan=prepared.plan_for(chosen),
        reason=Reason("requested", f"asked by {actor}" + (f": {why}" if why else "")),
        actor=actor,
        scheduled_at=at,
        certificate_id=prepared.certificate_for(chosen),
        previous_certificate_id=prepared.certificate_id,
    )


def roll_back(which: str, *, force: bool = False, actor: str = "", why: str = "") -> Request:
    """Make a request that brings back what an endpoint had before another one, and its run.

    Args:
        which: id of the request before which, or a location.
        force: back even to what clients refuse.
        actor: who asks; default: the account of this process.
        why: their reason, for people.

    Raises:
        NotFound: there is no such request.
        InvalidRequest: there is nothing to go back to, or nothing that clients would take.
        Conflict: the endpoint has an active request.
        Unreachable: see :func:`start`.
    """
    actor = actor or audit.local_actor()
    return _handed_over(order_rollback(which, actor=actor, force=force, why=why))


def order_rollback(which: str, *, actor: str, force: bool = False, why: str = "") -> Request:
    """Check whether there is a way back and store the request; nothing runs yet.

    Raises:
        NotFound, InvalidRequest, Conflict: see :func:`roll_back`.
    """
    way = rollbacks.way_back(which)
    prepared = plans.for_location(way.request.location)
    why_not = refusal(way.facts, datetime.now(UTC), force=force)
    if why_not is not None:
        raise InvalidRequest(
            f"request {way.request.id} of {way.request.location}: {why_not.message}",
            remedy=why_not.remedy,
        )
    assert way.before is not None
    assert way.present is not None
    changes: dict[str, Any] = {"names": way.before.names or prepared.plan.names}
    # What clients refuse is refused by every installation: only the target may bring it back.
    by_target = way.before.key_id is None or not way.before.usable(datetime.now(UTC))
    if by_target and way.staged is not None and not prepared.plan.also_on:
        changes["takes_back"] = way.staged.to_json()
    return new_requests.create(
        prepared.endpoint_id,
        action=Action.ROLLBACK,
        plan=prepared.plan.model_copy(update=changes),
        reason=Reason(
            "requested",
            f"asked by {actor}: from serial {way.present.serial} (request {way.request.id}) "
            f"back to {way.before.serial}" + (f": {why}" if why else ""),
        ),
        actor=actor,
        certificate_id=way.before.id,
        previous_certificate_id=way.present.id,
    )


def retry(text: str) -> Request:
    """Let a failed request go on from the failed step; nothing is ordered twice.

    Raises:
        NotFound: there is no such request.
        InvalidRequest: it is not over or was successful, or the endpoint is not configured.
        Conflict: its endpoint has another active request.
        Unreachable: it is active again, but Prefect could not be told.
    """
    request = reopen(requests.find(text, begun=True), audit.local_actor())
    try:
        run_id = _prefect.retry_run(request, f"retry asked by {audit.local_actor()}")
    except CertrailError as exc:
        raise Unreachable(
            f"the request {request.id} is open again, but Prefect was not told: {exc}",
            remedy="When Prefect answers again, press Retry on the flow run's page, or "
            f"`certrail request cancel {request.id}` and retry.",
        ) from exc
    if run_id != request.flow_run_id:
        requests.bind_run(request.id, run_id)
    return requests.get(request.id)


def reopen(found: Request, actor: str) -> Request:
    """Make a failed or cancelled request active again, as endpoint and profile are now.

    Raises:
        InvalidRequest, Conflict: see :func:`retry`.
    """
    plan = refreshed_plan(found, plans.for_location(found.location).plan_for(found.action))
    return request_ends.reopen(found.id, plan, actor)


def refreshed_plan(request: Request, present: Plan) -> Plan:
    """Return the plan of a retry: as configured now, but for what was ordered already.

    An order stands for its names, at its CA, and a CSR for its key; changing
    them would need another order.
    """
    if request.certificate_id is None and orders.live(request.id) is None:
        return present
    return present.as_ordered(request.plan)


def cancel(text: str) -> Request:
    """Cancel a request that has not begun; ask a running one to stop at its next safe point.

    Raises:
        NotFound: there is no such request.
        InvalidRequest: it is over already.
        Unreachable: it is noted, but Prefect could not be told.
    """
    found = requests.find(text)
    request = request_ends.ask_to_cancel(found.id, audit.local_actor())
    try:
        _prefect.cancel_run(request)
    except CertrailError as exc:
        raise Unreachable(
            f"the request {request.id} is {request.status.text.lower()} and will not go on, but "
            f"Prefect was not told: {exc}",
            remedy="Nothing more is to be done; Prefect's pages may show it as scheduled.",
        ) from exc
    return request


def approve(text: str, note: str) -> Request:
    """Let a request go on that waits for approval.

    Raises:
        NotFound, InvalidRequest: there is none, or it does not wait (any more).
        PermissionRefused: this account may not approve it.
        Unreachable: it is approved, but Prefect could not be told.
    """
    request = approvals.approve(requests.find(text).id, audit.local_actor(), note)
    if request.job_id is not None and not jobs.by_id(request.job_id).status.is_over:
        return request  # its job begins it, as one of its own runs
    try:
        run_id = _prefect.approve_run(request)
    except CertrailError as exc:
        raise Unreachable(
            f"the request {request.id} is approved, but Prefect was not told: {exc}",
            remedy="It goes on within two minutes of Prefect's return.",
        ) from exc
    if run_id != request.flow_run_id:
        requests.bind_run(request.id, run_id)
    request_schedule.told(request.id, request.scheduled_at)
    return requests.get(request.id)


def deny(text: str, note: str) -> Request:
    """Refuse a request that waits for approval.

    Raises:
        NotFound, InvalidRequest: there is none, or it does not wait (any more).
        PermissionRefused: this account may not decide about it.
    """
    request = approvals.deny(requests.find(text).id, audit.local_actor(), note)
    try:
        _prefect.cancel_run(request)
    except CertrailError as exc:
        raise Unreachable(
            f"the request {request.id} is refused, but Prefect was not told: {exc}",
            remedy="Nothing more is to be done; Prefect's pages may show it as waiting.",
        ) from exc
    return request


def _window(prepared: plans.Prepared) -> datetime | None:
    calendar = prepared.profile.calendar
    if calendar.always_open:
        raise InvalidRequest(
            f"the profile {prepared.profile.name} has no maintenance window",
            remedy="Give it a `maintenance_window`, or ask for a certain time.",
        )
    now = datetime.now(UTC)
    opens = calendar.next_opening(now)
    if opens is None:
        raise InvalidRequest(
            f"no maintenance window of the profile {prepared.profile.name} opens within a year",
            remedy="Correct its `maintenance_window` or `blackout`, or use --at.",
        )
    return opens if opens > now else None
