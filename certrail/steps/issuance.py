"""Certificate issued: one order, one key, one CSR, one chain."""

from __future__ import annotations

from datetime import timedelta

from certrail import log
from certrail.connectors import CertificateAuthority
from certrail.errors import (
    CertrailError,
    ConnectorError,
    InvalidRequest,
    NotFound,
    NotIssued,
    Rejected,
)
from certrail.model import Chain, Csr, OrderStatus, key_text, serial_text
from certrail.steps import restored
from certrail.steps.csr import OpenAny, with_csr
from certrail.steps.outcome import Outcome, Work, day
from certrail.store import certificates, orders, requests
from certrail.store.database import transaction
from certrail.store.orders import OrderRecord
from certrail.wait import Pending, until

_FIRST_POLL = timedelta(milliseconds=100)


def issue(work: Work, ca: CertificateAuthority, open_target: OpenAny | None = None) -> Outcome:
    """Hand over the CSR and keep the chain that answers it.

    Key and CSR are stored before the CA sees the CSR, so whatever it issues
    can be installed later. *open_target* is for keys that are made on their host.

    Raises:
        NotIssued: the CA is still working; the same order is asked again later.
        Rejected: the CA gave the order up; it is dead.
        NotFound: the CA knows it no more, or it is of no use after a restore; it is dead.
    """
    record = orders.live(work.request.id)
    if record is None or record.order is None:
        raise InvalidRequest(
            "the request has no live order",
            remedy="Retry: validation is gone through again and an order is opened.",
        )
    if restored.is_used_up(work, ca, record):
        orders.bury(work.request.id, restored.USED_UP)
        raise NotFound(
            f"the order can yield no certificate any more: {restored.USED_UP}",
            remedy="Retry: a new order is made.",
        )
    record, csr = with_csr(work, record, open_target)
    try:
        chain = _obtain(work, ca, record, csr)
    except (Rejected, NotFound) as exc:
        _bury_if_dead(work, ca, record, exc)
        raise
    chain.must_answer(csr, work.plan.names)
    with transaction() as connection:
        certificate_id = certificates.save(
            connection, chain, key_id=record.key_id, ca=work.plan.ca.name
        )
        requests.keep_certificate(connection, work.request.id, certificate_id)
        requests.announce(
            connection,
            work.request.id,
            "certrail.certificate.issued",
            once=f"issued:{work.request.id}:{chain.fingerprint}",
            fingerprint=chain.fingerprint,
            serial=serial_text(chain.leaf),
            not_after=chain.leaf.not_valid_after_utc.isoformat(),
        )
    leaf = chain.leaf
    log.effect("certificate.kept", request=work.request.id, serial=serial_text(leaf))
    return Outcome.completed(
        f"serial {serial_text(leaf)}, {key_text(leaf)}, valid to "
        f"{day(leaf.not_valid_after_utc)}, chain of {len(chain.pems)}"
    )


def _bury_if_dead(
    work: Work, ca: CertificateAuthority, record: OrderRecord, cause: ConnectorError
) -> None:
    """Give up the order if the CA has; a refusal alone does not end it."""
    assert record.order is not None
    try:
        present = ca.reopen(record.order)
    except NotFound:
        orders.bury(work.request.id, str(cause))
        return
    except CertrailError as exc:
        log.logger.warning("the state of order %s is not known: %s", record.order.remote_id, exc)
        return
    if present.status is OrderStatus.INVALID:
        # Such an order never yields a certificate (RFC 8555 section 7.1.6),
        # so only now may a retry open another.
        orders.bury(work.request.id, str(cause))
    elif cause.code.endswith(":badCSR"):
        orders.drop_csr(record)


def _obtain(work: Work, ca: CertificateAuthority, record: OrderRecord, csr: Csr) -> Chain:
    assert record.order is not None
    with work.journal.effect("order.finalize", record.key) as effect:
        if effect.outcome is None:
            order = ca.finalize(record.order, csr)
            effect.record(
                {"status": str(order.status)},
                lambda connection: orders.keep(connection, record, order),
            )
        else:
            order = record.order

    waits_for = ""

    def ask() -> Chain | Pending:
        nonlocal waits_for
        answer = ca.collect(order)
        if isinstance(answer, Pending):
            waits_for = answer.why
        return answer

    def late() -> CertrailError:
        cause = f"{work.plan.ca.name} is still working on order {order.remote_id}"
        return NotIssued(f"{cause}: {waits_for}" if waits_for else cause)

    return until(
        ask,
        timeout=work.plan.issue_timeout,
        interval=_FIRST_POLL,
        slowest=timedelta(seconds=10),
        late=late,
    )
