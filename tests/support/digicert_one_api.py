"""An imitation of DigiCert ONE Trust Lifecycle Manager's REST API.

Requests and replies are held against the API's published description
(:mod:`tests.support.digicert_one_description`): a request that it does not allow
is refused, a reply of ours that it does not allow ends in status 500. What other
people's clients send and expect is tried in ``test_digicert_one_clients.py``.
Further sources, as read in November 2026: "Error handling & rate limits" on
dev.digicert.com (shapes and codes of errors); Fleet's client (GitHub
fleetdm/fleet) for 403 as the answer to an unknown profile. Invented: the wording
of most messages, and that a search leaves the certificates themselves out.
"""

from __future__ import annotations

import base64
import itertools
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TypeVar
from uuid import uuid4

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, pkcs7
from pydantic import BaseModel, ValidationError

from tests.support.digicert_one_description import (
    CertificateReply,
    Details,
    IssueRequest,
    Page,
    PickupRequest,
    Profile,
    RevokeRequest,
    SearchQuery,
)
from tests.support.rest_server import Answer, Call, Refusal, RestService, route, serving
from tests.support.signing_ca import PEM, SigningCa

_Shape = TypeVar("_Shape", bound=BaseModel)
HELLO = "Hello from DigiCert ONE - Trust Lifecycle Manager REST API!"


@dataclass
class Entry:
    """A certificate, or a request for one."""

    number: str
    names: list[str]
    csr: str
    profile: str
    seat: str
    chain: bool
    leaf: x509.Certificate | None = None
    asked: int = 0
    revoked: str = ""
    refused: bool = False


