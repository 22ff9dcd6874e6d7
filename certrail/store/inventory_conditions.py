"""Filter clauses as SQL that an index can answer.

What people ask is turned round where that matters: a name of a profile or job
into its id, days into a time, a status into what makes an endpoint have it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, cast
from uuid import UUID

from sqlalchemy import (
    ColumnElement,
    CompoundSelect,
    Select,
    Subquery,
    Text,
    and_,
    any_,
    false,
    func,
    literal_column,
    not_,
    or_,
    select,
    union_all,
)
from sqlalchemy import cast as sql_cast
from sqlalchemy.dialects.postgresql import ARRAY, array

from certrail.risk import RiskCode
from certrail.store import risk_query
from certrail.store.filters import Clause, Kind, Operator, slug
from certrail.store.inventory_query import (
    FIELDS,
    KEY_REUSED,
    endpoint_rows,
    reused_keys,
    risk_name,
    rows,
)
from certrail.store.schema import HAS_FURTHER_PLACES, endpoints, jobs, profiles, requests
from certrail.tracker import ACTIVE, FAILED, RESULT_SHOWN_FOR, SUCCESSFUL, Status

_NEGATED = (Operator.NOT_EQUAL, Operator.CONTAINS_NOT)
_BRIEF = (*SUCCESSFUL, Status.CANCELLED)
DERIVED = (Status.AUTOMATION_AT_RISK, Status.READY, Status.AUTO_RENEW_SCHEDULED)
"""Statuses that many facts together make; no index finds them."""
_DAY = 86400
_OF_PROFILE: dict[str, ColumnElement[Any]] = {
    "profile": profiles.c.name,
    "workflow": profiles.c.workflow,
    "ca": profiles.c.ca,
    "dns": profiles.c.settings["validation"]["dns"].astext,
}


def is_derived(clauses: Sequence[Clause]) -> bool:
    """Return whether some clause is about what no index answers in the order of the list."""
    slugs = {status.value for status in DERIVED}
    return any(
        clause.field in ("risks", "step")
        or _is_sought(clause)
        or (
            clause.field == "automation_status"
            and (clause.operator is not Operator.EQUAL or slugs.intersection(_slugs(clause.values)))
        )
        for clause in clauses
    )


def condition(relation: Subquery, clause: Clause, *, few: bool = False) -> ColumnElement[bool]:
    """Return *clause* over *relation*, which is :func:`certrail.store.inventory_query.rows`.

    With *few* it is asked of few rows, one by one.
    """
    match clause.field:
        case "security_findings":
            return _findings(relation, clause)
        case "risks":
            return _risks(relation, clause, few=few)
        case "automation_status" if clause.values and clause.operator is Operator.EQUAL:
            return _status(relation, clause.values, few=few)
        case "days_left" if clause.values and (few or not _is_sought(clause)):
            return _negatable(clause, _days_of(relation, clause))
        case "profile" | "workflow" | "ca" | "job_name":
            return _parent(relation, clause)
        case "dns" if clause.values:
            return _parent(relation, clause)
        case "step" if clause.values and clause.operator not in _NEGATED and not few:
            # Only a request that is active or has failed is at a step, and an index has those.
            latest = select(requests.c.endpoint_id).where(requests.c.is_latest)
            at_one = latest.where(requests.c.status.in_((*ACTIVE, *FAILED)))
            return and_(_among(relation, at_one), condition(relation, clause, few=True))
    column: ColumnElement[Any] = relation.c[
        "not_after" if clause.field == "days_left" else clause.field
    ]
    kind = FIELDS[clause.field]
    if not clause.values:
        empty = func.cardinality(column) == 0 if kind is Kind.LIST else column.is_(None)
        return empty if clause.operator is Operator.EQUAL else ~empty
    if _is_sought(clause) and not few:
        return _sought(relation, clause)
    return _negatable(clause, [_test(relation, kind, clause, value) for value in clause.values])


def _is_sought(clause: Clause) -> bool:
    """Return whether few endpoints are meant, and an index has them in another order."""
    if clause.operator is Operator.CONTAINS:
        return clause.field in ("names", "location", "common_name")
    return clause.operator in (Operator.LESS, Operator.AT_MOST) and clause.field in (
        "not_after",
        "days_left",
        "next_renewal_at",
    )


def _sought(relation: Subquery, clause: Clause) -> ColumnElement[bool]:
    """Return *clause* asked before anything else.

    Otherwise the planner walks through all endpoints in the order of the list.
    """
    inner = endpoint_rows("sought")
    tests = (
        _days_of(inner, clause)
        if clause.field == "days_left"
        else [_test(inner, FIELDS[clause.field], clause, value) for value in clause.values]
    )
    found = select(inner.c.id).where(or_(*tests))
    return _among(relation, found)


def _among(relation: Subquery, query: Select[Any] | CompoundSelect[Any]) -> ColumnElement[bool]:
    found: ColumnElement[bool] = relation.c.id == any_(func.array(query.scalar_subquery()))
    return found


def _days_of(relation: Subquery, clause: Clause) -> list[Any]:
    return [_days(relation, clause, v) for v in clause.values if isinstance(v, float)]


def _negatable(clause: Clause, tests: Sequence[Any]) -> ColumnElement[bool]:
    found = or_(*tests)
    return ~func.coalesce(found, false()) if clause.operator in _NEGATED else found


def _test(relation: Subquery, kind: Kind, clause: Clause, value: Any) -> Any:
    column: ColumnElement[Any] = relation.c[clause.field]
    if clause.field == "target":
        return or_(_plain_test(column, clause, value), _also_on(relation, clause, str(value)))
    if clause.field == "request_id":
        return _request(column, clause, str(value))
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
            return _text(relation, clause.field).icontains(str(value), autoescape=True)
    if clause.field == "names" and clause.operator is Operator.EQUAL:
        # Few endpoints have a name; asked first, or the planner walks through all of them.
        own = select(endpoints.c.id).where(endpoints.c.shown_names.contains([str(value)]))
        return _among(relation, own)
    if kind is Kind.LIST:
        return column.contains([str(value)])
    if kind is Kind.TEXT:
        return _equals(column, clause.field, str(value))
    return column == value


def _plain_test(column: ColumnElement[Any], clause: Clause, value: Any) -> Any:
    if clause.operator in (Operator.CONTAINS, Operator.CONTAINS_NOT):
        return column.icontains(str(value), autoescape=True)
    return column == str(value).lower()


def _also_on(relation: Subquery, clause: Clause, value: str) -> ColumnElement[bool]:
    """Return whether it is a further place of the certificate; few endpoints have any."""
    names = func.jsonb_path_query_array(endpoints.c.also_on, literal_column("'$[*].target'"))
    if clause.operator in (Operator.CONTAINS, Operator.CONTAINS_NOT):
        test = sql_cast(names, Text).icontains(value, autoescape=True)
    else:
        test = names.op("@>")(func.jsonb_build_array(value.lower()))
    return _among(relation, select(endpoints.c.id).where(HAS_FURTHER_PLACES, test))


def _text(relation: Subquery, name: str) -> ColumnElement[Any]:
    if name == "names":
        return cast("ColumnElement[Any]", relation.c.shown_words)
    column: ColumnElement[Any] = relation.c[name]
    return func.array_to_string(column, " ") if FIELDS[name] is Kind.LIST else column


def _equals(column: ColumnElement[Any], name: str, value: str) -> Any:
    if name in ("location", "automation_status"):
        return column == value.lower().replace(" ", "-")
    if name == "fingerprint":
        return column == value.lower().replace(":", "")
    return func.lower(column) == value.lower()


def _request(column: ColumnElement[Any], clause: Clause, value: str) -> Any:
    if clause.operator in (Operator.CONTAINS, Operator.CONTAINS_NOT):
        return sql_cast(column, Text).icontains(value, autoescape=True)
    try:
        return column == UUID(value)
    except ValueError:
        return false()


def _days(relation: Subquery, clause: Clause, value: float) -> Any:
    # Whole days are shown, rounded down; the comparison is with the moment itself.
    end = relation.c.not_after

    def after(days: float) -> Any:
        return func.now() + func.make_interval(0, 0, 0, 0, 0, 0, days * _DAY)

    match clause.operator:
        case Operator.LESS:
            return end < after(math.ceil(value))
        case Operator.AT_MOST:
            return end < after(math.floor(value) + 1)
        case Operator.GREATER:
            return end >= after(math.floor(value) + 1)
        case Operator.AT_LEAST:
            return end >= after(math.ceil(value))
    if value != int(value):
        return false()
    return and_(end >= after(value), end < after(value + 1))


def _parent(relation: Subquery, clause: Clause) -> ColumnElement[bool]:
    """A condition on a profile or job: there are few of them, and endpoints have their ids."""
    table, key, column = (
        (jobs, relation.c.job_id, jobs.c.name)
        if clause.field == "job_name"
        else (
            profiles,
            relation.c.profile_id,
            _OF_PROFILE[clause.field],
        )
    )
    if not clause.values:
        return key.is_(None) if clause.operator is Operator.EQUAL else key.is_not(None)
    contains = clause.operator in (Operator.CONTAINS, Operator.CONTAINS_NOT)
    tests = [
        column.icontains(str(value), autoescape=True)
        if contains
        # There may be a job `spring` and another one `Spring`.
        else column == str(value)
        if clause.field == "job_name"
        else func.lower(column) == str(value).lower()
        for value in clause.values
    ]
    ids = func.array(select(table.c.id).where(or_(*tests)).scalar_subquery())
    found = key == any_(ids)
    return ~func.coalesce(found, false()) if clause.operator in _NEGATED else found


def _slugs(values: Sequence[Any]) -> list[str]:
    return [slug(value) for value in values]


def _status(relation: Subquery, values: Sequence[Any], *, few: bool) -> ColumnElement[bool]:
    wanted = _slugs(values)
    parts = [_limited(relation, status, few=few) for status in Status if status.value in wanted]
    if not parts:
        return false()
    if few or len(parts) == 1:
        return or_(*(test for part in parts for test in part if test is not None))
    # Those that the last request decides are found by one index, the rest by others.
    inner = rows("with_status")
    by_request, by_rest = [], []
    for status in Status:
        if status.value in wanted:
            request, rest = _limited(inner, status, few=few)
            by_request += [request] if request is not None else []
            by_rest += [rest] if rest is not None else []
    selects = [select(inner.c.id).where(or_(*tests)) for tests in (by_request, by_rest) if tests]
    if len(selects) == 1:
        whole = [test for part in parts for test in part if test is not None]
        return or_(*whole)
    return relation.c.id.in_(union_all(*selects))


def _limited(
    relation: Subquery, status: Status, *, few: bool
) -> tuple[ColumnElement[bool] | None, ColumnElement[bool] | None]:
    request, rest = status_is(relation, status)
    if status in (*ACTIVE, *FAILED) and request is not None and not few:
        latest = select(requests.c.endpoint_id).where(requests.c.is_latest)
        request = and_(_among(relation, latest.where(requests.c.status == status)), request)
    if status is Status.AUTOMATION_AT_RISK and rest is not None and not few:
        rest = and_(_among(relation, risk_query.candidates(_known(relation))), rest)
    return request, rest


def status_is(
    relation: Subquery, status: Status
) -> tuple[ColumnElement[bool] | None, ColumnElement[bool] | None]:
    """Return what makes endpoints have *status*: their last request, and what holds without one."""
    last = relation.c.request_status
    if status is Status.AUTOMATION_SCHEDULED:
        return and_(last == status, not_(relation.c.automatic)), None
    if status in (*ACTIVE, *FAILED):
        return last == status, None
    if status in _BRIEF:
        ended = relation.c.request_ended_at
        return and_(
            last == status, or_(ended.is_(None), ended > func.now() - RESULT_SHOWN_FOR)
        ), None
    resting = or_(
        last.is_(None),
        and_(last.in_(_BRIEF), relation.c.request_ended_at <= func.now() - RESULT_SHOWN_FOR),
    )
    if status is Status.NOT_CONFIGURED:
        unset = or_(relation.c.profile_id.is_(None), relation.c.target.is_(None))
        return None, and_(resting, unset)
    if status is Status.AUTOMATION_AT_RISK:
        return None, and_(resting, relation.c.configured, relation.c.at_risk)
    planned = and_(relation.c.auto_renew, relation.c.next_renewal_at.is_not(None))
    calm = and_(resting, relation.c.configured, not_(relation.c.at_risk))
    if status is Status.READY:
        return None, and_(calm, not_(planned))
    return and_(last == Status.AUTOMATION_SCHEDULED, relation.c.automatic), and_(calm, planned)


def _has_risk(relation: Subquery, codes: Sequence[RiskCode], *, few: bool) -> ColumnElement[bool]:
    """Return the condition for having one of these reasons.

    Unless it is asked of few rows, indexes say first who may have one.
    """
    found = or_(false(), *(relation.c[risk_name(code)] for code in codes))
    if few or not codes:
        return found
    return and_(_among(relation, risk_query.candidates(codes)), found)


def _risks(relation: Subquery, clause: Clause, *, few: bool) -> ColumnElement[bool]:
    if not clause.values:
        none = clause.operator is Operator.EQUAL
        found = _has_risk(relation, _known(relation), few=few or none)
        return ~found if none else found
    contains = clause.operator in (Operator.CONTAINS, Operator.CONTAINS_NOT)
    wanted = [
        code
        for code in _known(relation)
        if any(
            str(value).lower() in code.value if contains else slug(value) == code.value
            for value in clause.values
        )
    ]
    negated = clause.operator in _NEGATED
    found = _has_risk(relation, wanted, few=few or negated)
    return ~found if negated else found


def _known(relation: Subquery) -> list[RiskCode]:
    return [code for code in RiskCode if risk_name(code) in relation.c]


def _findings(relation: Subquery, clause: Clause) -> ColumnElement[bool]:
    codes = relation.c.finding_codes
    reused = relation.c.shown_key_hash == any_(reused_keys())
    negated = clause.operator in _NEGATED
    if not clause.values:
        none = and_(func.cardinality(codes) == 0, not_(func.coalesce(reused, false())))
        return ~none if negated else none
    values = [str(value).lower() for value in clause.values]
    if clause.operator in (Operator.EQUAL, Operator.NOT_EQUAL):
        tests: list[Any] = [codes.overlap(sql_cast(array(values), ARRAY(Text)))]
        also = KEY_REUSED in values
    else:
        text = func.array_to_string(codes, " ")
        tests = [text.icontains(value, autoescape=True) for value in values]
        also = any(value in KEY_REUSED for value in values)
    if also:
        tests.append(reused)
    found = or_(*tests)
    return ~func.coalesce(found, false()) if negated else found
