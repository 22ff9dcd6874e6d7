"""Orders at CertCentral."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import httpx

from blocks.ca.certcentral.api import (
    AlternateOrders,
    Api,
    Certificates,
    Me,
    Ordered,
    OrderInfo,
    OrderPage,
)
from blocks.ca.certcentral.domains import METHOD, Domains
from certrail.ca.answer import chain_of, common_name, is_csr_for, is_ip, key_digest
from certrail.connectors import CertificateAuthority, OffersRenewalInfo, ValidatesDomains
from certrail.errors import InvalidRequest, NotFound, PermissionRefused, Rejected, Throttled
from certrail.log import effect, logger, plain
from certrail.model import (
    Account,
    Authorization,
    Chain,
    Challenge,
    Csr,
    Order,
    OrderSpec,
    OrderStatus,
    RenewalInfo,
    RevocationReason,
    serial_text,
)
from certrail.names import parse_names
from certrail.remote import http
from certrail.wait import Pending

if TYPE_CHECKING:
    from blocks.ca.certcentral.block import CertCentral

_RENEWAL_WINDOW = timedelta(days=90)
_MOST_CANDIDATES = 50
_SLOWEST_POLL = 60.0
_REFERENCE = "alternative_order_id"
_DEAD = frozenset({"rejected", "denied", "canceled", "revoked", "expired"})
_WAITS_FOR = {
    "needs_approval": "an administrator has to approve it in CertCentral",
    "waiting_pickup": "it waits to be picked up",
    "reissue_pending": "the reissue waits for validation or approval",
    "pending": "it waits for validation or approval",
}


class CertCentralCa(CertificateAuthority, ValidatesDomains, OffersRenewalInfo):
    def __init__(self, client: httpx.Client, settings: CertCentral) -> None:
        self._settings = settings
        self._label = settings.label
        self._api = Api(client, settings.label, timedelta(seconds=settings.timeout))
        self._domains = Domains(
            self._api,
            label=settings.label,
            url=settings.url,
            organization=settings.organization_id,
            dcv_label=settings.dcv_label,
            poll=timedelta(seconds=settings.poll_interval),
        )

    def check(self) -> str:
        """Ask who the key belongs to."""
        me = self._me()
        return f"CertCentral answers; the key is that of {plain(me.email or me.username or me.id)}"

    def ensure_account(self) -> Account:
        me = self._me()
        contact = (f"mailto:{me.email}",) if me.email else ()
        return Account(f"{self._settings.url}/user/{me.id}", created=False, contact=contact)

    def open_order(self, spec: OrderSpec) -> Order:
        """Make the names known to the account; the order itself is placed with the CSR.

        Raises:
            InvalidRequest: a name is an IP address.
            Rejected: CertCentral does not take a domain.
        """
        names = [name.text for name in parse_names(spec.names)]
        if addresses := [name for name in names if is_ip(name)]:
            raise InvalidRequest(
                f"{self._label} cannot validate IP addresses by DNS: {', '.join(addresses)}",
                remedy="Order these names from another CA.",
            )
        product = spec.profile or self._settings.product
        data: dict[str, Any] = {"names": names, "product": product}
        if not product.startswith("private_"):
            data["domains"] = {name: self._domains.covering(name, product) for name in names}
        replaces = ""
        if spec.replaces and (previous := self._order_of(spec.replaces)) is not None:
            replaces, data["previous"] = spec.replaces, previous.id
            data["previous_ends"] = previous.order_valid_till
        return Order(spec.key, "", OrderStatus.READY, replaces=replaces, data=data)

    def reopen(self, order: Order) -> Order:
        if not order.remote_id:
            return order
        info = self._info(order.remote_id)
        status = OrderStatus.INVALID if info.status in _DEAD else OrderStatus.PROCESSING
        return replace(order, status=status)

    def authorizations(self, order: Order) -> tuple[Authorization, ...]:
        """Return the state of every name's domain; empty for private products."""
        domains: Mapping[str, int] = order.data.get("domains", {})
        return self._domains.authorizations(domains, order.data["product"])

    def respond(self, order: Order, challenge: Challenge) -> None:
        self._domains.look(challenge)

    def finalize(self, order: Order, csr: Csr) -> Order:
        """Place the order, or find the one that was placed with this CSR before.

        Raises:
            Rejected: CertCentral refuses the order.
        """
        if order.remote_id:
            return order
        digest = key_digest(csr.parsed.public_key())
        data = {**order.data, "key": digest, "ordered_at": datetime.now(UTC).timestamp()}
        found = self._find(order, digest)
        if found is None:
            found = self._place(order, csr)
            effect("ca.order", ca=self._label, order=found.id, names=",".join(data["names"]))
        if found.certificate_id:
            data["certificate"] = found.certificate_id
        return replace(order, remote_id=str(found.id), status=OrderStatus.PROCESSING, data=data)

    def collect(self, order: Order) -> Chain | Pending:
        if not order.remote_id:
            return Pending()
        try:
            return self._collect(order)
        except Throttled as exc:
            return Pending(exc.retry_after, why="CertCentral limits our requests")

    def revoke(self, chain: Chain, reason: RevocationReason) -> None:
        serial = _serial(chain)
        body = {
            "revocation_reason": str(reason),
            "comments": "Revoked by Certrail.",
            "skip_approval": self._settings.skip_approval,
        }
        try:
            reply = self._api.call("PUT", f"certificate/{serial}/revoke", body)
        except Rejected:
            present = self._order_of(serial)
            if present is None or present.status != "revoked":
                raise
            return
        if reply.status_code != httpx.codes.NO_CONTENT:
            logger.warning("%s: the revocation of %s waits for approval", self._label, serial)
        effect("ca.revoke", ca=self._label, serial=serial, reason=reason)

    def renewal_info(self, chain: Chain) -> RenewalInfo | None:
        """Return None: the API suggests no time."""
        return None

    def replaces_id(self, chain: Chain) -> str:
        return _serial(chain)

    def _me(self) -> Me:
        return http.json_of(self._api.call("GET", "user/me"), Me)

    def _info(self, number: object) -> OrderInfo:
        reply = self._api.call("GET", f"order/certificate/{quote(str(number), safe='')}")
        return http.json_of(reply, OrderInfo)

    def _order_of(self, serial: str) -> OrderInfo | None:
        try:
            return self._info(serial)
        except (NotFound, Rejected) as exc:
            logger.info("%s: no order of CertCentral has serial %s: %s", self._label, serial, exc)
            return None

    def _find(self, order: Order, digest: str) -> Ordered | None:
        """Return the order that was placed with the key *digest*, if a reply was lost."""
        if "previous" in order.data and self._settings.replacing != "renew":
            number = order.data["previous"]
            path = f"order/certificate/{number}/{self._settings.replacing}"
            for each in http.json_of(self._api.call("GET", path), Certificates).certificates:
                if is_csr_for(each.csr, digest):
                    return Ordered(id=number, certificate_id=each.id)
            return None
        return self._find_by_reference(order, digest) or self._find_by_name(order, digest)

    def _find_by_reference(self, order: Order, digest: str) -> Ordered | None:
        """Return the order with our reference, if it is for our CSR."""
        path = f"order/alternate/{quote(order.key, safe='')}"
        try:
            listed = http.json_of(self._api.call("GET", path), AlternateOrders)
        except (NotFound, PermissionRefused, Rejected):
            return None  # no such order, or an account without alternative order ids
        for candidate in listed.orders:
            number = candidate.order_id
            if candidate.status not in _DEAD and self._is_for(number, digest):
                return Ordered(id=number)
        return None

    def _find_by_name(self, order: Order, digest: str) -> Ordered | None:
        """Return the order for our CSR among the newest with the common name.

        It may have been placed without our reference.
        """
        params = {
            "filters[common_name]": _common_name(order),
            "sort": "-date_created",
            "limit": _MOST_CANDIDATES,
        }
        listed = http.json_of(self._api.call("GET", "order/certificate", params=params), OrderPage)
        for candidate in listed.orders:
            if candidate.status not in _DEAD and self._is_for(candidate.id, digest):
                return Ordered(id=candidate.id)
        return None

    def _is_for(self, number: int, digest: str) -> bool:
        return is_csr_for(self._info(number).certificate.csr, digest)

    def _place(self, order: Order, csr: Csr) -> Ordered:
        settings, names = self._settings, order.data["names"]
        subject = _common_name(order)
        certificate: dict[str, Any] = {
            "common_name": subject,
            # The API does not read names from the CSR.
            "dns_names": [name for name in names if name != subject],
            "csr": csr.pem,
            "signature_hash": "sha256",
            "cert_validity": {"days": settings.validity_days},
        }
        if settings.ca_cert_id:
            certificate["ca_cert_id"] = settings.ca_cert_id
        comments = f"Certrail {order.key}"
        if "previous" in order.data and settings.replacing != "renew":
            path = f"order/certificate/{order.data['previous']}/{settings.replacing}"
            body: dict[str, Any] = {"certificate": certificate, "comments": comments}
            if settings.replacing == "reissue":
                body["skip_approval"] = settings.skip_approval
            return http.json_of(self._api.call("POST", path, body), Ordered)
        body = {
            "certificate": certificate,
            "organization": {"id": settings.organization_id},
            "order_validity": {"years": settings.order_years},
            "payment_method": settings.payment_method,
            "skip_approval": settings.skip_approval,
            "disable_renewal_notifications": True,
            "comments": comments,
        }
        if "domains" in order.data:
            body["dcv_method"] = METHOD
        if settings.container_id:
            body["container"] = {"id": settings.container_id}
        if "previous" in order.data and _ends_soon(order.data.get("previous_ends", "")):
            body["renewal_of_order_id"] = order.data["previous"]
        path = f"order/certificate/{quote(order.data['product'], safe='')}"
        try:
            reply = self._api.call("POST", path, {**body, _REFERENCE: order.key})
        except (PermissionRefused, Rejected) as exc:
            # Nothing was ordered. Where the account has no such ids, the CSR has to do.
            if _REFERENCE not in f"{exc.code} {exc}":
                raise
            logger.info("%s: ordered without our reference: %s", self._label, exc)
            reply = self._api.call("POST", path, body)
        return http.json_of(reply, Ordered)

    def _collect(self, order: Order) -> Chain | Pending:
        info = self._info(order.remote_id)
        number = order.data.get("certificate") or info.certificate.id
        if info.status in _DEAD and not (info.status == "revoked" and number):
            raise Rejected(
                f"{self._label}: CertCentral gave up on order {order.remote_id}: "
                f"it is {plain(info.status)}",
                remedy="Look at the order's notes in CertCentral, then start the request anew.",
                connector=self._label,
                code=plain(info.status),
            )
        if info.status != "issued" or number is None:
            why = _WAITS_FOR.get(info.status, f"it is {plain(info.status)}")
            return Pending(self._pause(order), why)
        try:
            reply = self._api.call("GET", f"certificate/{number}/download/format/pem_noroot")
        except NotFound:
            # A reissue or duplicate has a number before there is a certificate.
            if "certificate" not in order.data:
                raise
            return Pending(self._pause(order), "the new certificate of the order is being made")
        chain = chain_of([reply.text], self._label)
        if key_digest(chain.leaf.public_key()) != order.data["key"]:
            # Until a reissue is done, the order shows the certificate before it.
            return Pending(
                self._pause(order), "the order still holds a certificate for another key"
            )
        return chain

    def _pause(self, order: Order) -> timedelta:
        """Return a wait that grows with the order's age: an approval may take days."""
        age = datetime.now(UTC).timestamp() - float(order.data.get("ordered_at", 0))
        wait = max(self._settings.poll_interval, min(age / 4, _SLOWEST_POLL))
        return timedelta(seconds=wait)


def _common_name(order: Order) -> str:
    return common_name(order.data["names"]) or str(order.data["names"][0])


def _ends_soon(day: str) -> bool:
    """Return whether an order ends within the time that it can be renewed in."""
    try:
        return datetime.fromisoformat(day).replace(tzinfo=UTC) - datetime.now(UTC) < _RENEWAL_WINDOW
    except ValueError:
        return False


def _serial(chain: Chain) -> str:
    return serial_text(chain.leaf).replace(":", "").upper()
