"""A CA that lives in a folder and issues in our own process.

Every order is a file, named by a digest of our reference: an order opened or
finalized twice is one, also in another process after a crash. Files::

    authority/    root and intermediate, certificates and keys (0600)
    orders/ab/…   one JSON file an order: names, digest of the CSR, chain
    revoked.json  serial numbers, when and why
    crl.pem       the same, signed
    lock          held while the CA is made, signs or revokes
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from pydantic import SecretStr

from certrail.ca import authority, leaf, revoked
from certrail.ca.answer import key_digest
from certrail.ca.authority import Authority, Design
from certrail.ca.folder import Folder
from certrail.connectors import CertificateAuthority, FindsOrders
from certrail.errors import Conflict, InvalidRequest, NotFound, Rejected, UnexpectedReply
from certrail.log import effect, plain
from certrail.model import (
    Chain,
    Csr,
    Order,
    OrderKey,
    OrderSpec,
    OrderStatus,
    RevocationReason,
    serial_text,
)
from certrail.names import Name, parse_names
from certrail.wait import Pending
from certrail.x509.findings import is_issued_by


@dataclass(frozen=True, slots=True)
class Rules:
    """What the CA issues.

    Attributes:
        lifetime: of a certificate ordered without a profile.
        profiles: lifetimes by profile name.
        permitted: DNS suffixes and networks, none for no limit.
        most_names: in one certificate.
        client_auth: whether certificates may authenticate clients as well.
        crl_url: where the CRL is served, "" for nowhere.
    """

    lifetime: timedelta
    profiles: Mapping[str, timedelta] = field(default_factory=dict)
    permitted: tuple[str, ...] = ()
    most_names: int = 100
    client_auth: bool = False
    crl_url: str = ""


class LocalCa(CertificateAuthority, FindsOrders):
    """A CA in a folder; made at the first order. One instance may be used from many threads."""

    def __init__(
        self, folder: str, *, design: Design, rules: Rules, password: str = "", label: str
    ) -> None:
        """Prepare; nothing is read or made yet.

        Raises:
            InvalidRequest: *folder* is not an absolute path.
        """
        self._folder = Folder(folder, label)
        self._design = design
        self._rules = rules
        self._password = SecretStr(password)
        self._label = label
        self._loaded: Authority | None = None

    def check(self) -> str:
        """Open the keys; where there is no CA yet, say so and make none."""
        if not authority.exists(self._folder):
            return f"no CA in {plain(self._folder.path)} yet; it is made at the first order"
        certificate = self._authority().certificate
        return (
            f"CA {plain(certificate.subject.rfc4514_string())} in {plain(self._folder.path)} can "
            f"sign until {certificate.not_valid_after_utc:%Y-%m-%d}"
        )

    def trust_anchor(self) -> str:
        """Return the root in PEM, making the CA if there is none."""
        return Chain.of([self._authority().root]).text

    def open_order(self, spec: OrderSpec) -> Order:
        names = self._allowed(spec.names)
        lifetime = self._lifetime(spec.profile)
        ours = self._authority()
        inherited = authority.limits(ours.certificate)
        for name in names:
            if not authority.is_permitted(name, inherited):
                raise _refused(
                    self._label, name, inherited, "The CA was made with these limits for good."
                )
        number = _number(spec.key)
        record = {
            "key": spec.key,
            "names": [name.text for name in names],
            "lifetime_seconds": int(lifetime.total_seconds()),
        }
        with self._folder.locked():
            present = self._record(number)
            if present is None:
                self._keep(number, record)
            elif any(present[each] != record[each] for each in ("key", "names")):
                raise Conflict(
                    f"{self._label}: the reference {plain(spec.key)} has an order for other names",
                    connector=self._label,
                )
        return self._order(number, present or record)

    def find_order(self, key: OrderKey) -> Order | None:
        number = _number(key)
        record = self._record(number)
        return self._order(number, record) if record else None

    def reopen(self, order: Order) -> Order:
        return self._order(order.remote_id, self._known(order))

    def finalize(self, order: Order, csr: Csr) -> Order:
        """Sign; an order that is signed already is returned as it stands.

        Raises:
            Conflict: it was finalized with another CSR.
            Rejected: CSR or key will not do.
        """
        ours, digest = self._authority(), key_digest(leaf.key_of(csr))
        with self._folder.locked():
            record = self._known(order)
            if "chain" in record:
                if record["key_sha256"] != digest:
                    raise Conflict(
                        f"{self._label}: the order was finalized with another key",
                        remedy="Start the request anew: a new order is made.",
                        connector=self._label,
                    )
                return self._order(order.remote_id, record)
            certificate = leaf.sign(
                ours,
                csr,
                parse_names(record["names"]),
                timedelta(seconds=record["lifetime_seconds"]),
                client_auth=self._rules.client_auth,
                crl_url=self._rules.crl_url,
            )
            chain = [*Chain.of([certificate]).pems, ours.pem]
            record = {**record, "key_sha256": digest, "chain": chain}
            self._keep(order.remote_id, record)
        if self._rules.crl_url:
            self.crl()
        effect(
            "ca.issue",
            ca=self._label,
            serial=serial_text(certificate),
            names=",".join(record["names"]),
        )
        return self._order(order.remote_id, record)

    def collect(self, order: Order) -> Chain | Pending:
        record = self._known(order)
        return Chain(tuple(record["chain"])) if "chain" in record else Pending()

    def revoke(self, chain: Chain, reason: RevocationReason) -> None:
        """Put the leaf on the list and into a new CRL.

        Raises:
            NotFound: another CA issued it.
        """
        ours, certificate = self._authority(), chain.leaf
        if not is_issued_by(certificate, ours.certificate):
            raise NotFound(
                f"{self._label}: the certificate {serial_text(certificate)} is not of this CA",
                remedy="Revoke it at the CA that issued it.",
                connector=self._label,
            )
        if revoked.revoke(self._folder, ours, certificate, reason):
            effect("ca.revoke", ca=self._label, serial=serial_text(certificate), reason=reason)

    def crl(self) -> bytes:
        """Return a CRL in PEM that is valid for some days yet."""
        return revoked.current(self._folder, self._authority())

    def _authority(self) -> Authority:
        if self._loaded is None:
            self._loaded = authority.load(
                self._folder, self._design, self._password.get_secret_value()
            )
        return self._loaded

    def _allowed(self, texts: tuple[str, ...]) -> tuple[Name, ...]:
        names = parse_names(texts)
        if len(names) > self._rules.most_names:
            raise Rejected(
                f"{self._label}: {len(names)} names in one certificate; the CA issues for "
                f"{self._rules.most_names} at the most",
                remedy="Split the endpoint's names over several certificates.",
                connector=self._label,
                code="tooManyNames",
            )
        for name in names:
            if not authority.is_permitted(name, self._rules.permitted):
                raise _refused(
                    self._label,
                    name,
                    self._rules.permitted,
                    "Add the suffix to permitted_names of the connector if that is meant.",
                )
        return names

    def _lifetime(self, profile: str) -> timedelta:
        if not profile:
            return self._rules.lifetime
        if profile not in self._rules.profiles:
            known = ", ".join(sorted(self._rules.profiles)) or "none"
            raise InvalidRequest(
                f"{self._label}: there is no profile {plain(profile)}; there are: {known}",
                remedy="Name one of these in the profile's ca_profile, or leave it empty.",
            )
        return self._rules.profiles[profile]

    def _order(self, number: str, record: Mapping[str, Any]) -> Order:
        return Order(
            key=OrderKey(record["key"]),
            remote_id=number,
            status=OrderStatus.VALID if "chain" in record else OrderStatus.READY,
            data={"names": list(record["names"])},
        )

    def _known(self, order: Order) -> dict[str, Any]:
        record = self._record(order.remote_id)
        if record is None:
            raise NotFound(
                f"{self._label}: there is no order {plain(order.remote_id)}",
                remedy="Start the request anew: a new order is made.",
                connector=self._label,
            )
        return record

    def _record(self, number: str) -> dict[str, Any] | None:
        if not number.isalnum():
            return None
        content = self._folder.read(_file(number))
        if content is None:
            return None
        try:
            return dict(json.loads(content))
        except ValueError as exc:
            raise UnexpectedReply(
                f"{self._label}: the file of the order {plain(number)} is not JSON",
                remedy="Put it back from a backup, or remove it and start the request anew.",
                connector=self._label,
            ) from exc

    def _keep(self, number: str, record: Mapping[str, Any]) -> None:
        self._folder.write(_file(number), json.dumps(record).encode())


def _number(key: OrderKey) -> str:
    return hashlib.sha256(key.encode()).hexdigest()[:40]


def _file(number: str) -> str:
    return f"orders/{number[:2]}/{number[2:]}.json"


def _refused(label: str, name: Name, permitted: tuple[str, ...], remedy: str) -> Rejected:
    return Rejected(
        f"{label}: the CA does not issue for {plain(name)}; it is limited to "
        f"{', '.join(permitted)}",
        remedy=remedy,
        connector=label,
        code="rejectedIdentifier",
    )
