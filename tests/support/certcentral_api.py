"""An imitation of DigiCert CertCentral's Services API, version 2.

Modelled on pages of dev.digicert.com as read in November 2026: "List orders",
"Get orders
by alternative order ID", "Order info", "Order OV/EV SSL", "Reissue certificate", "Duplicate
certificate", "Revoke certificate", "Download certificate by format", "Add
domain", "Submit for validation", "Domain info", "List domains", "Check domain
DCV", "OV/EV SSL: Generate DCV token", "Rate limits". Invented, since those
pages do not say: the codes of most errors, and that a wrong key is answered
with 401.

What it is strict about: unknown or missing fields of an order, names only from
the body, products and organizations of the account, approval, domains that are
not validated (the order stays pending), a rate limit for each key.
"""

from __future__ import annotations

import itertools
import secrets
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from cryptography import x509

from tests.support.rest_server import Answer, Call, Refusal, RestService, route, serving
from tests.support.signing_ca import SigningCa

_ORDER_FIELDS = {
    *("certificate", "organization", "order_validity", "payment_method", "skip_approval"),
    *("disable_renewal_notifications", "comments", "dcv_method", "container"),
    "renewal_of_order_id",
    "alternative_order_id",
}
_CERTIFICATE_FIELDS = {
    *("common_name", "dns_names", "csr", "signature_hash", "cert_validity", "ca_cert_id"),
}


@dataclass
class Issue:
    """A certificate that was asked for."""

    id: int
    names: list[str]
    csr: str
    leaf: x509.Certificate | None = None
    approved: bool = False
    revoked: str = ""


@dataclass
class PlacedOrder:
    """An order: its first certificate, reissues and duplicates."""

    id: int
    product: str
    body: dict[str, Any]
    created: datetime
    ends: datetime
    issues: list[Issue] = field(default_factory=list)
    duplicates: list[Issue] = field(default_factory=list)
    dead: str = ""


@dataclass
class KnownDomain:
    """A domain of the account."""

    id: int
    name: str
    token: str = ""
    token_ends: datetime | None = None
    method: str = ""
    submitted: set[str] = field(default_factory=set)
    proven_until: datetime | None = None


