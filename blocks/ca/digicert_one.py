"""DigiCert ONE Trust Lifecycle Manager through its REST API.

Read for it, November 2026: the client in the official Terraform provider
(GitHub digicert/terraform-provider-digicert: issue, pick up, revoke, profile),
"Error handling & rate limits" on dev.digicert.com, "REST API enrollment guide"
on docs.digicert.com, and the API's own OpenAPI document ("Enterprise PKI Manager
REST API" 1.0.0, kept beside a client generated from it, GitHub
wanmail/digicert-mpki: validity, search, details, revocation reasons). The service
itself was not at hand: what has been run is our imitation of it, which holds both
sides against that document. Not verified: whether a serial number may be given
in small letters, whether search results have the certificates in them.

The API has no reference of ours. A certificate whose reply was lost is found
by its common name and recognized by its key. A request that was still
pending then cannot be found and is made again.
"""

from __future__ import annotations

import base64
import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from typing import Any
from urllib.parse import quote

import httpx
from cryptography.hazmat.primitives.serialization import Encoding, pkcs7
from pydantic import BaseModel, Field, SecretStr

from blocks._base import CaBlock, open_secret
from certrail.ca.answer import (
    chain_of,
    common_name,
    ip_addresses,
    key_digest,
    must_be_for,
    refusal,
)
from certrail.connectors import CertificateAuthority
from certrail.errors import (
    InvalidRequest,
    NotFound,
    PermissionRefused,
    Rejected,
    UnexpectedReply,
)
from certrail.log import effect, logger, plain
from certrail.model import (
    UNREADABLE,
    Chain,
    Csr,
    Order,
    OrderSpec,
    OrderStatus,
    RevocationReason,
    serial_text,
)
from certrail.names import parse_names
from certrail.remote import http
from certrail.wait import Pending

_MOST_CANDIDATES = 50
_REASONS = {
    RevocationReason.UNSPECIFIED: "unspecified",
    RevocationReason.KEY_COMPROMISE: "key_compromise",
    RevocationReason.AFFILIATION_CHANGED: "affiliation_changed",
    RevocationReason.SUPERSEDED: "superseded",
    RevocationReason.CESSATION_OF_OPERATION: "cessation_of_operation",
}


class DigicertOne(CaBlock):
    """Issue through a certificate profile of DigiCert ONE Trust Lifecycle Manager.

    The profile needs the enrollment method REST API with authentication by a third
    party application, and subject and names taken from the REST request. A profile's
    ca_profile names another one by its id.
    """

    _block_type_name = "Certrail CA: DigiCert ONE"
    _block_type_slug = "ca-digicert-one"

    url: str = Field(
        default="https://one.digicert.com", description="Address of the DigiCert ONE instance."
    )
    api_key: SecretStr = Field(description="API token of a service user (x-api-key).")
    profile_id: str = Field(min_length=1, description="Id of the certificate profile.")
    seat_id: str = Field(
        default="", description="Seat that certificates are assigned to; the first name if empty."
    )
    validity_days: int | None = Field(
        default=None,
        ge=1,
        le=3650,
        description="Validity asked for, where the profile allows that; else the profile's own.",
    )
    issuers: str = Field(
        default="",
        description="Intermediate certificates (PEM) to add where the API sends the leaf alone.",
    )
    ca_bundle: str = Field(
        default="", description="CA certificates (path or PEM) for the API; empty: system."
    )
    timeout: int = Field(default=30, ge=1, le=120, description="Seconds the API may take.")

    @contextmanager
    def connect(self) -> Iterator[CertificateAuthority]:
        """Open the CA."""
        with http.client(
            self.url.rstrip("/") + "/mpki/api/",
            headers={"x-api-key": open_secret(self.api_key), "Accept": "application/json"},
            ca_bundle=self.ca_bundle,
            timeout=timedelta(seconds=self.timeout),
        ) as client:
            yield _DigicertOne(client, self)


class _Profile(BaseModel):
    name: str
    status: str = ""


class _Issued(BaseModel):
    status: str
    certificate: str = ""
    request_id: str = ""


