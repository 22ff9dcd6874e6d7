"""An imitation of DigiCert ONE Trust Lifecycle Manager's REST API.

Modelled on the client of the official Terraform provider (GitHub
digicert/terraform-provider-digicert), "Error handling & rate limits" on
dev.digicert.com (shapes and codes of errors) and a client generated from the
API's description, as read in November 2026. Invented: the list of what a
search result holds, and the wording of most messages.
"""

from __future__ import annotations

import itertools
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.serialization import pkcs7

from tests.support.rest_server import Answer, Call, Refusal, RestService, route, serving
from tests.support.signing_ca import PEM, SigningCa

_FIELDS = {
    *("profile", "seat", "csr", "attributes", "validity", "delivery_format"),
    *("include_ca_chain", "tags"),
}


@dataclass
class Entry:
    """A certificate, or a request for one."""

    number: str
    names: list[str]
    csr: str
    profile: str
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
        form: ``pem`` with the whole chain, ``leaf`` for the leaf alone, or ``pkcs7``.
        bodies: of all requests for a certificate.
    """

    def __init__(self, domain: str) -> None:
        super().__init__()
        self.key = secrets.token_hex(20)
        self.profile, self.slow_profile = "a1b2-profile", "c3d4-slow"
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

    @route("GET", r"/mpki/api/v2/profile/([^/]+)")
    def read_profile(self, call: Call, number: str) -> Answer:
        """Read a profile."""
        self._must_be_known(number)
        return Answer(200, {"id": number, "name": "Web servers", "status": "ACTIVE"})

    @route("POST", r"/mpki/api/v1/certificate")
    def issue(self, call: Call) -> Answer:
        """Issue, with subject and names from the body."""
        body = call.body
        if not isinstance(body, dict) or set(body) - _FIELDS:
            raise _refuse(400, "invalid_request", "unknown fields")
        self.bodies.append(body)
        self._must_be_known(body["profile"]["id"])
        names = body["attributes"]["extensions"]["san"]["dns_names"]
        if not body["seat"]["seat_id"] or not body["attributes"]["subject"]["common_name"]:
            raise _refuse(400, "invalid_request", "seat_id and common_name are required")
        if any(not name.endswith(self.domain) for name in names):
            raise _refuse(400, "invalid_request", "the profile does not allow this domain")
        try:
            x509.load_pem_x509_csr(body["csr"].encode())
        except ValueError:
            raise _refuse(400, "invalid_csr", "the CSR cannot be read") from None
        entry = Entry(
            f"request-{next(self._numbers)}",
            names,
            body["csr"],
            body["profile"]["id"],
            bool(body.get("include_ca_chain")),
        )
        self.entries.append(entry)
        if entry.profile == self.slow_profile:
            return Answer(201, {"status": "PENDING", "request_id": entry.number})
        return Answer(201, self._sign(entry))

    @route("POST", r"/mpki/api/v1/certificate-pickup/([^/]+)")
    def pick_up(self, call: Call, number: str) -> Answer:
        """Hand out what was pending."""
        for entry in self.entries:
            if entry.number == number and call.body == {"profile": {"id": entry.profile}}:
                entry.asked += 1
                if entry.refused:
                    return Answer(200, {"status": "REJECTED", "request_id": number})
                if entry.asked < 2:
                    return Answer(200, {"status": "PENDING", "request_id": number})
                return Answer(200, self._sign(entry))
        raise _refuse(404, "resource_not_found", "no such request")

    @route("GET", r"/mpki/api/v1/certificate-search")
    def search(self, call: Call) -> Answer:
        """Find certificates by common name and profile; without the certificates themselves."""
        found = [
            {"serial_number": _serial(each.leaf), "status": "ISSUED"}
            for each in self.entries
            if each.leaf is not None
            and each.names[0] == call.query.get("common_name")
            and each.profile == call.query.get("profile_id")
        ]
        return Answer(200, {"total": len(found), "offset": 0, "items": found})

    @route("GET", r"/mpki/api/v1/certificate/([0-9A-Fa-f]+)")
    def read(self, call: Call, serial: str) -> Answer:
        """Read one certificate."""
        entry = self.by_serial(serial)
        status = "REVOKED" if entry.revoked else "ISSUED"
        return Answer(200, {**self._sign(entry), "status": status})

    @route("PUT", r"/mpki/api/v1/certificate/([0-9A-Fa-f]+)/revoke")
    def revoke(self, call: Call, serial: str) -> Answer:
        """Revoke one certificate; a second time is refused."""
        entry = self.by_serial(serial)
        if entry.revoked:
            text = "Certificate already has been revoked"
            raise _refuse(400, "invalid_request", text)
        entry.revoked = call.body["revocation_reason"]
        return Answer(204)

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
            raise _refuse(404, "resource_not_found", "no such profile")


@contextmanager
def digicert_one_api(domain: str) -> Iterator[DigicertOneApi]:
    """Run the imitation, which issues below *domain*."""
    service = DigicertOneApi(domain)
    with serving(service):
        yield service


def _serial(leaf: x509.Certificate) -> str:
    text = f"{leaf.serial_number:X}"
    return text if len(text) % 2 == 0 else f"0{text}"


def _refuse(status: int, code: str, message: str) -> Refusal:
    return Refusal(Answer(status, {"errors": [{"code": code, "message": message}]}))