class CertCentralApi(RestService):
    """The service.

    Attributes:
        key: the good API key.
        viewer_key: a key that may only read.
        organization: the one id that is validated.
        txt: looks up TXT values at a name.
        slow: how many times an order is asked for before it is issued.
        limit: calls within five seconds.
        alternative_ids: whether the account may give orders ids of its own.
    """

    prefix = "/services/v2"

    def __init__(self, txt: Callable[[str], set[str]]) -> None:
        super().__init__()
        self.key, self.viewer_key = secrets.token_hex(20), secrets.token_hex(20)
        self.organization = 4711
        self.products = {"ssl_basic", "ssl_ev_basic", "private_ssl_flex"}
        self.txt = txt
        self.slow = 1
        self.limit = 100_000
        self.ca = SigningCa("Imitated DigiCert")
        self.orders: dict[int, PlacedOrder] = {}
        self.domains: dict[int, KnownDomain] = {}
        self.may_skip_approval = True
        self.alternative_ids = True
        self._numbers = itertools.count(1001)
        self._asked: dict[int, int] = {}
        self._recent: deque[float] = deque()

    @property
    def base(self) -> str:
        """What the connector is given as its address."""
        return self.url + self.prefix

    def issued(self, name: str) -> int:
        """Return how many certificates for *name* exist."""
        every = [i for o in self.orders.values() for i in (*o.issues, *o.duplicates)]
        return sum(name in each.names for each in every)

    def approve(self, number: int) -> None:
        """Let an order pass, as an administrator does."""
        for each in (*self.orders[number].issues, *self.orders[number].duplicates):
            each.approved = True

    def reject(self, number: int) -> None:
        """Refuse an order, as an administrator does."""
        self.orders[number].dead = "rejected"

    def by_serial(self, serial: str) -> tuple[PlacedOrder, Issue]:
        """Find a certificate by its serial number, or by its id as "Revoke certificate" has it."""
        for order in self.orders.values():
            for each in (*order.issues, *order.duplicates):
                if each.leaf is None:
                    continue
                if serial == str(each.id) or each.leaf.serial_number == int(serial, 16):
                    return order, each
        raise _refuse(404, "not_found", "no such certificate")

    def enter(self, call: Call) -> None:
        key = call.headers.get("x-dc-devkey", "")
        if key not in (self.key, self.viewer_key):
            raise _refuse(401, "invalid_api_key", "the API key is not valid")
        now = time.monotonic()
        while self._recent and self._recent[0] < now - 5:
            self._recent.popleft()
        if len(self._recent) >= self.limit:
            text = "Service unavailable, please limit request volume"
            raise _refuse(429, "request_limit_exceeded", text)
        self._recent.append(now)
        if key == self.viewer_key and call.method != "GET":
            raise _refuse(403, "access_denied", "this key may only read")

    @route("GET", r"/services/v2/user/me")
    def me(self, call: Call) -> Answer:
        """Whose key it is."""
        return Answer(200, {"id": 7, "username": "robot", "email": "robot@example.test"})

    @route("GET", r"/services/v2/domain")
    def list_domains(self, call: Call) -> Answer:
        """Domains by exact name (or by ending, with a percent sign)."""
        wanted = call.query.get("filters[search]", "%")
        found = [
            self._domain(each)
            for each in self.domains.values()
            if each.name == wanted or (wanted[0] == "%" and each.name.endswith(wanted[1:]))
        ]
        page = {"total": len(found), "limit": 1000, "offset": 0}
        return Answer(200, {"domains": found, "page": page})

    @route("POST", r"/services/v2/domain")
    def add_domain(self, call: Call) -> Answer:
        """Add one; a name with a wildcard or of somebody else is refused."""
        body = _whole(call.body, {"name", "organization", "validations", "dcv_method"})
        self._must_be_ours(body)
        name = body["name"]
        if "*" in name or name.endswith("foreign.test"):
            raise _refuse(400, "invalid_domain_name", f"{name} cannot be added")
        if any(each.name == name for each in self.domains.values()):
            raise _refuse(400, "domain_exists", "the domain exists already")
        domain = KnownDomain(next(self._numbers), name)
        self.domains[domain.id] = domain
        self._submit(domain, body)
        return Answer(201, {"id": domain.id, "dcv_token": _token(domain)})

    @route("GET", r"/services/v2/domain/(\d+)")
    def domain_info(self, call: Call, number: str) -> Answer:
        """One domain, with token and validations only where asked for."""
        return Answer(200, self._domain(self._known(number), call.query))

    @route("POST", r"/services/v2/domain/(\d+)/validation")
    def submit(self, call: Call, number: str) -> Answer:
        """Submit a domain for validation."""
        self._submit(self._known(number), _whole(call.body, {"validations", "dcv_method"}))
        return Answer(204)

    @route("POST", r"/services/v2/domain/(\d+)/dcv/token")
    def new_token(self, call: Call, number: str) -> Answer:
        """Make a new token."""
        domain = self._known(number)
        if domain.method != "dns-txt-token":
            raise _refuse(400, "invalid_dcv_method", "the method needs no token")
        _renew(domain)
        return Answer(201, {k: v for k, v in _token(domain).items() if k != "status"})

    @route("PUT", r"/services/v2/domain/(\d+)/dcv/validate-token")
    def check_dcv(self, call: Call, number: str) -> Answer:
        """Look for the record, at the domain and at ``_dnsauth`` below it."""
        domain = self._known(number)
        found = self.txt(domain.name) | self.txt(f"_dnsauth.{domain.name}")
        if not domain.token or domain.token not in found:
            raise _refuse(400, "invalid_dns_txt", "the random value was not found")
        domain.proven_until = datetime.now(UTC) + timedelta(days=199)
        return Answer(200, {"token": domain.token, "status": "active"})

    @route("GET", r"/services/v2/order/certificate")
    def list_orders(self, call: Call) -> Answer:
        """Orders by common name, newest first where asked; without CSR, as documented."""
        wanted = call.query.get("filters[common_name]")
        found = [o for o in self.orders.values() if wanted in (None, o.issues[-1].names[0])]
        found.sort(key=lambda o: o.id, reverse=call.query.get("sort") == "-date_created")
        limit, offset = int(call.query.get("limit", 1000)), int(call.query.get("offset", 0))
        shown = [self._order(each, csr=False) for each in found]
        status = call.query.get("filters[status]")
        shown = [each for each in shown if status in (None, each["status"])]
        page = {"total": len(shown), "limit": limit, "offset": offset}
        return Answer(200, {"orders": shown[offset : offset + limit], "page": page})

    @route("GET", r"/services/v2/order/alternate/([^/]+)")
    def by_alternative_id(self, call: Call, wanted: str) -> Answer:
        """Orders with an id of the account's own; it need not be unique."""
        if not self.alternative_ids:
            raise _refuse(404, "not_found", "no such path")
        found = [o for o in self.orders.values() if o.body.get("alternative_order_id") == wanted]
        shown = [{"order_id": o.id, "status": self._order(o, csr=False)["status"]} for o in found]
        for each, order in zip(shown, found, strict=True):
            if order.issues[-1].leaf is not None:
                each["certificate_id"] = order.issues[-1].id
        page = {"total": len(found), "limit": 1000, "offset": 0}
        return Answer(200, {"orders": shown, "page": page})

    @route("POST", r"/services/v2/order/certificate/([a-z0-9_]+)")
    def place(self, call: Call, product: str) -> Answer:
        """Place an order."""
        if product not in self.products:
            raise _refuse(400, "invalid_product_name_id", f"{product} is not in your account")
        body = _whole(call.body, _ORDER_FIELDS, optional=True)
        self._must_be_ours(body)
        if "alternative_order_id" in body and not self.alternative_ids:
            text = "alternative_order_id is not enabled for your account"
            raise _refuse(400, "invalid_parameter", text)
        for wanted in ("certificate", "order_validity", "payment_method"):
            if wanted not in body:
                raise _refuse(400, "missing_field", f"{wanted} is missing")
        if body.get("skip_approval") and not self.may_skip_approval:
            body["skip_approval"] = False
        order = PlacedOrder(
            next(self._numbers),
            product,
            body,
            datetime.now(UTC),
            datetime.now(UTC) + timedelta(days=365 * body["order_validity"]["years"]),
        )
        order.issues.append(self._issue(body["certificate"], bool(body.get("skip_approval"))))
        self.orders[order.id] = order
        requests = [{"id": next(self._numbers), "status": "pending"}]
        return Answer(201, {"id": order.id, "requests": requests})

    @route("GET", r"/services/v2/order/certificate/([0-9A-Fa-f]+)")
    def order_info(self, call: Call, number: str) -> Answer:
        """One order, by its id or the serial number of a certificate."""
        if number.isdigit() and int(number) in self.orders:
            order = self.orders[int(number)]
            self._work(order)
        elif len(number) > 12:
            order, _ = self.by_serial(number)
        else:
            raise _refuse(404, "not_found", "no such order")
        return Answer(200, self._order(order))

    @route("POST", r"/services/v2/order/certificate/(\d+)/(reissue|duplicate)")
    def again(self, call: Call, number: str, kind: str) -> Answer:
        """Reissue or duplicate."""
        fields = {"certificate", "comments", "skip_approval"}
        body = _whole(call.body, fields, optional=True)
        order = self.orders.get(int(number))
        if order is None or order.issues[-1].leaf is None or order.dead:
            raise _refuse(400, "order_not_issued", "the order has no certificate")
        approved = kind == "duplicate" or bool(body.get("skip_approval"))
        issue = self._issue(body["certificate"], approved)
        if kind == "duplicate" and set(issue.names) != set(order.issues[-1].names):
            raise _refuse(400, "names_differ", "a duplicate has the same names")
        (order.issues if kind == "reissue" else order.duplicates).append(issue)
        self._asked[order.id] = 0
        return Answer(201, {"id": order.id, "certificate_id": issue.id, "requests": [{"id": 1}]})

    @route("GET", r"/services/v2/order/certificate/(\d+)/(reissue|duplicate)")
    def list_again(self, call: Call, number: str, kind: str) -> Answer:
        """List reissues or duplicates."""
        order = self.orders.get(int(number))
        if order is None:
            raise _refuse(404, "not_found", "no such order")
        listed = order.issues[1:] if kind == "reissue" else order.duplicates
        return Answer(200, {"certificates": [_certificate(each) for each in listed]})

    @route("GET", r"/services/v2/certificate/(\d+)/download/format/(pem_noroot|pem_all)")
    def download(self, call: Call, number: str, form: str) -> Answer:
        """Leaf and intermediate, in the one form; with the root in the other."""
        for order in self.orders.values():
            for each in (*order.issues, *order.duplicates):
                if each.id == int(number) and each.leaf is not None:
                    return Answer(200, self.ca.bundle(each.leaf, root=form == "pem_all"))
        raise _refuse(404, "not_found", "no such certificate")

    @route("PUT", r"/services/v2/certificate/([0-9A-Fa-f]+)/revoke")
    def revoke(self, call: Call, serial: str) -> Answer:
        """Revoke one certificate; a second time is refused."""
        body = _whole(call.body, {"revocation_reason", "comments", "skip_approval"}, optional=True)
        order, issue = self.by_serial(serial)
        if issue.revoked:
            raise _refuse(400, "already_revoked", "the certificate is revoked already")
        issue.revoked = body["revocation_reason"]
        if issue is order.issues[-1]:
            order.dead = "revoked"
        return Answer(204) if body.get("skip_approval") else Answer(201, {"id": 1})

    def _issue(self, certificate: dict[str, Any], approved: bool) -> Issue:
        _whole(certificate, _CERTIFICATE_FIELDS, optional=True)
        for wanted in ("common_name", "csr", "signature_hash"):
            if not certificate.get(wanted):
                raise _refuse(400, "missing_field", f"{wanted} is missing")
        try:
            x509.load_pem_x509_csr(certificate["csr"].encode())
        except ValueError:
            raise _refuse(400, "invalid_csr", "the CSR cannot be read") from None
        names = [certificate["common_name"], *certificate.get("dns_names", [])]
        return Issue(next(self._numbers), names, certificate["csr"], approved=approved)

    def _work(self, order: PlacedOrder) -> None:
        """Let time pass: issue what may be issued."""
        self._asked[order.id] = self._asked.get(order.id, 0) + 1
        for issue in (*order.issues, *order.duplicates):
            ready = issue.approved and self._asked[order.id] > self.slow and not order.dead
            if issue.leaf is None and ready and all(self._is_proven(n, order) for n in issue.names):
                days = order.body["certificate"].get("cert_validity", {}).get("days", 30)
                issue.leaf = self.ca.sign(issue.csr, issue.names, days)

    def _is_proven(self, name: str, order: PlacedOrder) -> bool:
        if order.product.startswith("private_"):
            return True
        base = "." + name.removeprefix("*.")
        return any(
            base.endswith(f".{each.name}") and each.proven_until for each in self.domains.values()
        )

    def _order(self, order: PlacedOrder, *, csr: bool = True) -> dict[str, Any]:
        newest = order.issues[-1]
        shown = newest
        if newest.leaf is not None:
            status = "issued"
        elif len(order.issues) > 1:
            status, shown = "reissue_pending", order.issues[-2]
        else:
            status = "pending" if newest.approved else "needs_approval"
        return {
            "id": order.id,
            "status": order.dead or status,
            "certificate": _certificate(shown, csr=csr),
            "order_valid_till": order.ends.strftime("%Y-%m-%d"),
            "product": {"name_id": order.product},
            "organization": {"id": self.organization},
            **{k: v for k, v in order.body.items() if k == "alternative_order_id"},
        }

    def _known(self, number: str) -> KnownDomain:
        if int(number) not in self.domains:
            raise _refuse(404, "not_found", "no such domain")
        return self.domains[int(number)]

    def _submit(self, domain: KnownDomain, body: dict[str, Any]) -> None:
        domain.submitted |= {each["type"] for each in body["validations"]}
        domain.method = body["dcv_method"]
        domain.proven_until = None
        _renew(domain)

    def _domain(self, domain: KnownDomain, query: dict[str, str] | None = None) -> dict[str, Any]:
        proven = domain.proven_until
        shown: dict[str, Any] = {"id": domain.id, "name": domain.name, "is_active": True}
        shown["dcv_method"] = domain.method
        if proven:
            shown["dcv_expiration_datetime"] = proven.isoformat()
        if query is None or query.get("include_validation") == "true":
            state = {"status": "active", "dcv_status": "complete"} if proven else {}
            pending = {"status": "pending", "dcv_status": "pending"}
            shown["validations"] = [
                {"type": kind, **(state or pending)} for kind in sorted(domain.submitted)
            ]
        if query and query.get("include_dcv") == "true" and not proven and domain.token:
            shown["dcv_token"] = _token(domain)
        return shown

    def _must_be_ours(self, body: dict[str, Any]) -> None:
        if body.get("organization", {}).get("id") != self.organization:
            raise _refuse(400, "invalid_organization", "no such organization in your account")


