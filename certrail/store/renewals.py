"""What the renewal sweep reads and writes: facts, decisions, and scheduled renewals.

Each step works on a bounded number of rows and can be repeated at any time.
The present is handed in, so that a year can be gone through in a minute.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import (
    Connection,
    Row,
    Text,
    and_,
    any_,
    bindparam,
    case,
    cast,
    exists,
    func,
    literal,
    literal_column,
    or_,
    select,
    update,
)
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.dialects.postgresql import UUID as UUID_
from sqlalchemy.exc import IntegrityError

from certrail.configuration import Hold, Plan
from certrail.errors import InvalidRequest
from certrail.model import Action
from certrail.renewal.budget import hour_of
from certrail.renewal.due import Code, Decision, Facts, Held, Past, Suggestion, Terms
from certrail.store import audit, inventory, plans, request_runs, requests
from certrail.store.database import transaction
from certrail.store.plans import Prepared
from certrail.store.request_runs import ROLLED_BACK
from certrail.store.requests import Reason, Request
from certrail.store.schema import certificates, endpoints, profiles, renewal_info
from certrail.store.schema import requests as table
from certrail.tracker import ACTIVE, AUTOMATIC_REASONS, FAILED, SUCCESSFUL, Status

ACTOR = "renewal policy"
HELD_BECAUSE = ("operator", "denied", ROLLED_BACK)
"""What ended a request after which the endpoint does not renew by itself."""

_AGAIN = timedelta(days=1)
# Decisions follow what changes; this is for what nobody thought of.
# Whatever was missed is made good the same day.
_LOOK_AGAIN = timedelta(hours=12)
_RANK = case(
    {"critical": 0, "high": 1, "normal": 2, "low": 3}, value=endpoints.c.criticality, else_=2
)
_AUTOMATIC = or_(*(table.c.reason_code.startswith(begin) for begin in AUTOMATIC_REASONS))


# PostgreSQL's name for the transaction that wrote a row last (its manual, "System Columns").
_VERSION = cast(literal_column("endpoints.xmin"), Text)
_KEEP = (
    update(endpoints)
    .where(
        endpoints.c.id == bindparam("endpoint_id"),
        func.coalesce(bindparam("version", type_=Text), _VERSION) == _VERSION,
    )
    .values(
        next_renewal_at=bindparam("at"),
        renewal=bindparam("told"),
        renewal_decided_at=bindparam("decided"),
    )
)


@dataclass(frozen=True, slots=True)
class Known:
    """One endpoint as the policy sees it.

    Attributes:
        prepared: how a request for it would be made.
        certificate_id: the certificate it has from us.
    """

    endpoint_id: UUID
    location: str
    prepared: Prepared
    certificate_id: UUID | None
    facts: Facts


@dataclass(frozen=True, slots=True)
class Candidate:
    """An endpoint whose renewal is to be scheduled, or a renewal that is scheduled.

    Attributes:
        at: when the policy wants it to begin.
        ends: when its certificate ends.
        request_id: of the scheduled renewal; of the failed one that goes on; None for a new one.
        scheduled_at: when the scheduled one begins as things stand, None if none is.
    """

    endpoint_id: UUID
    ca: str
    criticality: str
    at: datetime
    ends: datetime
    reason: Reason
    deadline: datetime | None
    request_id: UUID | None = None
    scheduled_at: datetime | None = None


def undecided(now: datetime, limit: int) -> dict[UUID, str]:
    """Return endpoints of which something changed since their renewal was decided last.

    Each with the version of its row, for :func:`keep`.
    """
    decided = endpoints.c.renewal_decided_at
    revoked = select(certificates.c.id).where(
        certificates.c.revoked_at.is_not(None), certificates.c.revoked_at > now - _AGAIN
    )
    query = (
        select(endpoints.c.id, _VERSION)
        .select_from(endpoints.join(profiles, endpoints.c.profile_id == profiles.c.id))
        .where(
            or_(
                decided.is_(None),
                decided < now - _LOOK_AGAIN,
                endpoints.c.updated_at > decided,
                endpoints.c.observed_at > decided,
                # A request tests the endpoint before it ends: decided in between, the
                # decision knew nothing of the certificate that it brought.
                endpoints.c.last_success_at > decided,
                profiles.c.updated_at > decided,
                and_(
                    endpoints.c.certificate_id.in_(revoked),
                    func.coalesce(endpoints.c.renewal["code"].astext, "") != Code.REVOKED.value,
                ),
            )
        )
        .order_by(decided.asc().nulls_first(), _RANK)
        .limit(limit)
    )
    with transaction() as connection:
        return {row.id: version for row in connection.execute(query) for version in row[1:]}


def look(ids: Sequence[UUID]) -> dict[UUID, Known | InvalidRequest]:
    """Return what the policy has to know of endpoints, or why they cannot be renewed."""
    prepared = plans.for_endpoints(ids)
    found: dict[UUID, Known | InvalidRequest] = {}
    with transaction() as connection:
        rows = connection.execute(_facts(ids)).all()
    for row in rows:
        ready = prepared.get(row.endpoint_id)
        if isinstance(ready, InvalidRequest):
            found[row.endpoint_id] = ready
        elif ready is not None:
            found[row.endpoint_id] = Known(
                row.endpoint_id, row.location, ready, row.id, _read_facts(row, ready)
            )
    return found


def keep(
    decisions: Iterable[tuple[UUID, Decision]], now: datetime, versions: Mapping[UUID, str]
) -> None:
    """Store decisions: the moment, the reason, and that they were made *now*.

    One whose endpoint changed since its version was read is left out: it was
    made from what is no longer so, and is made anew in the next turn.
    """
    values = [
        {
            "endpoint_id": one,
            "at": decision.at,
            "told": _to_json(decision),
            "decided": now,
            "version": versions.get(one),
        }
        for one, decision in decisions
    ]
    if values:
        with transaction() as connection:
            connection.execute(_KEEP, values)


def due(now: datetime, horizon: timedelta, limit: int) -> list[Candidate]:
    """Return endpoints whose renewal is near and not scheduled yet, the critical ones first.

    A renewal that failed goes on with the same request, once its pause is over.
    """
    failed = (
        select(table.c.id, table.c.status, table.c.previous_certificate_id, table.c.reason_code)
        .where(table.c.endpoint_id == endpoints.c.id)
        .order_by(table.c.created_at.desc())
        .limit(1)
        .lateral("failed")
    )
    goes_on = and_(
        failed.c.status.in_(FAILED),
        or_(*(failed.c.reason_code.startswith(begin) for begin in AUTOMATIC_REASONS)),
        failed.c.previous_certificate_id.is_not_distinct_from(endpoints.c.certificate_id),
    )
    query = (
        select(
            endpoints.c.id,
            profiles.c.ca,
            endpoints.c.criticality,
            endpoints.c.next_renewal_at,
            endpoints.c.renewal,
            certificates.c.not_after,
            case((goes_on, failed.c.id)).label("request_id"),
        )
        .select_from(
            endpoints.join(profiles, endpoints.c.profile_id == profiles.c.id)
            .outerjoin(certificates, endpoints.c.certificate_id == certificates.c.id)
            .outerjoin(failed, literal(True))
        )
        .where(
            endpoints.c.next_renewal_at <= now + horizon,
            endpoints.c.renewal_decided_at.is_not(None),
            ~exists().where(table.c.endpoint_id == endpoints.c.id, table.c.status.in_(ACTIVE)),
            # What failed stays shown as failed until it is tried again.
            or_(endpoints.c.next_renewal_at <= now, func.coalesce(~goes_on, True)),
        )
        .order_by(_RANK, endpoints.c.next_renewal_at)
        .limit(limit)
    )
    with transaction() as connection:
        return [_candidate(row, row.request_id, None) for row in connection.execute(query)]


def movable() -> list[Candidate]:
    """Return the scheduled renewals that have not begun and that no operator moved."""
    query = (
        select(
            endpoints.c.id,
            profiles.c.ca,
            endpoints.c.criticality,
            endpoints.c.next_renewal_at,
            endpoints.c.renewal,
            certificates.c.not_after,
            table.c.id.label("request_id"),
            table.c.scheduled_at,
        )
        .select_from(
            table.join(endpoints, table.c.endpoint_id == endpoints.c.id)
            .join(profiles, endpoints.c.profile_id == profiles.c.id)
            .outerjoin(certificates, endpoints.c.certificate_id == certificates.c.id)
        )
        .where(
            table.c.status == Status.AUTOMATION_SCHEDULED,
            _AUTOMATIC,
            ~table.c.is_pinned,
            table.c.waits_for.is_(None),
            endpoints.c.next_renewal_at.is_not(None),
        )
    )
    with transaction() as connection:
        return [
            _candidate(row, row.request_id, row.scheduled_at) for row in connection.execute(query)
        ]


def taken(now: datetime) -> dict[str, Counter[int]]:
    """Return for each CA how many places of each hour are taken by what may not be moved.

    That is what began, and what an operator put there.
    """
    begins = func.coalesce(table.c.started_at, table.c.scheduled_at)
    query = (
        select(profiles.c.ca, begins.label("at"))
        .select_from(
            table.join(endpoints, table.c.endpoint_id == endpoints.c.id).join(
                profiles, endpoints.c.profile_id == profiles.c.id
            )
        )
        .where(
            _AUTOMATIC,
            or_(
                and_(table.c.started_at.is_not(None), table.c.started_at > now - _AGAIN / 12),
                and_(table.c.status == Status.AUTOMATION_SCHEDULED, table.c.is_pinned),
            ),
        )
    )
    found: dict[str, Counter[int]] = {}
    with transaction() as connection:
        for row in connection.execute(query):
            found.setdefault(row.ca, Counter())[hour_of(row.at)] += 1
    return found


def budgets() -> dict[str, int]:
    """Return how many renewals may begin at each CA in an hour."""
    with transaction() as connection:
        stored = connection.execute(select(profiles.c.ca, profiles.c.settings)).all()
    found: dict[str, int] = {}
    for row in stored:
        most = int((row.settings.get("renew") or {}).get("max_per_hour") or 300)
        found[row.ca] = min(most, found.get(row.ca, most))
    return found


def schedule(
    wanted: Sequence[tuple[Candidate, datetime]], now: datetime
) -> tuple[list[UUID], list[tuple[Candidate, InvalidRequest]]]:
    """Make the requests of renewals, or open again those that failed.

    Whoever was faster wins: an endpoint that has an active request by now is left out.

    Returns the requests, and what cannot be renewed with the reason.
    """
    known = look([candidate.endpoint_id for candidate, _ in wanted])
    made: list[UUID] = []
    refused: list[tuple[Candidate, InvalidRequest]] = []
    for candidate, at in wanted:
        ready = known.get(candidate.endpoint_id)
        if isinstance(ready, InvalidRequest):
            refused.append((candidate, ready))
        elif ready is not None:
            try:
                with transaction() as connection:
                    made.append(_one(connection, candidate, ready, at, now))
            except IntegrityError:
                continue
    return made, refused


def move(moves: Sequence[tuple[UUID, datetime]]) -> list[UUID]:
    """Put scheduled renewals to other moments; what has begun meanwhile stays. Returns the moved.

    Prefect is told afterwards: until then ``told_at`` differs.
    """
    moved: list[UUID] = []
    with transaction() as connection:
        for request_id, at in moves:
            row = connection.execute(
                update(table)
                .where(
                    table.c.id == request_id,
                    table.c.status == Status.AUTOMATION_SCHEDULED,
                    table.c.waits_for.is_(None),
                    ~table.c.is_pinned,
                )
                .values(scheduled_at=at)
                .returning(table.c.id)
            ).first()
            if row is not None:
                moved.append(row.id)
    return moved


def refresh(known: Iterable[tuple[Known, Decision]]) -> list[UUID]:
    """Let renewals that are scheduled follow what was decided anew: plan and reason, or no renewal.

    Returns those that were called off.
    """
    by_endpoint = {one.endpoint_id: (one, decision) for one, decision in known}
    ended: list[UUID] = []
    if not by_endpoint:
        return ended
    with transaction() as connection:
        scheduled = connection.execute(
            select(table.c.id, table.c.endpoint_id, table.c.plan, table.c.reason_code)
            .where(
                table.c.endpoint_id == any_(literal(list(by_endpoint), ARRAY(UUID_))),
                table.c.status.in_((Status.AUTOMATION_SCHEDULED, Status.APPROVAL_PENDING)),
                table.c.run_count == 0,
                _AUTOMATIC,
            )
            .with_for_update()
        ).all()
        for row in scheduled:
            one, decision = by_endpoint[row.endpoint_id]
            if decision.code.renews:
                _follow(connection, row, one, decision)
            else:
                told = {"why": decision.message}
                audit.note(connection, ACTOR, "request.called-off", one.location, told)
                ended.append(row.id)
    for request_id in ended:
        request_runs.finish(request_id, "", Status.CANCELLED, because="called-off")
    return ended


def _follow(connection: Connection, row: Row[Any], one: Known, decision: Decision) -> None:
    plan = planned(one.prepared, decision.deadline).model_dump(mode="json")
    if plan == row.plan and decision.code.value == row.reason_code:
        return
    connection.execute(
        update(table)
        .where(table.c.id == row.id)
        .values(plan=plan, reason_code=decision.code.value, reason_message=decision.message)
    )


def untold(limit: int) -> list[Request]:
    """Return scheduled requests that Prefect knows at another time, and renewals it does not know.

    A request that a person made is handed over by whoever made it, else by
    the reconciling flow.
    """
    query = (
        requests.selected()
        .where(
            or_(
                and_(
                    _AUTOMATIC,
                    table.c.flow_run_id.is_(None),
                    table.c.status.in_((Status.AUTOMATION_SCHEDULED, Status.APPROVAL_PENDING)),
                ),
                and_(
                    table.c.status == Status.AUTOMATION_SCHEDULED,
                    table.c.flow_run_id.is_not(None),
                    table.c.lease_owner.is_(None),
                    table.c.told_at.is_distinct_from(table.c.scheduled_at),
                ),
            ),
        )
        .order_by(table.c.scheduled_at)
        .limit(limit)
    )
    with transaction() as connection:
        return [requests.read(row) for row in connection.execute(query)]


def hold(location: str, wanted: bool | None, actor: str) -> None:
    """Switch automatic renewal on, off, or to what the profile says (None).

    Switched on, a renewal that was called off comes back.

    Raises:
        NotFound: there is no such endpoint.
    """
    with transaction() as connection:
        row = connection.execute(
            update(endpoints)
            .where(endpoints.c.location == location.lower())
            .values(auto_renew=wanted, updated_at=func.now(), renewal_decided_at=None)
            .returning(endpoints.c.id, endpoints.c.location)
        ).first()
        if row is None:
            raise inventory.unknown(location, connection)
        if wanted is not False:
            connection.execute(
                update(table)
                .where(table.c.endpoint_id == row.id, table.c.ended_because.in_(HELD_BECAUSE))
                .values(ended_because="released")
            )
        word = {True: "on", False: "off", None: "default"}[wanted]
        audit.note(connection, actor, "endpoint.auto-renew", row.location, {"to": word})


def planned(prepared: Prepared, deadline: datetime | None) -> Plan:
    """Return the plan of an automatic renewal: it keeps to the maintenance windows."""
    calendar, renew = prepared.profile.calendar, prepared.profile.renew
    if calendar.always_open:
        return prepared.plan
    wait = Hold(calendar=calendar, deadline=deadline if renew.deadline_overrides_window else None)
    return prepared.plan.model_copy(update={"hold": wait})


def _one(
    connection: Connection, candidate: Candidate, known: Known, at: datetime, now: datetime
) -> UUID:
    plan = planned(known.prepared, candidate.deadline)
    if candidate.request_id is not None:
        request_runs.open_again(connection, candidate.request_id, plan, ACTOR, at)
        return candidate.request_id
    return requests.add(
        connection,
        candidate.endpoint_id,
        action=known.prepared.default_action,
        plan=plan,
        reason=candidate.reason,
        actor=ACTOR,
        scheduled_at=max(at, now),
        previous_certificate_id=known.prepared.certificate_id,
    )


def _facts(ids: Sequence[UUID]) -> Any:
    mine = table.c.endpoint_id == endpoints.c.id
    ordered = (
        select(table.c.plan, table.c.reason_code, table.c.ended_at)
        .where(
            mine,
            table.c.certificate_id == endpoints.c.certificate_id,
            table.c.status.in_(SUCCESSFUL),
            table.c.action.not_in((Action.REDEPLOY, Action.ROLLBACK)),
        )
        .order_by(table.c.created_at.desc())
        .limit(1)
        .lateral("ordered")
    )
    newest = (
        select(
            table.c.status,
            table.c.reason_code,
            table.c.ended_at,
            table.c.run_count,
            table.c.ended_because,
        )
        .where(
            mine,
            _AUTOMATIC,
            table.c.previous_certificate_id.is_not_distinct_from(endpoints.c.certificate_id),
        )
        .order_by(table.c.created_at.desc())
        .limit(1)
        .lateral("newest")
    )
    held = exists().where(
        mine,
        _AUTOMATIC,
        table.c.status == Status.CANCELLED,
        table.c.ended_because.in_(HELD_BECAUSE),
        table.c.previous_certificate_id.is_not_distinct_from(endpoints.c.certificate_id),
    )
    # What was taken back on purpose must not come again with the next sweep.
    went_back = exists().where(
        mine,
        table.c.is_latest,
        table.c.action == Action.ROLLBACK,
        table.c.ended_because == ROLLED_BACK,
    )
    unanswered = (
        select(func.count())
        .where(
            mine,
            table.c.ended_because == "approval-expired",
            table.c.previous_certificate_id.is_not_distinct_from(endpoints.c.certificate_id),
        )
        .correlate(endpoints)
        .scalar_subquery()
    )
    return (
        select(
            endpoints.c.id.label("endpoint_id"),
            endpoints.c.location,
            endpoints.c.auto_renew,
            endpoints.c.observed,
            endpoints.c.observed_at,
            endpoints.c.last_success_at,
            certificates.c.id,
            certificates.c.fingerprint,
            certificates.c.names.label("certificate_names"),
            certificates.c.key_kind,
            certificates.c.issuer,
            certificates.c.ca,
            certificates.c.not_before,
            certificates.c.not_after,
            certificates.c.revoked_at,
            renewal_info.c.window_start,
            renewal_info.c.window_end,
            renewal_info.c.explanation_url,
            ordered.c.plan.label("ordered_plan"),
            ordered.c.reason_code.label("ordered_reason"),
            ordered.c.ended_at.label("ordered_at"),
            newest.c.status.label("newest_status"),
            newest.c.reason_code.label("newest_reason"),
            newest.c.ended_at.label("newest_ended"),
            newest.c.run_count.label("newest_runs"),
            newest.c.ended_because.label("newest_because"),
            held.label("held"),
            went_back.label("went_back"),
            unanswered.label("unanswered"),
        )
        .select_from(
            endpoints.outerjoin(certificates, endpoints.c.certificate_id == certificates.c.id)
            .outerjoin(renewal_info, renewal_info.c.certificate_id == certificates.c.id)
            .outerjoin(ordered, literal(True))
            .outerjoin(newest, literal(True))
        )
        .where(endpoints.c.id == any_(literal(list(ids), ARRAY(UUID_))))
    )


def _read_facts(row: Row[Any], ready: Prepared) -> Facts:
    plan = ready.plan
    auto = ready.profile.renew.auto if row.auto_renew is None else row.auto_renew
    held = None
    if row.id is not None:
        held = Held(
            fingerprint=row.fingerprint,
            names=frozenset(row.certificate_names),
            key_kind=row.key_kind,
            issuer=row.issuer,
            not_before=row.not_before,
            not_after=row.not_after,
            revoked_at=row.revoked_at,
        )
    return Facts(
        held=held,
        wanted=_terms(plan.model_dump(mode="json")),
        ordered=_terms(row.ordered_plan) if row.ordered_plan else None,
        suggestion=Suggestion(row.window_start, row.window_end, row.explanation_url)
        # Only the CA that issued it knows when to renew it.
        if row.window_start is not None and row.ca == plan.ca.name
        else None,
        is_gone=_is_gone(row),
        auto=auto,
        cancelled_by="a rollback" if row.went_back else "an operator" if row.held else "",
        past=_past(row),
    )


def _past(row: Row[Any]) -> Past | None:
    if row.newest_status in FAILED and row.newest_ended is not None:
        return Past(row.newest_reason, "failed", row.newest_ended, max(row.newest_runs, 1))
    if row.newest_because == "approval-expired" and row.newest_ended is not None:
        return Past(row.newest_reason, "unanswered", row.newest_ended, row.unanswered + 4)
    if row.ordered_reason and row.ordered_at is not None:
        return Past(row.ordered_reason, "succeeded", row.ordered_at)
    return None


def _is_gone(row: Row[Any]) -> bool:
    if not row.observed or row.last_success_at is None or row.observed_at is None:
        return False
    found = row.observed.get("findings") or ()
    return row.observed_at > row.last_success_at and any(
        isinstance(one, dict) and one.get("code") == "no-certificate" for one in found
    )


def _terms(plan: dict[str, Any]) -> Terms:
    return Terms(
        names=frozenset(plan["names"]),
        ca=plan["ca"]["name"],
        ca_profile=plan.get("ca_profile") or "",
        key_algorithm=plan.get("key_algorithm") or "",
    )


def _candidate(row: Row[Any], request_id: UUID | None, scheduled_at: datetime | None) -> Candidate:
    told = row.renewal or {}
    deadline = told.get("deadline")
    return Candidate(
        endpoint_id=row.id,
        ca=row.ca,
        criticality=row.criticality,
        at=row.next_renewal_at,
        ends=row.not_after or row.next_renewal_at,
        reason=Reason(told.get("code", Code.DUE.value), told.get("message", "")),
        deadline=datetime.fromisoformat(deadline) if deadline else None,
        request_id=request_id,
        scheduled_at=scheduled_at,
    )


def _to_json(decision: Decision) -> dict[str, Any]:
    return {
        "code": decision.code.value,
        "message": decision.message,
        "at": decision.at.isoformat() if decision.at else None,
        "deadline": decision.deadline.isoformat() if decision.deadline else None,
    }
