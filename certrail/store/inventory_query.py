"""The inventory's query: one relation with everything that a list shows, filters and sorts by."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Float,
    Integer,
    Subquery,
    Text,
    and_,
    case,
    cast,
    extract,
    false,
    func,
    literal,
    or_,
    select,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB, JSONPATH, array

from certrail.errors import InvalidRequest
from certrail.store.filters import Clause, Kind, Operator
from certrail.store.schema import certificates, connectors, endpoints, jobs, profiles, requests
from certrail.tracker import ACTIVE, AUTOMATIC_REASONS, FAILED, RESULT_SHOWN_FOR, Status

FIELDS: Mapping[str, Kind] = {
    "location": Kind.TEXT,
    "names": Kind.LIST,
    "common_name": Kind.TEXT,
    "profile": Kind.TEXT,
    "workflow": Kind.TEXT,
    "target": Kind.TEXT,
    "server": Kind.TEXT,
    "automation_status": Kind.TEXT,
    "job_name": Kind.TEXT,
    "request_id": Kind.TEXT,
    "not_after": Kind.TIME,
    "days_left": Kind.NUMBER,
    "issuer": Kind.TEXT,
    "fingerprint": Kind.TEXT,
    "serial": Kind.TEXT,
    "key": Kind.TEXT,
    "tags": Kind.LIST,
    "last_success_at": Kind.TIME,
    "next_renewal_at": Kind.TIME,
    "security_findings": Kind.LIST,
}
"""What can be filtered and, but for a few, sorted by."""

UNSORTED = ("security_findings", "flow_run_url")
"""Columns without an order."""

ALIASES: Mapping[str, str] = {
    "status": "automation_status",
    "job": "job_name",
    "name": "names",
    "tag": "tags",
    "cn": "common_name",
    "expires": "not_after",
    "request": "request_id",
    "findings": "security_findings",
    "finding": "security_findings",
}


def status_column(
    *,
    configured: ColumnElement[bool],
    last_request: ColumnElement[Any],
    ended_at: ColumnElement[Any],
    automatic: ColumnElement[bool],
    auto_renew: ColumnElement[bool],
    next_renewal_at: ColumnElement[Any],
    at_risk: ColumnElement[bool],
) -> ColumnElement[str]:
    """Return :func:`certrail.tracker.endpoint_status` as an SQL expression."""
    return case(
        (
            and_(last_request == Status.AUTOMATION_SCHEDULED, automatic),
            literal(Status.AUTO_RENEW_SCHEDULED.value),
        ),
        (
            or_(
                last_request.in_((*ACTIVE, *FAILED)),
                and_(
                    last_request.is_not(None),
                    or_(ended_at.is_(None), func.now() - ended_at < RESULT_SHOWN_FOR),
                ),
            ),
            last_request,
        ),
        (~configured, literal(Status.NOT_CONFIGURED.value)),
        (at_risk, literal(Status.AUTOMATION_AT_RISK.value)),
        (
            and_(auto_renew, next_renewal_at.is_not(None)),
            literal(Status.AUTO_RENEW_SCHEDULED.value),
        ),
        else_=literal(Status.READY.value),
    )


def rows() -> Subquery:
    """The inventory as one relation; PostgreSQL computes only what is asked of it."""
    latest = (
        select(
            requests.c.id,
            requests.c.status,
            requests.c.reason_code,
            requests.c.ended_at,
            requests.c.job_id,
            requests.c.flow_run_id,
        )
        .where(requests.c.endpoint_id == endpoints.c.id)
        .order_by(requests.c.created_at.desc())
        .limit(1)
        .lateral("latest")
    )
    ours = certificates.alias("ours")
    seen = certificates.alias("seen")
    ca = connectors.alias("ca")
    target = connectors.alias("target")
    observed: ColumnElement[Any] = endpoints.c.observed
    served = func.coalesce(
        observed["fingerprint"].astext,
        observed["certificate"]["fingerprint"].astext,
        observed["addresses"][0]["fingerprint"].astext,
    )
    # What was seen counts for more than what was installed, unless it is older.
    shows_seen = and_(
        seen.c.id.is_not(None),
        or_(
            ours.c.id.is_(None),
            endpoints.c.last_success_at.is_(None),
            endpoints.c.observed_at >= endpoints.c.last_success_at,
        ),
    )

    def shown(column: str) -> ColumnElement[Any]:
        return case((shows_seen, seen.c[column]), else_=ours.c[column])

    not_after = shown("not_after")
    auto = func.coalesce(
        endpoints.c.auto_renew,
        profiles.c.settings["renew"]["auto"].as_boolean(),
        literal(True),
    )
    auto_renew = and_(profiles.c.id.is_not(None), auto)
    at_risk = and_(
        auto_renew,
        or_(
            func.coalesce(not_after < func.now(), false()),
            # Somebody called its renewal off: nothing happens until it ends.
            func.coalesce(endpoints.c.renewal["code"].astext == "held", false()),
            func.coalesce(
                and_(
                    endpoints.c.next_renewal_at < func.now() - RESULT_SHOWN_FOR,
                    or_(
                        endpoints.c.last_success_at.is_(None),
                        endpoints.c.next_renewal_at > endpoints.c.last_success_at,
                    ),
                ),
                false(),
            ),
            _broken(ca),
            _broken(target),
        ),
    )
    status = status_column(
        configured=and_(endpoints.c.profile_id.is_not(None), endpoints.c.target.is_not(None)),
        last_request=latest.c.status,
        ended_at=latest.c.ended_at,
        automatic=or_(*(latest.c.reason_code.startswith(begin) for begin in AUTOMATIC_REASONS)),
        auto_renew=auto_renew,
        next_renewal_at=endpoints.c.next_renewal_at,
        at_risk=at_risk,
    )
    names: ColumnElement[Any] = case(
        (func.cardinality(endpoints.c.names) > 0, endpoints.c.names),
        else_=func.coalesce(shown("names"), cast(array([]), ARRAY(Text))),
    )
    days = func.floor(extract("epoch", not_after - func.now()) / 86400)
    return (
        select(
            endpoints.c.id,
            endpoints.c.location,
            names.label("names"),
            func.coalesce(shown("common_name"), endpoints.c.names[1]).label("common_name"),
            profiles.c.name.label("profile"),
            profiles.c.workflow,
            endpoints.c.target,
            endpoints.c.server["kind"].astext.label("server"),
            status.label("automation_status"),
            jobs.c.name.label("job_name"),
            latest.c.id.label("request_id"),
            not_after.label("not_after"),
            cast(days, Integer).label("days_left"),
            shown("issuer").label("issuer"),
            shown("fingerprint").label("fingerprint"),
            shown("serial").label("serial"),
            shown("key_kind").label("key"),
            endpoints.c.tags,
            endpoints.c.last_success_at,
            endpoints.c.next_renewal_at,
            observed.label("observed"),
            latest.c.flow_run_id,
        )
        .select_from(
            endpoints.outerjoin(profiles, endpoints.c.profile_id == profiles.c.id)
            .outerjoin(latest, literal(True))
            .outerjoin(jobs, jobs.c.id == latest.c.job_id)
            .outerjoin(ours, ours.c.id == endpoints.c.certificate_id)
            .outerjoin(seen, seen.c.fingerprint == served)
            .outerjoin(ca, ca.c.name == profiles.c.ca)
            .outerjoin(target, target.c.name == endpoints.c.target)
        )
        .subquery("inventory")
    )


def _broken(connector: Any) -> ColumnElement[bool]:
    # A check that failed before the last success says nothing any more.
    return func.coalesce(
        and_(
            ~connector.c.check_ok,
            or_(
                endpoints.c.last_success_at.is_(None),
                connector.c.checked_at > endpoints.c.last_success_at,
            ),
        ),
        false(),
    )


def condition(relation: Subquery, clause: Clause) -> ColumnElement[bool]:
    if clause.field == "security_findings":
        return _findings_condition(relation, clause)
    column: ColumnElement[Any] = relation.c[clause.field]
    kind = FIELDS[clause.field]
    if clause.field == "request_id":
        column = cast(column, Text)
    if not clause.values:
        empty = func.cardinality(column) == 0 if kind is Kind.LIST else column.is_(None)
        return empty if clause.operator is Operator.EQUAL else ~empty
    if kind is Kind.NUMBER:
        column = cast(column, Float)
    negated = clause.operator in (Operator.NOT_EQUAL, Operator.CONTAINS_NOT)
    tests = [_test(column, kind, clause, value) for value in clause.values]
    found = func.coalesce(or_(*tests), false())
    return ~found if negated else found


def _test(column: ColumnElement[Any], kind: Kind, clause: Clause, value: Any) -> Any:
    match clause.operator:
        case Operator.LESS:
            return column < value
        case Operator.AT_MOST:
            return column <= value
        case Operator.GREATER:
            return column > value
        case Operator.AT_LEAST:
            return column >= value
        case Operator.CONTAINS | Operator.CONTAINS_NOT:
            text = func.array_to_string(column, " ") if kind is Kind.LIST else column
            return text.icontains(str(value), autoescape=True)
    if kind is Kind.LIST:
        return column.contains([str(value)])
    if kind is Kind.TEXT:
        return _equals(column, clause.field, str(value))
    return column == value


def _equals(column: ColumnElement[Any], name: str, value: str) -> Any:
    if name in ("location", "automation_status"):
        return column == value.lower().replace(" ", "-")
    if name == "fingerprint":
        return column == value.lower().replace(":", "")
    return func.lower(column) == value.lower()


def _findings_condition(relation: Subquery, clause: Clause) -> ColumnElement[bool]:
    codes = func.coalesce(
        func.jsonb_path_query_array(
            relation.c.observed, cast(literal("$.**.code"), JSONPATH), type_=JSONB
        ),
        cast(literal("[]"), JSONB),
    )
    negated = clause.operator in (Operator.NOT_EQUAL, Operator.CONTAINS_NOT)
    if not clause.values:
        empty = func.jsonb_array_length(codes) == 0
        return ~empty if negated else empty
    if clause.operator in (Operator.EQUAL, Operator.NOT_EQUAL):
        wanted = cast(array([str(value) for value in clause.values]), ARRAY(Text))
        found: ColumnElement[bool] = cast(codes, JSONB).has_any(wanted)
    else:
        found = or_(*(cast(codes, Text).icontains(str(v), autoescape=True) for v in clause.values))
    return ~found if negated else found


def order(relation: Subquery, sort: str) -> list[Any]:
    name = sort.removeprefix("-")
    name = ALIASES.get(name, name)
    if name not in FIELDS or name in UNSORTED:
        known = ", ".join(n for n in FIELDS if n not in UNSORTED)
        raise InvalidRequest(
            f"the inventory cannot be sorted by {name!r}", remedy=f"Sort by one of: {known}"
        )
    column = relation.c[name]
    first = column.desc().nulls_last() if sort.startswith("-") else column.asc().nulls_last()
    return [first] if name == "location" else [first, relation.c.location]