@contextmanager
def certcentral_api(txt: Callable[[str], set[str]]) -> Iterator[CertCentralApi]:
    """Run the imitation; *txt* looks names up for it."""
    service = CertCentralApi(txt)
    with serving(service):
        yield service


def _refuse(status: int, code: str, message: str) -> Refusal:
    return Refusal(Answer(status, {"errors": [{"code": code, "message": message}]}))


def _whole(body: Any, fields: set[str], *, optional: bool = False) -> dict[str, Any]:
    if not isinstance(body, dict):
        raise _refuse(400, "invalid_json", "the body is not a JSON object")
    if unknown := set(body) - fields:
        raise _refuse(400, "unknown_field", f"unknown: {', '.join(sorted(unknown))}")
    if not optional and (missing := fields - set(body)):
        raise _refuse(400, "missing_field", f"missing: {', '.join(sorted(missing))}")
    return body


def _renew(domain: KnownDomain) -> None:
    domain.token = secrets.token_hex(16)
    domain.token_ends = datetime.now(UTC) + timedelta(days=30)


def _token(domain: KnownDomain) -> dict[str, Any]:
    assert domain.token_ends is not None
    ends = domain.token_ends.isoformat()
    return {"token": domain.token, "status": "pending", "expiration_date": ends}


def _certificate(issue: Issue, *, csr: bool = True) -> dict[str, Any]:
    shown: dict[str, Any] = {"common_name": issue.names[0], "dns_names": issue.names[1:]}
    if csr:
        shown["csr"] = issue.csr
    if issue.leaf is not None:
        shown |= {"id": issue.id, "serial_number": f"{issue.leaf.serial_number:x}"}
    return shown