class DigicertOneApi(RestService):
    """The service.

    Attributes:
        key: the good API token.
        profile, slow_profile: ids; the second one issues at the second question.
        domain: what names have to end with.
        unknown_profile: status that a profile is answered with that there is not.
        form: ``pem`` with the whole chain, ``leaf`` for the leaf alone, or ``pkcs7``.
        bodies: of all requests for a certificate.
    """

    def __init__(self, domain: str) -> None:
        super().__init__()
        self.key = secrets.token_hex(20)
        self.profile, self.slow_profile = str(uuid4()), str(uuid4())
        self.unknown_profile = 403
        self.domain = domain
        self.ca = SigningCa("Imitated DigiCert ONE")
        self.form = "pem"
        self.bodies: list[dict[str, Any]] = []
        self.entries: list[Entry] = []
        self._numbers = itertools.count(1)

    def issued(self, name: str) -> int:
        """Return how many certificates or requests for *name* there are."""
        return sum(name in each.names for each in self.entries)

    def by_serial(self, serial: str) -> Entry:
        """Find a certificate."""
        for each in self.entries:
            if each.leaf is not None and _serial(each.leaf) == serial.upper():
                return each
        raise _refuse(404, "resource_not_found", "no such certificate")

    def enter(self, call: Call) -> None:
        if call.headers.get("x-api-key") != self.key:
            raise Refusal(
                Answer(401, {"error": {"code": "invalid_api_key", "message": "bad API key"}})
            )

    @route("GET", r"/mpki/api/v1/hello")
    def hello(self, call: Call) -> Answer:
        """Say that it is there."""
        return Answer(200, HELLO)

    @route("GET", r"/mpki/api/v2/profile/([^/]+)")
    def read_profile(self, call: Call, number: str) -> Answer:
        """Read a profile."""
        self._must_be_known(number)
        return _told(
            Profile,
            {
                "id": number,
                "name": "Web servers",
                "status": "Active",
                "certificate_delivery_format": "X509",
                "enrollment_method": "rest_api",
                "override_cert_validity_via_api": True,
            },
        )

    @route("POST", r"/mpki/api/v1/certificate")
    def issue(self, call: Call) -> Answer:
        """Issue, with subject and names from the body; without names, for the common name."""
        asked = _asked(IssueRequest, call.body)
        self.bodies.append(call.body)
        self._must_be_known(str(asked.profile.id))
        subject = asked.attributes.get("subject", {}).get("common_name", "")
        san = asked.attributes.get("extensions", {}).get("san", {})
        names = san.get("dns_names") or [subject]
        if asked.seat is None or not asked.seat.seat_id or not subject:
            raise _refuse(400, "invalid_request", "seat_id and common_name are required")
        if any(not name.endswith(self.domain) for name in names):
            raise _refuse(400, "invalid_request", "the profile does not allow this domain")
        csr = asked.csr
        if "-----BEGIN" not in csr:
            csr = f"-----BEGIN CERTIFICATE REQUEST-----\n{csr}\n-----END CERTIFICATE REQUEST-----\n"
        try:
            x509.load_pem_x509_csr(csr.encode())
        except ValueError:
            raise _refuse(400, "invalid_csr", "the CSR cannot be read") from None
        entry = Entry(
            f"request-{next(self._numbers)}",
            names,
            csr,
            str(asked.profile.id),
            asked.seat.seat_id,
            asked.include_ca_chain,
        )
        self.entries.append(entry)
        if entry.profile == self.slow_profile:
            pending = {"status": "PENDING", "request_id": entry.number}
            return _told(CertificateReply, pending, status=201)
        return _told(CertificateReply, self._sign(entry), status=201)

    @route("POST", r"/mpki/api/v1/certificate-pickup/([^/]+)")
    def pick_up(self, call: Call, number: str) -> Answer:
        """Hand out what was pending."""
        profile = str(_asked(PickupRequest, call.body).profile.id)
        for entry in self.entries:
            if entry.number == number and profile == entry.profile:
                entry.asked += 1
                waits = {"status": "PENDING", "request_id": number}
                if entry.refused:
                    return _told(CertificateReply, {**waits, "status": "REJECTED"})
                if entry.asked < 2:
                    return _told(CertificateReply, waits)
                return _told(CertificateReply, self._sign(entry))
        raise _refuse(404, "resource_not_found", "no such request")

    @route("GET", r"/mpki/api/v1/certificate-search")
    def search(self, call: Call) -> Answer:
        """Find certificates; without the certificates themselves."""
        wanted = _asked(SearchQuery, call.query)
        found = [
            details
            for each in self.entries
            if each.leaf is not None
            and wanted.common_name in ("", each.names[0])
            and str(wanted.profile_id or each.profile) == each.profile
            and (details := self._details(each))["status"] == (wanted.status or details["status"])
        ]
        shown = found[wanted.offset : wanted.offset + wanted.limit]
        page = {"total": len(found), "offset": wanted.offset, "limit": wanted.limit}
        return _told(Page, {**page, "items": shown})

    @route("GET", r"/mpki/api/v1/certificate/([0-9A-Fa-f]+)")
    def read(self, call: Call, serial: str) -> Answer:
        """Read one certificate."""
        entry = self.by_serial(serial)
        assert entry.leaf is not None
        text = base64.b64encode(entry.leaf.public_bytes(Encoding.DER)).decode()
        return _told(Details, {**self._details(entry), "certificate": text})

    @route("PUT", r"/mpki/api/v1/certificate/([0-9A-Fa-f]+)/revoke")
    def revoke(self, call: Call, serial: str) -> Answer:
        """Revoke one certificate; a second time is refused."""
        entry = self.by_serial(serial)
        reason = _asked(RevokeRequest, call.body).revocation_reason
        if entry.revoked:
            text = "Certificate already has been revoked"
            raise _refuse(400, "invalid_request", text)
        entry.revoked = reason
        return Answer(204)

    def _details(self, entry: Entry) -> dict[str, Any]:
        assert entry.leaf is not None
        shown: dict[str, Any] = {
            "profile": {"id": entry.profile, "name": "Web servers"},
            "seat": {"seat_id": entry.seat},
            "common_name": entry.names[0],
            "status": "revoked" if entry.revoked else "issued",
            "serial_number": _serial(entry.leaf),
            "valid_from": entry.leaf.not_valid_before_utc.isoformat(),
            "valid_to": entry.leaf.not_valid_after_utc.isoformat(),
        }
        if entry.revoked:
            now = datetime.now(UTC).isoformat()
            shown["revocation"] = {"reason": entry.revoked, "revocation_date": now}
        return shown

    def _sign(self, entry: Entry) -> dict[str, Any]:
        if entry.leaf is None:
            entry.leaf = self.ca.sign(entry.csr, entry.names)
        text = entry.leaf.public_bytes(PEM).decode()
        if self.form == "pkcs7":
            bag = [self.ca.root, entry.leaf, self.ca.intermediate]
            text = pkcs7.serialize_certificates(bag, PEM).decode()
        elif self.form == "pem" and entry.chain:
            text = self.ca.bundle(entry.leaf, root=True)
        return {
            "serial_number": _serial(entry.leaf),
            "delivery_format": "x509",
            "certificate": text,
            "status": "ISSUED",
            "request_id": entry.number,
        }

    def _must_be_known(self, number: str) -> None:
        if number not in (self.profile, self.slow_profile):
            code = "no_access" if self.unknown_profile == 403 else "resource_not_found"
            raise _refuse(self.unknown_profile, code, "no access, or no such profile")


@contextmanager
def digicert_one_api(domain: str) -> Iterator[DigicertOneApi]:
    """Run the imitation, which issues below *domain*."""
    service = DigicertOneApi(domain)
    with serving(service):
        yield service


def _serial(leaf: x509.Certificate) -> str:
    text = f"{leaf.serial_number:X}"
    return text if len(text) % 2 == 0 else f"0{text}"


def _asked(shape: type[_Shape], body: object) -> _Shape:
    """Return a request that is as the description has it; refuse any other."""
    try:
        return shape.model_validate(body)
    except ValidationError as exc:
        raise _refuse(400, "invalid_request", str(exc)) from None


def _told(shape: type[BaseModel], body: dict[str, Any], *, status: int = 200) -> Answer:
    """Return a reply that is as the description has it; own up to any other."""
    try:
        shape.model_validate(body)
    except ValidationError as exc:
        raise _refuse(500, "not_as_described", str(exc)) from None
    return Answer(status, body)


def _refuse(status: int, code: str, message: str) -> Refusal:
    return Refusal(Answer(status, {"errors": [{"code": code, "message": message}]}))
