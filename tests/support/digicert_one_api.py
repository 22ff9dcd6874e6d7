"""An imitation of DigiCert ONE Trust Lifecycle Manager's REST API.

Requests and replies are held against the API's published description
(``digicert_one.yaml``): a request that it does not allow is refused, a reply of ours
that it does not allow ends in status 500. A client that other people's program makes of
that description goes through a certificate's life in ``test_digicert_one_clients.py``,
where the requests of further clients are tried as well.
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
from pathlib import Path
from typing import Any
from uuid import uuid4

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, pkcs7

from tests.support.description import Description
from tests.support.rest_server import Answer, Call, Refusal, RestService, route, serving
from tests.support.signing_ca import PEM, SigningCa

PUBLISHED = Path(__file__).with_name("digicert_one.yaml")
_DESCRIPTION = Description(PUBLISHED)
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
    form: str
    days: int
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
        if wrong := _DESCRIPTION.wrong_request(call.method, call.path, call.query, call.body):
            raise _refuse(400, "invalid_request", wrong)

    def answer(self, call: Call) -> Answer:
        answer = super().answer(call)
        wrong = _DESCRIPTION.wrong_reply(call.method, call.path, answer.status, answer.body)
        return _refuse(500, "not_as_described", wrong).answer if wrong else answer

    @route("GET", r"/mpki/api/v1/hello")
    def hello(self, call: Call) -> Answer:
        """Say that it is there."""
        return Answer(200, HELLO)

    @route("GET", r"/mpki/api/v2/profile/([^/]+)")
    def read_profile(self, call: Call, number: str) -> Answer:
        """Read a profile."""
        self._must_be_known(number)
        waits = number == self.slow_profile
        shown = {
            "id": number,
            "name": "Web servers",
            "status": "Active",
            "certificate_delivery_format": "PKCS7" if self.form == "pkcs7" else "X509",
            "enrollment_method": "rest_api",
            "authentication_method": "manual_approval" if waits else "third_party_app",
            "override_cert_validity_via_api": True,
        }
        return Answer(200, shown)

    @route("POST", r"/mpki/api/v1/certificate")
    def issue(self, call: Call) -> Answer:
        """Issue, with subject and names from the body; without names, for the common name."""
        asked = call.body
        self.bodies.append(asked)
        profile, seat = asked["profile"]["id"], asked.get("seat", {}).get("seat_id", "")
        self._must_be_known(profile)
        attributes = asked.get("attributes", {})
        subject = attributes.get("subject", {}).get("common_name", "")
        san = attributes.get("extensions", {}).get("san", {})
        names = san.get("dns_names") or [subject]
        if not seat or not subject:
            raise _refuse(400, "invalid_request", "seat_id and common_name are required")
        if any(not name.endswith(self.domain) for name in names):
            raise _refuse(400, "invalid_request", "the profile does not allow this domain")
        validity = asked.get("validity", {"unit": "days", "duration": 30})
        if validity["unit"] != "days":
            raise _refuse(400, "invalid_request", "this imitation counts in days")
        csr = asked["csr"]
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
            profile,
            seat,
            asked.get("include_ca_chain", False),
            "PKCS7" if self.form == "pkcs7" else asked.get("delivery_format", "x509"),
            validity["duration"],
        )
        self.entries.append(entry)
        if entry.profile == self.slow_profile:
            pending = {"status": "PENDING", "request_id": entry.number}
            return Answer(201, pending)
        return Answer(201, self._sign(entry))

    @route("POST", r"/mpki/api/v1/certificate-pickup/([^/]+)")
    def pick_up(self, call: Call, number: str) -> Answer:
        """Hand out what was pending."""
        profile = call.body["profile"]["id"]
        for entry in self.entries:
            if entry.number == number and profile == entry.profile:
                entry.asked += 1
                waits = {"status": "PENDING", "request_id": number}
                if entry.refused:
                    return Answer(200, {**waits, "status": "REJECTED"})
                if entry.asked < 2:
                    return Answer(200, waits)
                return Answer(200, self._sign(entry))
        raise _refuse(404, "resource_not_found", "no such request")

    @route("GET", r"/mpki/api/v1/certificate-search")
    def search(self, call: Call) -> Answer:
        """Find certificates; without the certificates themselves."""
        wanted = call.query
        offset, limit = int(wanted.get("offset", 0)), int(wanted.get("limit", 20))
        given = {name: text for name, text in wanted.items() if name not in ("offset", "limit")}
        found = [self._details(each) for each in self.entries if each.leaf is not None]
        found = [each for each in found if all(_has(each, *pair) for pair in given.items())]
        page = {"total": len(found), "offset": offset, "limit": limit}
        return Answer(200, {**page, "items": found[offset : offset + limit]})

    @route("GET", r"/mpki/api/v1/certificate/([0-9A-Fa-f]+)")
    def read(self, call: Call, serial: str) -> Answer:
        """Read one certificate."""
        entry = self.by_serial(serial)
        assert entry.leaf is not None
        text = base64.b64encode(entry.leaf.public_bytes(Encoding.DER)).decode()
        return Answer(200, {**self._details(entry), "certificate": text})

    @route("PUT", r"/mpki/api/v1/certificate/([0-9A-Fa-f]+)/revoke")
    def revoke(self, call: Call, serial: str) -> Answer:
        """Revoke one certificate; a second time is refused."""
        entry = self.by_serial(serial)
        if entry.revoked:
            text = "Certificate already has been revoked"
            raise _refuse(400, "invalid_request", text)
        entry.revoked = call.body["revocation_reason"]
        return Answer(204)

    def _details(self, entry: Entry) -> dict[str, Any]:
        assert entry.leaf is not None
        shown: dict[str, Any] = {
            "profile": {"id": entry.profile, "name": "Web servers"},
            "seat": {"seat_id": entry.seat},
            "common_name": entry.names[0],
            "status": "revoked" if entry.revoked else "issued",
            "serial_number": _serial(entry.leaf),
            "valid_from": _moment(entry.leaf.not_valid_before_utc),
            "valid_to": _moment(entry.leaf.not_valid_after_utc),
        }
        if entry.revoked:
            now = _moment(datetime.now(UTC))
            shown["revocation"] = {"reason": entry.revoked, "revocation_date": now}
        return shown

    def _sign(self, entry: Entry) -> dict[str, Any]:
        if entry.leaf is None:
            entry.leaf = self.ca.sign(entry.csr, entry.names, entry.days)
        text = entry.leaf.public_bytes(PEM).decode()
        if entry.form == "PKCS7":
            bag = [self.ca.root, entry.leaf, self.ca.intermediate]
            text = pkcs7.serialize_certificates(bag, PEM).decode()
        elif self.form != "leaf" and entry.chain:
            text = self.ca.bundle(entry.leaf, root=True)
        return {
            "serial_number": _serial(entry.leaf),
            "delivery_format": "PKCS7" if entry.form == "PKCS7" else "x509",
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


def _moment(when: datetime) -> str:
    return when.strftime("%Y-%m-%dT%H:%M:%SZ")


def _has(shown: dict[str, Any], name: str, text: str) -> bool:
    """Return whether a certificate is what a parameter of the search asks for."""
    if name in ("profile_id", "seat_id"):
        return bool(shown[name.removesuffix("_id")][name.removeprefix("profile_")] == text)
    return str(shown[name]).lower() == text.lower()


def _refuse(status: int, code: str, message: str) -> Refusal:
    return Refusal(Answer(status, {"errors": [{"code": code, "message": message}]}))