class _Details(BaseModel):
    serial_number: str = ""
    certificate: str = ""
    status: str = ""


class _Found(BaseModel):
    items: list[_Details]


class _DigicertOne(CertificateAuthority):
    def __init__(self, client: httpx.Client, settings: DigicertOne) -> None:
        self._client = client
        self._settings = settings
        self._label = settings.label

    def check(self) -> str:
        """Read the profile."""
        number = self._settings.profile_id
        reply = self._call("GET", f"v2/profile/{quote(number, safe='')}")
        profile = http.json_of(reply, _Profile)
        state = f" ({plain(profile.status.lower())})" if profile.status else ""
        return f"Trust Lifecycle Manager answers; the profile is {plain(profile.name)}{state}"

    def open_order(self, spec: OrderSpec) -> Order:
        names = [name.text for name in parse_names(spec.names)]
        if addresses := ip_addresses(names):
            raise InvalidRequest(
                f"{self._label} does not order IP addresses: {', '.join(addresses)}",
                remedy="Order these names from another CA.",
            )
        data = {"names": names, "profile": spec.profile or self._settings.profile_id}
        return Order(spec.key, "", OrderStatus.READY, data=data)

    def reopen(self, order: Order) -> Order:
        return order

    def finalize(self, order: Order, csr: Csr) -> Order:
        """Issue, or find what was issued for this CSR before.

        Raises:
            Rejected: the profile does not allow it.
            NotFound: there is no such profile.
        """
        if order.status is not OrderStatus.READY:
            return order
        chain = self._find(order, csr)
        if chain is None:
            reply = self._call("POST", "v1/certificate", self._request(order, csr))
            issued = http.json_of(reply, _Issued)
            if not issued.certificate:
                if issued.status.upper() != "PENDING" or not issued.request_id:
                    raise self._unexpected(f"the status is {plain(issued.status)}")
                effect("ca.order", ca=self._label, order=issued.request_id)
                data = {**order.data, "key": key_digest(csr.parsed.public_key())}
                return replace(
                    order,
                    remote_id=issued.request_id,
                    status=OrderStatus.PROCESSING,
                    data=data,
                )
            chain = self._chain(issued.certificate, order, csr)
            names = ",".join(order.data["names"])
            effect("ca.issue", ca=self._label, serial=serial_text(chain.leaf), names=names)
        return replace(
            order,
            remote_id=_serial(chain),
            status=OrderStatus.VALID,
            data={**order.data, "chain": list(chain.pems)},
        )

    def collect(self, order: Order) -> Chain | Pending:
        if "chain" in order.data:
            return Chain(tuple(order.data["chain"]))
        if order.status is OrderStatus.READY:
            return Pending()
        path = f"v1/certificate-pickup/{quote(order.remote_id, safe='')}"
        reply = self._call("POST", path, {"profile": {"id": order.data["profile"]}})
        issued = http.json_of(reply, _Issued)
        status = issued.status.upper()
        if issued.certificate:
            chain = self._chain(issued.certificate, order)
            if key_digest(chain.leaf.public_key()) != order.data["key"]:
                raise self._unexpected("the certificate is for another key")
            return chain
        if status != "PENDING":
            raise Rejected(
                f"{self._label}: the request {plain(order.remote_id)} is {plain(issued.status)}",
                remedy="Look at the request in Trust Lifecycle Manager, then start a new one.",
                connector=self._label,
                code=plain(issued.status),
            )
        return Pending(why="it waits for approval or for the issuing CA")

    def revoke(self, chain: Chain, reason: RevocationReason) -> None:
        serial = _serial(chain)
        path = f"v1/certificate/{serial}"
        try:
            self._call("PUT", f"{path}/revoke", {"revocation_reason": _REASONS[reason]})
        except Rejected:
            details = http.json_of(self._call("GET", path), _Details)
            if details.status.upper() != "REVOKED":
                raise
            return
        effect("ca.revoke", ca=self._label, serial=serial, reason=reason)

    def _find(self, order: Order, csr: Csr) -> Chain | None:
        """Return what was issued for the CSR's key, if its reply was lost."""
        params = {
            "common_name": common_name(order.data["names"]) or order.data["names"][0],
            "profile_id": order.data["profile"],
            "limit": _MOST_CANDIDATES,
        }
        reply = self._call("GET", "v1/certificate-search", params=params)
        digest = key_digest(csr.parsed.public_key())
        for item in http.json_of(reply, _Found).items:
            pem = item.certificate
            if not pem and item.serial_number:
                path = f"v1/certificate/{quote(item.serial_number, safe='')}"
                pem = http.json_of(self._call("GET", path), _Details).certificate
            if not pem:
                continue
            try:
                leaf = chain_of(_pems(pem), self._label).leaf
            except UnexpectedReply as exc:
                # Others may be for the name, imported from anywhere; ours is readable.
                logger.warning("%s: certificate %s: %s", self._label, item.serial_number, exc)
                continue
            if key_digest(leaf.public_key()) == digest:
                return self._chain(pem, order, csr)
        return None

    def _request(self, order: Order, csr: Csr) -> dict[str, Any]:
        names = order.data["names"]
        subject = common_name(names) or names[0]
        body: dict[str, Any] = {
            "profile": {"id": order.data["profile"]},
            "seat": {"seat_id": self._settings.seat_id or subject},
            "csr": csr.pem,
            "attributes": {
                "subject": {"common_name": subject},
                "extensions": {"san": {"dns_names": names}},
            },
            "delivery_format": "x509",
            "include_ca_chain": True,
        }
        if self._settings.validity_days:
            body["validity"] = {"unit": "days", "duration": self._settings.validity_days}
        return body

    def _chain(self, text: str, order: Order, csr: Csr | None = None) -> Chain:
        chain = chain_of([*_pems(text), self._settings.issuers], self._label, csr)
        remedy = "Let the profile take the names from the REST request, all of them."
        must_be_for(chain, order.data["names"], self._label, remedy)
        return chain

    def _call(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        params: Mapping[str, Any] | None = None,
    ) -> httpx.Response:
        content: dict[str, Any] = {} if body is None else {"json": dict(body)}
        try:
            reply = http.send(
                self._client,
                self._label,
                method,
                path,
                accept=(400, 422),
                deadline=timedelta(seconds=self._settings.timeout),
                params=dict(params) if params else None,
                **content,
            )
        except NotFound as exc:
            raise NotFound(
                str(exc),
                remedy="Check the profile's id and that the address is that of its instance.",
                connector=self._label,
                code=exc.code,
            ) from exc
        except PermissionRefused as exc:
            raise PermissionRefused(
                str(exc),
                remedy="Check the profile's id, and that the token's user may use the profile: "
                "the service answers the same to both.",
                connector=self._label,
                code=exc.code,
            ) from exc
        if reply.is_success:
            return reply
        raise refusal(
            reply,
            f"{method} {path}",
            self._label,
            remedy="Compare the request with what the certificate profile allows.",
            secret=self._client.headers.get("x-api-key", ""),
        )

    def _unexpected(self, why: str) -> UnexpectedReply:
        return UnexpectedReply(f"{self._label}: {why}", connector=self._label)


def _pems(text: str) -> list[str]:
    """Return the certificates of *text*: PEM, PKCS #7 in PEM, or one in Base64 without a frame.

    The last is how certificates are shown that were issued before.

    Raises:
        UnexpectedReply: it is none of these.
    """
    if "-----BEGIN" not in text:
        try:
            return [ssl.DER_cert_to_PEM_cert(base64.b64decode(text, validate=True))]
        except ValueError as exc:
            raise UnexpectedReply("the certificate is neither PEM nor Base64") from exc
    if "-----BEGIN PKCS7-----" not in text:
        return [text]
    try:
        found = pkcs7.load_pem_pkcs7_certificates(text.encode())
    except UNREADABLE as exc:
        raise UnexpectedReply("the certificate is not readable as PKCS #7") from exc
    return [each.public_bytes(Encoding.PEM).decode() for each in found]


def _serial(chain: Chain) -> str:
    return serial_text(chain.leaf).replace(":", "").upper()
