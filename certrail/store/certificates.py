"""Certificates: issued by us, or seen being served."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from cryptography import x509
from cryptography.x509.oid import NameOID
from sqlalchemy import Connection, Row, select, text

from certrail.errors import NotFound
from certrail.model import Chain, Fingerprint, key_hash, key_text, serial_text, subject_names
from certrail.store.database import statement
from certrail.store.schema import certificates

# A certificate first seen by a scan and then found to be ours gains its key. As text:
# SQLAlchemy compiles an insert with ON CONFLICT anew each time.
_SAVE = text(
    """
    insert into certificates as known (fingerprint, serial, issuer, common_name, names, key_kind,
      key_hash, not_before, not_after, chain_pem, key_id, ca)
    values (:fingerprint, :serial, :issuer, :common_name, :names, :key_kind,
      :key_hash, :not_before, :not_after, :chain_pem, :key_id, :ca)
    on conflict (fingerprint) do update set key_id = coalesce(known.key_id, excluded.key_id),
      ca = coalesce(known.ca, excluded.ca)
    returning id
    """
)


@dataclass(frozen=True, slots=True)
class Certificate:
    """A certificate in the inventory."""

    id: UUID
    fingerprint: Fingerprint
    serial: str
    issuer: str
    common_name: str | None
    names: tuple[str, ...]
    key_kind: str
    not_before: datetime
    not_after: datetime
    chain: Chain
    key_id: UUID | None
    ca: str | None
    revoked_at: datetime | None

    def usable(self, now: datetime) -> bool:
        """Whether a client would still accept it by date, and it is not known as revoked."""
        return self.revoked_at is None and self.not_before <= now < self.not_after


def save(
    connection: Connection, chain: Chain, *, key_id: UUID | None = None, ca: str | None = None
) -> UUID:
    """Store *chain* in the caller's transaction; the same leaf again is the same row."""
    leaf = chain.leaf
    values = {
        "fingerprint": chain.fingerprint,
        "serial": serial_text(leaf),
        "issuer": issuer_text(leaf),
        "common_name": _common_name(leaf.subject),
        "names": list(subject_names(leaf)),
        "key_kind": key_text(leaf),
        "key_hash": key_hash(leaf),
        "not_before": leaf.not_valid_before_utc,
        "not_after": leaf.not_valid_after_utc,
        "chain_pem": chain.text,
        "key_id": key_id,
        "ca": ca,
    }
    certificate_id: UUID = connection.execute(_SAVE, values).scalar_one()
    return certificate_id


def get(certificate_id: UUID) -> Certificate:
    """Return a certificate.

    Raises:
        NotFound: there is none with that id.
    """
    with statement() as connection:
        row = connection.execute(
            select(certificates).where(certificates.c.id == certificate_id)
        ).first()
    if row is None:
        raise NotFound(f"no certificate {certificate_id} in the inventory")
    return _read(row)


def by_fingerprint(fingerprint: str) -> Certificate | None:
    """Return the certificate with that SHA-256, None if the inventory has none."""
    with statement() as connection:
        row = connection.execute(
            select(certificates).where(certificates.c.fingerprint == fingerprint)
        ).first()
    return _read(row) if row is not None else None


def issuer_text(leaf: x509.Certificate) -> str:
    """Return the issuer's common name, or its whole name where it has none."""
    return _common_name(leaf.issuer) or leaf.issuer.rfc4514_string()


def _common_name(name: x509.Name) -> str | None:
    values = name.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(values[0].value) if values else None


def _read(row: Row[tuple[object, ...]]) -> Certificate:
    fields = row._mapping
    return Certificate(
        id=fields["id"],
        fingerprint=Fingerprint(fields["fingerprint"]),
        serial=fields["serial"],
        issuer=fields["issuer"],
        common_name=fields["common_name"],
        names=tuple(fields["names"]),
        key_kind=fields["key_kind"],
        not_before=fields["not_before"],
        not_after=fields["not_after"],
        chain=Chain.from_pem(fields["chain_pem"]),
        key_id=fields["key_id"],
        ca=fields["ca"],
        revoked_at=fields["revoked_at"],
    )
