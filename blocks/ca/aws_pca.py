"""AWS Private Certificate Authority.

Read for it, November 2026: "IssueCertificate", "GetCertificate",
"RevokeCertificate" and "DescribeCertificateAuthority" of the AWS Private CA API
reference, "Understanding certificate templates" of its user guide. Run against
moto's server; AWS itself was not at hand.

Certificates cannot be listed. Issuing twice with the same idempotency token
within five minutes is one certificate; after that, a certificate whose reply
was lost stays unused. Private CA issues for any name; limits are name
constraints of the CA certificate, or IAM policies on templates.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from typing import Any

from pydantic import Field

from blocks._aws import AwsAccess
from blocks._base import CaBlock
from certrail.ca.answer import chain_of, key_digest, must_be_for
from certrail.connectors import CertificateAuthority
from certrail.errors import InvalidRequest, Rejected
from certrail.log import effect, plain
from certrail.model import Chain, Csr, Order, OrderSpec, OrderStatus, RevocationReason, serial_text
from certrail.names import parse_names
from certrail.remote import aws
from certrail.wait import Pending
from certrail.x509.csr import read_csr

_TEMPLATE = "arn:aws:acm-pca:::template/EndEntityServerAuthCertificate/V1"
# SigningAlgorithm of IssueCertificate has to fit the CA's key.
_SIGNING = {
    "EC_prime256v1": "SHA256WITHECDSA",
    "EC_secp384r1": "SHA384WITHECDSA",
    "EC_secp521r1": "SHA512WITHECDSA",
    "RSA_2048": "SHA256WITHRSA",
    "RSA_3072": "SHA256WITHRSA",
    "RSA_4096": "SHA256WITHRSA",
}
_REASONS = {
    RevocationReason.UNSPECIFIED: "UNSPECIFIED",
    RevocationReason.KEY_COMPROMISE: "KEY_COMPROMISE",
    RevocationReason.AFFILIATION_CHANGED: "AFFILIATION_CHANGED",
    RevocationReason.SUPERSEDED: "SUPERSEDED",
    RevocationReason.CESSATION_OF_OPERATION: "CESSATION_OF_OPERATION",
}


class AwsPca(AwsAccess, CaBlock):
    """Issue from a certificate authority in AWS Private CA.

    The account needs acm-pca:DescribeCertificateAuthority, IssueCertificate and
    GetCertificate and, to revoke, RevokeCertificate. A profile's ca_profile gives the
    ARN of another template.
    """

    _block_type_name = "Certrail CA: AWS Private CA"
    _block_type_slug = "ca-aws-pca"

    ca_arn: str = Field(
        pattern=r"^arn:[a-z-]+:acm-pca:", description="ARN of the certificate authority."
    )
    template_arn: str = Field(
        default=_TEMPLATE, description="ARN of the template that certificates are made by."
    )
    validity_days: int = Field(
        default=90, ge=1, le=3650, description="Validity of certificates in days."
    )

    @contextmanager
    def connect(self) -> Iterator[CertificateAuthority]:
        """Open the CA."""
        with self.opened(self.ca_arn.split(":")[3]) as session:
            yield _AwsPca(session, self)


class _AwsPca(CertificateAuthority):
    def __init__(self, session: aws.Session, settings: AwsPca) -> None:
        self._client = session.client("acm-pca")
        self._settings = settings
        self._hidden = session.hidden
        self._label = settings.label
        self._arn = settings.ca_arn

    def check(self) -> str:
        """Look at the certificate authority."""
        found = self._describe()
        with self._calls("describe the CA"):
            name = found["CertificateAuthorityConfiguration"]["Subject"].get("CommonName", "")
            status = found["Status"]
        return f"AWS Private CA answers; the CA {plain(name or self._arn)} is {plain(status)}"

    def open_order(self, spec: OrderSpec) -> Order:
        names = [name.text for name in parse_names(spec.names)]
        template = spec.profile or self._settings.template_arn
        return Order(spec.key, "", OrderStatus.READY, data={"names": names, "template": template})

    def reopen(self, order: Order) -> Order:
        return order

    def finalize(self, order: Order, csr: Csr) -> Order:
        """Issue. An order that has a certificate's ARN already is returned as it is.

        Raises:
            InvalidRequest: the CSR has other names than the order; AWS takes them from it.
            Rejected: AWS refuses CSR, template or validity.
        """
        if order.remote_id:
            return order
        asked = read_csr(csr).names
        if {name.lower() for name in asked} != set(order.data["names"]):
            raise InvalidRequest(
                f"{self._label}: the CSR is for {plain(', '.join(asked)) or 'no name'}, ordered is "
                f"{', '.join(order.data['names'])}",
                remedy="AWS Private CA takes the names from the CSR: make one with these names.",
            )
        key = self._describe()
        token = hashlib.sha256(f"{order.key}:{csr.pem}".encode()).hexdigest()[:36]
        with self._calls("issue"):
            algorithm = key["CertificateAuthorityConfiguration"]["KeyAlgorithm"]
            reply = self._client.issue_certificate(
                CertificateAuthorityArn=self._arn,
                Csr=csr.pem.encode(),
                SigningAlgorithm=_SIGNING.get(algorithm, "SHA256WITHRSA"),
                TemplateArn=order.data["template"],
                Validity={"Value": self._settings.validity_days, "Type": "DAYS"},
                IdempotencyToken=token,
            )
            number = str(reply["CertificateArn"])
        effect("ca.order", ca=self._label, order=number, names=",".join(order.data["names"]))
        data = {**order.data, "key": key_digest(csr.parsed.public_key())}
        return replace(order, remote_id=number, status=OrderStatus.PROCESSING, data=data)

    def collect(self, order: Order) -> Chain | Pending:
        if not order.remote_id:
            return Pending()
        try:
            with self._calls("collect"):
                reply = self._client.get_certificate(
                    CertificateAuthorityArn=self._arn, CertificateArn=order.remote_id
                )
                texts = [str(reply["Certificate"]), str(reply.get("CertificateChain", ""))]
        except Rejected as exc:
            if exc.code == "RequestInProgressException":
                return Pending(timedelta(seconds=1), "AWS is still issuing")
            raise
        chain = chain_of(texts, self._label)
        remedy = "Use a template that takes the names from the CSR."
        must_be_for(chain, order.data["names"], self._label, remedy)
        return chain

    def revoke(self, chain: Chain, reason: RevocationReason) -> None:
        serial = serial_text(chain.leaf)
        try:
            with self._calls("revoke"):
                self._client.revoke_certificate(
                    CertificateAuthorityArn=self._arn,
                    CertificateSerial=serial,
                    RevocationReason=_REASONS[reason],
                )
        except Rejected as exc:
            if exc.code != "RequestAlreadyProcessedException":
                raise
            return
        effect("ca.revoke", ca=self._label, serial=serial, reason=reason)

    def _describe(self) -> dict[str, Any]:
        with self._calls("describe the CA"):
            reply = self._client.describe_certificate_authority(CertificateAuthorityArn=self._arn)
            return dict(reply["CertificateAuthority"])

    def _calls(self, what: str) -> Any:
        return aws.calls(self._label, what, hide=self._hidden())
