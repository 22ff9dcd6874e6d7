"""The inventory's query: one relation with everything that a list shows, filters and sorts by.

PostgreSQL computes only what is asked of it. What is derived from a certificate
or from time is compared as the column that an index has: ``days_left<30`` as
the end of validity, for instance.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Integer,
    Subquery,
    and_,
    case,
    cast,
    exists,
    extract,
    func,
    literal,
    or_,
    select,
)

from certrail.risk import RiskCode
from certrail.store import risk_query
from certrail.store.filters import Kind
from certrail.store.reasons import is_automatic
from certrail.store.schema import (
    certificates,
    connectors,
    endpoints,
    jobs,
    profiles,
    requests,
    shared_keys,
    steps,
)
from certrail.tracker import ACTIVE, FAILED, RESULT_SHOWN_FOR, Status, StepStatus

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
    "risks": Kind.LIST,
    "step": Kind.TEXT,
    "ca": Kind.TEXT,
    "lifetime_days": Kind.NUMBER,
    "executor": Kind.TEXT,
    "dns": Kind.TEXT,
}
"""What can be filtered and, but for a few, sorted by."""

UNSORTED = (
    "security_findings",
    "risks",
    "step",
    "flow_run_url",
    "renewal_pause",
    "executor",
    "dns",
)
"""Columns without an order."""

JOINED = ("profile", "job_name", "request_id")
"""Columns to sort by that are not the endpoint's own."""

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
    "risk": "risks",
}

WORDS: Mapping[str, tuple[str, ...]] = {
    "automation_status": tuple(status.value for status in Status),
    "risks": tuple(code.value for code in RiskCode),
}
"""All that these columns can hold."""

KEY_REUSED = "key-reused"
"""Code of the finding that one key serves several hosts; the inventory alone can see that."""


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


@cache
def rows(name: str = "inventory") -> Subquery:
    """The inventory as one relation.

    Beside the documented columns it has those that conditions compare and
    that say why an endpoint is at risk.
    """
    latest = requests.alias("latest")
    ours = certificates.alias("ours")
    ca = connectors.alias("ca")
    dns = connectors.alias("dns")
    target = connectors.alias("target")
    auto = func.coalesce(
        endpoints.c.auto_renew,
        profiles.c.settings["renew"]["auto"].as_boolean(),
        literal(True),
    )
    executor = func.coalesce(endpoints.c.executor, target.c.executor)
    auto_renew = and_(endpoints.c.profile_id.is_not(None), auto)
    risks = risk_query.conditions(
        auto_renew=auto_renew, ours=ours, ca=ca, dns=dns, target=target, executor=executor
    )
    at_risk = or_(*risks.values())
    automatic = is_automatic(latest.c.reason_code)
    configured = and_(endpoints.c.profile_id.is_not(None), endpoints.c.target.is_not(None))
    status = status_column(
        configured=configured,
        last_request=latest.c.status,
        ended_at=latest.c.ended_at,
        automatic=automatic,
        auto_renew=auto_renew,
        next_renewal_at=endpoints.c.next_renewal_at,
        at_risk=at_risk,
    )
    days = func.floor(extract("epoch", endpoints.c.shown_not_after - func.now()) / 86400)
    return (
        select(
            *_own(),
            profiles.c.name.label("profile"),
            profiles.c.workflow,
            profiles.c.ca,
            status.label("automation_status"),
            jobs.c.name.label("job_name"),
            latest.c.id.label("request_id"),
            cast(days, Integer).label("days_left"),
            endpoints.c.observed,
            endpoints.c.finding_codes,
            _key_reused().label("key_reused"),
            risk_query.codes(risks).label("risks"),
            _step(latest).label("step"),
            latest.c.flow_run_id,
            # For conditions.
            endpoints.c.profile_id,
            endpoints.c.certificate_id,
            endpoints.c.shown_id,
            endpoints.c.shown_key_hash,
            latest.c.job_id,
            latest.c.status.label("request_status"),
            latest.c.ended_at.label("request_ended_at"),
            automatic.label("automatic"),
            configured.label("configured"),
            auto_renew.label("auto_renew"),
            at_risk.label("at_risk"),
            *(test.label(risk_name(code)) for code, test in risks.items()),
            # For the reasons in words.
            endpoints.c.names.label("own_names"),
            executor.label("executor"),
            dns.c.name.label("dns"),
            risk_query.silent_since(executor).label("silent_since"),
            (endpoints.c.renewal["code"].astext == risk_query.HELD).label("held"),
            endpoints.c.renewal["pause"].label("renewal_pause"),
            ours.c.fingerprint.label("recorded"),
            ours.c.ca.label("present_ca"),
            ours.c.key_kind.label("present_key"),
            ours.c.names.label("present_names"),
            risk_query.wanted_key().label("wanted_key"),
            *(
                one.c[column].label(f"{label}_{column}")
                for label, one in (("ca", ca), ("dns", dns), ("target", target))
                for column in ("name", "check_ok", "checked_at", "check_message")
            ),
        )
        .select_from(
            endpoints.outerjoin(profiles, endpoints.c.profile_id == profiles.c.id)
            .outerjoin(latest, and_(latest.c.endpoint_id == endpoints.c.id, latest.c.is_latest))
            .outerjoin(jobs, jobs.c.id == latest.c.job_id)
            .outerjoin(ours, ours.c.id == endpoints.c.certificate_id)
            .outerjoin(ca, ca.c.name == profiles.c.ca)
            .outerjoin(dns, dns.c.name == profiles.c.settings["validation"]["dns"].astext)
            .outerjoin(target, target.c.name == endpoints.c.target)
        )
        .subquery(name)
    )


