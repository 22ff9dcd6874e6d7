"""What a CA on disk has revoked, and the CRL that says so (RFC 5280 section 5)."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization

from certrail.ca.authority import Authority
from certrail.ca.folder import Folder
from certrail.errors import UnexpectedReply
from certrail.model import RevocationReason

_LIST = "revoked.json"
_CRL = "crl.pem"
_FRESH = timedelta(days=7)


def revoke(
    folder: Folder, authority: Authority, leaf: x509.Certificate, reason: RevocationReason
) -> bool:
    """Add *leaf* to the list and write a new CRL; return False if it was on it already."""
    serial = f"{leaf.serial_number:x}"
    with folder.locked():
        present = entries(folder)
        if serial in present:
            return False
        now = datetime.now(UTC).replace(microsecond=0)
        present[serial] = {"at": now.isoformat(), "reason": str(reason)}
        # The CRL first: a crash in between is repaired when the revocation is
        # repeated; the other way round, the repetition would find nothing to do.
        _publish(folder, authority, present, now)
        folder.write(_LIST, json.dumps(present, indent=1).encode(), durable=True)
    return True


def current(folder: Folder, authority: Authority) -> bytes:
    """Return the CRL in PEM; one with less than half of its time left is signed anew."""
    now = datetime.now(UTC).replace(microsecond=0)
    present = _fresh(folder, now)
    if present is None:
        with folder.locked():
            present = _fresh(folder, now) or _publish(folder, authority, entries(folder), now)
    return present


def entries(folder: Folder) -> dict[str, dict[str, Any]]:
    """Return what is revoked: serial number in hex to time and reason."""
    try:
        return dict(json.loads(folder.read(_LIST) or b"{}"))
    except ValueError as exc:
        raise UnexpectedReply(
            f"{folder.label}: {folder.path / _LIST} is not JSON",
            remedy="Put it back from a backup: it says what is revoked.",
            connector=folder.label,
        ) from exc


def _fresh(folder: Folder, now: datetime) -> bytes | None:
    pem = folder.read(_CRL)
    if pem is None:
        return None
    ends = x509.load_pem_x509_crl(pem).next_update_utc
    return pem if ends is not None and ends - now > _FRESH / 2 else None


def _publish(
    folder: Folder, authority: Authority, present: dict[str, dict[str, Any]], now: datetime
) -> bytes:
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(authority.certificate.subject)
        .last_update(now)
        .next_update(now + _FRESH)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.key.public_key()),
            critical=False,
        )
        .add_extension(x509.CRLNumber(_number(folder) + 1), critical=False)
    )
    for serial, what in present.items():
        entry = (
            x509.RevokedCertificateBuilder()
            .serial_number(int(serial, 16))
            .revocation_date(datetime.fromisoformat(what["at"]))
        )
        reason = RevocationReason(what["reason"])
        if reason is not RevocationReason.UNSPECIFIED:
            flag = x509.ReasonFlags(str(reason))
            entry = entry.add_extension(x509.CRLReason(flag), critical=False)
        builder = builder.add_revoked_certificate(entry.build())
    pem = builder.sign(authority.key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
    folder.write(_CRL, pem, durable=True)
    return pem


def _number(folder: Folder) -> int:
    """Return the number of the CRL that is there (RFC 5280 section 5.2.3), 0 for none."""
    pem = folder.read(_CRL)
    if pem is None:
        return 0
    present = x509.load_pem_x509_crl(pem)
    return present.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number
