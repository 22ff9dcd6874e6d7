"""The one live order of a request: opened at most once, found again after a crash."""

from __future__ import annotations

import hashlib
from dataclasses import replace

from certrail import log
from certrail.connectors import (
    CertificateAuthority,
    FindsOrders,
    ListsOrders,
    OffersRenewalInfo,
)
from certrail.errors import InvalidRequest, Rejected
from certrail.model import Action, Order, OrderSpec
from certrail.steps import restored
from certrail.steps.outcome import Work
from certrail.store import certificates, orders
from certrail.store.database import locked
from certrail.store.orders import OrderRecord

_MOST_USED_UP = 5
"""How many orders of one request the old installation can have used up after the backup."""


def open_order(work: Work, ca: CertificateAuthority) -> tuple[OrderRecord, Order]:
    """Return the request's live order, opening it at the CA if there is none.

    A crash between the CA's answer and our note of it leaves an intent with
    no outcome. The next run asks the CA first; only a CA that can neither be
    asked nor reuses an unfinished order may end up with a second, unused one.
    After a restore the CA is asked too: the order may be younger than the backup.
    """
    record, order = _found_or_opened(work, ca)
    for _ in range(_MOST_USED_UP):
        if not restored.is_used_up(work, ca, record):
            break
        orders.bury(work.request.id, restored.USED_UP)
        record, order = _found_or_opened(work, ca)
    return record, order


def _found_or_opened(work: Work, ca: CertificateAuthority) -> tuple[OrderRecord, Order]:
    plan = work.plan
    record = orders.begin(work.request.id, plan.ca.name, plan.names, plan.key_algorithm)
    # One at a time for each set of names: whoever looks for a lost order must
    # not take the one that another request is just opening.
    with locked(f"order:{plan.ca.name}:{_digest(plan.names)}"):
        spec = OrderSpec(
            key=record.key,
            names=plan.names,
            profile=plan.ca_profile,
            replaces=_replaces(work, ca),
        )
        intent = {"names": list(spec.names), "replaces": spec.replaces}
        with work.journal.effect("order.open", record.key, intent) as effect:
            if effect.outcome is None:
                may_exist = effect.is_repeated or restored.came_with_backup(work)
                order = _lost(ca, record, spec) if may_exist else None
                order = order or _opened(work, ca, spec)
                effect.record(
                    {"remote_id": order.remote_id},
                    lambda connection: orders.keep(connection, record, order),
                )
                return replace(record, order=order), order
    # Opened by an earlier try, whose note may be newer than what was read above.
    stored = record if record.order is not None else orders.live(work.request.id)
    assert stored is not None
    assert stored.order is not None
    return stored, stored.order


def _opened(work: Work, ca: CertificateAuthority, spec: OrderSpec) -> Order:
    try:
        return ca.open_order(spec)
    except (Rejected, InvalidRequest) as exc:
        # A clear no: there is no order, so a retry may ask for other names.
        orders.bury(work.request.id, str(exc))
        raise


def _lost(ca: CertificateAuthority, record: OrderRecord, spec: OrderSpec) -> Order | None:
    """Return the order that an earlier run opened without noting it, if the CA can tell."""
    if record.order is not None:
        return record.order
    if isinstance(ca, FindsOrders):
        return ca.find_order(spec.key)
    if isinstance(ca, ListsOrders):
        taken = orders.known_at(record.ca)
        for order in ca.unfinished_orders(spec.names):
            if order.remote_id not in taken:
                log.effect("order.found", key=spec.key, order=order.remote_id)
                return replace(order, key=spec.key)
    return None


def _replaces(work: Work, ca: CertificateAuthority) -> str:
    previous = work.request.previous_certificate_id
    if (
        previous is None
        or not work.plan.replaces
        or work.request.action is Action.ENROLL
        or not isinstance(ca, OffersRenewalInfo)
    ):
        return ""
    certificate = certificates.get(previous)
    # Only the CA that issued it knows the certificate by this identifier.
    return ca.replaces_id(certificate.chain) if certificate.ca == work.plan.ca.name else ""


def _digest(names: tuple[str, ...]) -> str:
    return hashlib.sha256("\n".join(sorted(names)).encode()).hexdigest()[:16]
