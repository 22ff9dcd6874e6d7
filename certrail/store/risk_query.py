"""Why endpoints are at risk, as SQL: the twin of :mod:`certrail.risk`."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from sqlalchemy import (
    ColumnElement,
    CompoundSelect,
    Select,
    Text,
    and_,
    any_,
    case,
    cast,
    false,
    func,
    literal,
    literal_column,
    or_,
    select,
    union_all,
)
from sqlalchemy.dialects.postgresql import ARRAY, array

from certrail.risk import KEY_TEXTS, OVERDUE_AFTER, RiskCode
from certrail.store.schema import connectors, endpoints, executors, profiles

_ENDPOINT = endpoints.c
HELD = "held"
"""Code of a renewal that somebody called off."""


def conditions(
    *,
    auto_renew: ColumnElement[bool],
    ours: Any,
    ca: Any,
    dns: Any,
    target: Any,
    executor: ColumnElement[Any],
) -> Mapping[RiskCode, ColumnElement[bool]]:
    """Return for each reason when it holds; never null.

    Args:
        auto_renew: whether the endpoint renews by itself.
        ours: the certificate that it got from us last.
        ca, dns, target: aliases of the connectors that its next request needs.
        executor: name of the agent or sensor that reaches it, null if any does.
    """
    due = _ENDPOINT.next_renewal_at
    since = _ENDPOINT.last_success_at
    tests = {
        RiskCode.CERTIFICATE_EXPIRED: and_(auto_renew, _ENDPOINT.shown_not_after < func.now()),
        RiskCode.RENEWAL_OVERDUE: and_(
            auto_renew,
            due < func.now() - OVERDUE_AFTER,
            or_(since.is_(None), due > since),
        ),
        RiskCode.RENEWAL_TOO_LATE: and_(
            auto_renew,
            due >= _ENDPOINT.shown_not_after,
            _ENDPOINT.shown_not_after >= func.now(),
        ),
        RiskCode.RENEWAL_HELD: and_(auto_renew, _ENDPOINT.renewal["code"].astext == HELD),
        RiskCode.EXECUTOR_SILENT: silent_since(executor).is_not(None),
        RiskCode.SERVED_DIFFERS: _ENDPOINT.shown_id != _ENDPOINT.certificate_id,
        RiskCode.CA_CHECK_FAILING: _broken(ca),
        RiskCode.DNS_CHECK_FAILING: _broken(dns),
        RiskCode.TARGET_CHECK_FAILING: _broken(target),
        RiskCode.PROFILE_CHANGED: and_(
            _ENDPOINT.shown_id == _ENDPOINT.certificate_id,
            ours.c.ca.is_not(None),
            or_(
                ours.c.ca != profiles.c.ca,
                ours.c.key_kind != wanted_key(),
                ~_ENDPOINT.names.contained_by(ours.c.names),
            ),
        ),
    }
    managed = _ENDPOINT.profile_id.is_not(None)
    return {code: and_(managed, func.coalesce(test, false())) for code, test in tests.items()}


def candidates(codes: Collection[RiskCode]) -> CompoundSelect[Any]:
    """Select the ids of all endpoints that may have one of the reasons.

    Each part is found by an index; who is not among them has none of these
    reasons in :func:`conditions`.
    """
    silent = select(executors.c.name).where(executors.c.silent_since.is_not(None))
    broken = select(connectors.c.name).where(
        ~connectors.c.check_ok, connectors.c.checked_at.is_not(None)
    )
    reached = select(connectors.c.name).where(connectors.c.executor.in_(silent))
    by_ca = select(profiles.c.id).where(profiles.c.ca.in_(broken))
    by_dns = select(profiles.c.id).where(
        profiles.c.settings["validation"]["dns"].astext.in_(broken)
    )
    wanted = profiles.c.ca + "/" + wanted_key()
    # Two ranges of an index, where `<>` would read all of it.
    changed = select(_ENDPOINT.id).where(
        _ENDPOINT.profile_id == profiles.c.id,
        or_(_ENDPOINT.own_kind < wanted, _ENDPOINT.own_kind > wanted),
    )
    due = _ENDPOINT.next_renewal_at
    tests: Mapping[RiskCode, Sequence[ColumnElement[bool]]] = {
        RiskCode.CERTIFICATE_EXPIRED: (_ENDPOINT.shown_not_after < func.now(),),
        RiskCode.RENEWAL_OVERDUE: (due < func.now() - OVERDUE_AFTER,),
        RiskCode.RENEWAL_TOO_LATE: (_ENDPOINT.renewal_too_late,),
        RiskCode.RENEWAL_HELD: (_ENDPOINT.renewal["code"].astext == literal_column(f"'{HELD}'"),),
        RiskCode.EXECUTOR_SILENT: (
            _ENDPOINT.executor == any_(_names(silent)),
            _ENDPOINT.target == any_(_names(reached)),
        ),
        RiskCode.SERVED_DIFFERS: (_ENDPOINT.differs,),
        RiskCode.CA_CHECK_FAILING: (_ENDPOINT.profile_id == any_(_names(by_ca)),),
        RiskCode.DNS_CHECK_FAILING: (_ENDPOINT.profile_id == any_(_names(by_dns)),),
        RiskCode.TARGET_CHECK_FAILING: (_ENDPOINT.target == any_(_names(broken)),),
        RiskCode.PROFILE_CHANGED: (_ENDPOINT.own_lacks,),
    }
    parts = [select(_ENDPOINT.id).where(test) for code in codes for test in tests[code]]
    if RiskCode.PROFILE_CHANGED in codes:
        parts.append(changed)
    return union_all(*parts)


def _names(query: Select[Any]) -> Any:
    return func.array(query.scalar_subquery())


def silent_since(executor: ColumnElement[Any]) -> ColumnElement[Any]:
    """Return since when the executor of that name is silent, null if it is not."""
    return (
        select(func.min(executors.c.silent_since))
        .where(executors.c.name == executor)
        .scalar_subquery()
    )


def codes(tests: Mapping[RiskCode, ColumnElement[bool]]) -> ColumnElement[Any]:
    """Return the reasons that hold as an array of texts, the most urgent first."""
    listed = [case((test, literal(code.value)), else_=None) for code, test in _in_order(tests)]
    return func.array_remove(cast(array(listed), ARRAY(Text)), None, type_=ARRAY(Text))


def wanted_key() -> ColumnElement[Any]:
    """Return the kind of key that the profile wants, as certificates' kinds are told."""
    algorithm = func.coalesce(profiles.c.settings["key"]["algorithm"].astext, "ecdsa-p256")
    return case({key.value: text for key, text in KEY_TEXTS.items()}, value=algorithm)


def _in_order(
    tests: Mapping[RiskCode, ColumnElement[bool]],
) -> list[tuple[RiskCode, ColumnElement[bool]]]:
    return [(code, tests[code]) for code in RiskCode if code in tests]


def _broken(connector: Any) -> ColumnElement[bool]:
    return and_(
        ~connector.c.check_ok,
        connector.c.checked_at.is_not(None),
        or_(
            _ENDPOINT.last_success_at.is_(None),
            connector.c.checked_at > _ENDPOINT.last_success_at,
        ),
    )
