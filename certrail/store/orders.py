"""Orders: our reference, the CA's answer, the CSR and the key, stored before they are used."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, bindparam, func, insert, select, update
from sqlalchemy.exc import IntegrityError

from certrail.errors import JournalConflict
from certrail.model import Csr, KeyAlgorithm, Order, OrderKey
from certrail.private_key import PrivateKeyPem
from certrail.store import keys
from certrail.store.database import statement, transaction
from certrail.store.schema import orders
from certrail.x509.csr import read_csr


@dataclass(frozen=True, slots=True)
class OrderRecord:
    """The live order of a request.

    Attributes:
        key: our reference.
        order: what the CA answered, None until it did.
        csr, key_id: made before finalize, None until then.
    """

    id: UUID
    ca: str
    key: OrderKey
    order: Order | None
    csr: Csr | None
    key_id: UUID | None


_COLUMNS = (
    orders.c.id,
    orders.c.ca,
    orders.c.key,
    orders.c.order,
    orders.c.csr_pem,
    orders.c.key_id,
)
_LIVE = select(*_COLUMNS).where(orders.c.request_id == bindparam("request_id"), ~orders.c.is_dead)
_DEAD = (
    select(orders.c.csr_pem, orders.c.key_id)
    .where(orders.c.request_id == bindparam("request_id"))
    .order_by(orders.c.created_at)
)
_KEEP = (
    update(orders)
    .where(orders.c.id == bindparam("row_id"))
    .values(order=bindparam("answer", type_=orders.c.order.type), updated_at=func.now())
)


def live(request_id: UUID) -> OrderRecord | None:
    """Return the request's live order, None if it has none yet."""
    with statement() as connection:
        row = connection.execute(_LIVE, {"request_id": request_id}).first()
    return _read(row) if row is not None else None


def begin(request_id: UUID, ca: str, names: Sequence[str], algorithm: KeyAlgorithm) -> OrderRecord:
    """Return the live order, reserving a reference for a new one if there is none.

    CSR and key of a dead order are taken over if they ask for *names* with an
    *algorithm* key: the key may be on a device that would have to make another.

    Raises:
        JournalConflict: another run reserved one at this moment.
    """
    try:
        with transaction() as connection:
            this = {"request_id": request_id}
            if (row := connection.execute(_LIVE, this).first()) is not None:
                return _read(row)
            dead = connection.execute(_DEAD, this).all()
            fits = dead and dead[-1].csr_pem and _asks_for(dead[-1].csr_pem, names, algorithm)
            kept = dead[-1] if fits else None
            row = connection.execute(
                insert(orders)
                .values(
                    request_id=request_id,
                    key=f"{request_id}-{len(dead) + 1}",
                    ca=ca,
                    csr_pem=kept.csr_pem if kept else None,
                    key_id=kept.key_id if kept else None,
                )
                .returning(*_COLUMNS)
            ).one()
    except IntegrityError as exc:
        raise JournalConflict("another run opens the order of this request") from exc
    return _read(row)


def keep(connection: Connection, record: OrderRecord, order: Order) -> OrderRecord:
    """Store the CA's newest answer in the caller's transaction; returns the record with it."""
    connection.execute(_KEEP, {"row_id": record.id, "answer": order.to_json()})
    return replace(record, order=order)


def keep_csr(
    record: OrderRecord, csr: Csr, key: PrivateKeyPem | None, algorithm: KeyAlgorithm
) -> OrderRecord:
    """Store CSR and sealed key in one transaction; *key* is None where the target holds it.

    Returns the record with both.

    Raises:
        JournalConflict: there is a CSR already, made by another run meanwhile.
    """
    with transaction() as connection:
        key_id = (
            keys.keep(connection, key, purpose="leaf", algorithm=algorithm)
            if key is not None
            else None
        )
        stored = connection.execute(
            update(orders)
            .where(orders.c.id == record.id, orders.c.csr_pem.is_(None))
            .values(csr_pem=csr.pem, key_id=key_id, updated_at=func.now())
            .returning(orders.c.id)
        ).first()
        if stored is None:
            raise JournalConflict("another run made the key of this order")
    return replace(record, csr=csr, key_id=key_id)


def drop_csr(record: OrderRecord) -> None:
    """Forget a CSR that the CA refused; the order lives on and gets another."""
    with statement() as connection:
        connection.execute(
            update(orders)
            .where(orders.c.id == record.id)
            .values(csr_pem=None, key_id=None, updated_at=func.now())
        )


def bury(request_id: UUID, why: str) -> None:
    """Mark the live order as one that can yield no certificate any more.

    Only after this may the request open another.
    """
    with statement() as connection:
        connection.execute(
            update(orders)
            .where(orders.c.request_id == request_id, ~orders.c.is_dead)
            .values(is_dead=True, dead_because=why, updated_at=func.now())
        )


def known_at(ca: str) -> set[str]:
    """Return the remote ids of all orders that requests have at the connector *ca*."""
    with statement() as connection:
        rows = connection.execute(
            select(orders.c.order["remote_id"].astext).where(
                orders.c.ca == ca, orders.c.order.is_not(None)
            )
        )
        return {remote_id for (remote_id,) in rows}


def _asks_for(csr_pem: str, names: Sequence[str], algorithm: KeyAlgorithm) -> bool:
    asked = read_csr(Csr(csr_pem))
    return set(asked.names) == set(names) and asked.algorithm is algorithm


def _read(row: Any) -> OrderRecord:
    return OrderRecord(
        id=row.id,
        ca=row.ca,
        key=OrderKey(row.key),
        order=Order.from_json(row.order) if row.order else None,
        csr=Csr(row.csr_pem) if row.csr_pem else None,
        key_id=row.key_id,
    )