@cache
def endpoint_rows(name: str) -> Subquery:
    """The columns of :func:`rows` that are the endpoint's own, as a relation without joins."""
    return select(*_own()).select_from(endpoints).subquery(name)


def _own() -> list[ColumnElement[Any]]:
    return [
        endpoints.c.id,
        endpoints.c.location,
        endpoints.c.shown_names.label("names"),
        endpoints.c.shown_common_name.label("common_name"),
        endpoints.c.target,
        endpoints.c.server["kind"].astext.label("server"),
        endpoints.c.shown_not_after.label("not_after"),
        endpoints.c.shown_issuer.label("issuer"),
        endpoints.c.shown_fingerprint.label("fingerprint"),
        endpoints.c.shown_serial.label("serial"),
        endpoints.c.shown_key.label("key"),
        endpoints.c.tags,
        endpoints.c.last_success_at,
        endpoints.c.next_renewal_at,
        endpoints.c.sort_lifetime.label("lifetime_days"),
        endpoints.c.sort_tags,
        endpoints.c.sort_workflow,
        endpoints.c.sort_ca,
        endpoints.c.shown_words,
    ]


def risk_name(code: str) -> str:
    """Return the column that says whether that reason holds."""
    return f"risk_{code.replace('-', '_')}"


def reused_keys() -> Any:
    """Select the hashes of keys that serve several hosts, as an array."""
    return func.array(select(shared_keys.c.key_hash).scalar_subquery())


def _key_reused() -> ColumnElement[bool]:
    return exists().where(shared_keys.c.key_hash == endpoints.c.shown_key_hash)


def _step(latest: Any) -> ColumnElement[Any]:
    """The first step that is not done yet, while the last request is active or has failed."""
    return (
        select(steps.c.title)
        .where(
            steps.c.request_id == latest.c.id,
            latest.c.status.in_((*ACTIVE, *FAILED)),
            steps.c.status.not_in((StepStatus.COMPLETED, StepStatus.SKIPPED)),
        )
        .order_by(steps.c.number)
        .limit(1)
        .correlate(latest)
        .scalar_subquery()
    )
