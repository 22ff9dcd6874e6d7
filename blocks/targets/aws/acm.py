"""Certificates in AWS Certificate Manager: found, imported, read, and removed when unused."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from typing import Any

from cryptography import x509

from blocks._target import object_name
from certrail.errors import NotFound, Rejected, UnexpectedReply
from certrail.log import effect, logger, plain
from certrail.model import UNREADABLE, Bundle, Fingerprint, Site, Staged, fingerprint, subject_names
from certrail.remote import aws

# Without this list, ListCertificates shows RSA 2048 only.
_KEY_TYPES = (
    *("RSA_1024", "RSA_2048", "RSA_3072", "RSA_4096"),
    *("EC_prime256v1", "EC_secp384r1", "EC_secp521r1"),
)
_SITE, _NAME = "certrail:site", "Name"
_LONGEST_TAG = 128


class Acm:
    """The certificates of one account and region.

    Attributes:
        label: the connector's name, for people.
    """

    def __init__(self, session: aws.Session, label: str, *, region: str = "") -> None:
        self._client = session.client("acm", region=region)
        self._iam: Callable[[], Any] = lambda: session.client("iam")
        self.label = label
        self._leaves: dict[str, x509.Certificate | None] = {}

    def leaf(self, arn: str) -> x509.Certificate | None:
        """Return the certificate *arn* of ACM or IAM, None where there is none."""
        if arn and arn not in self._leaves:
            self._leaves[arn] = self._read(arn)
        return self._leaves.get(arn)

    def fingerprint(self, arn: str) -> Fingerprint | None:
        """Return the fingerprint of the certificate *arn*, None where there is none."""
        leaf = self.leaf(arn)
        return fingerprint(leaf) if leaf is not None else None

    def ensure(self, site: Site, bundle: Bundle, key: bytes) -> str:
        """Return the ARN of *bundle*, imported unless it is there already.

        *key* goes from here to AWS and nowhere else.
        """
        leaf = bundle.chain.leaf
        wanted = bundle.chain.fingerprint
        for found in self._imported(subject_names(leaf)):
            if _may_be(found, leaf) and self.fingerprint(found["CertificateArn"]) == wanted:
                return str(found["CertificateArn"])
        chain = "".join(bundle.chain.pems[1:])
        more = {"CertificateChain": chain.encode()} if chain else {}
        tags = [
            {"Key": _SITE, "Value": site.id[:256]},
            {"Key": _NAME, "Value": object_name(site.id, wanted, _LONGEST_TAG)},
        ]
        with self.calls("import a certificate", hide=key.decode().splitlines()):
            reply = self._client.import_certificate(
                Certificate=bundle.chain.pems[0].encode(), PrivateKey=key, Tags=tags, **more
            )
            arn = str(reply["CertificateArn"])
        effect("acm.import", connector=self.label, arn=arn, fingerprint=wanted)
        return arn

    def remove_unused(self, staged: Staged, live: str) -> None:
        """Remove what was imported for the site and is not *live*, as far as nothing uses it.

        AWS goes on counting a certificate as used for some minutes after a switch and
        refuses to delete it. What is refused now is tried again with every later change
        of the site: everything older than the live certificate goes.
        """
        pair = {str(staged.data["new"]), str(staged.data["old"])} - {live, ""}
        gone = [arn for arn in sorted(pair) if self._site_of(arn) == staged.site]
        leaf = self.leaf(live)
        if leaf is not None:
            before = self._imported_at(live)
            gone += [
                str(found["CertificateArn"])
                for found in self._imported(subject_names(leaf))
                if not found.get("InUse")
                and found["CertificateArn"] not in {live, *pair}
                and before is not None
                and _moment(found.get("ImportedAt")) < before
                and self._site_of(str(found["CertificateArn"])) == staged.site
            ]
        for arn in gone:
            self._delete(arn)

    def exists(self, arn: str) -> bool:
        """Return whether ACM has *arn*."""
        self._leaves.pop(arn, None)
        return self.leaf(arn) is not None

    def calls(self, what: str, *, hide: Sequence[str] = ()) -> AbstractContextManager[None]:
        """Turn the SDK's errors into ours; see :func:`certrail.remote.aws.calls`."""
        return aws.calls(self.label, what, hide=hide)

    def _read(self, arn: str) -> x509.Certificate | None:
        try:
            if ":iam:" in arn:
                name = arn.rpartition("/")[2]
                with self.calls(f"read {plain(name)} of IAM"):
                    found = self._iam().get_server_certificate(ServerCertificateName=name)
                    text = found["ServerCertificate"]["CertificateBody"]
            else:
                with self.calls(f"read {plain(arn)}"):
                    text = self._client.get_certificate(CertificateArn=arn)["Certificate"]
        except (NotFound, Rejected) as exc:
            if isinstance(exc, NotFound) or exc.code in ("NoSuchEntity", "InvalidArnException"):
                return None
            raise
        try:
            return x509.load_pem_x509_certificate(text.encode())
        except UNREADABLE as exc:
            raise UnexpectedReply(
                f"{self.label}: {plain(arn)} is not a certificate", connector=self.label
            ) from exc

    def _imported(self, names: Collection[str]) -> Iterator[Mapping[str, Any]]:
        """Yield the imported certificates whose first name is one of *names*."""
        more: dict[str, str] = {}
        while True:
            with self.calls("list certificates"):
                page = self._client.list_certificates(
                    Includes={"keyTypes": list(_KEY_TYPES)}, MaxItems=1000, **more
                )
                summaries = page["CertificateSummaryList"]
            for found in summaries:
                if found.get("Type", "IMPORTED") == "IMPORTED" and found.get("DomainName") in names:
                    yield found
            if not page.get("NextToken"):
                return
            more = {"NextToken": page["NextToken"]}

    def _site_of(self, arn: str) -> str:
        """Return the site that we imported *arn* for, "" for what is not ours."""
        try:
            with self.calls(f"read the tags of {plain(arn)}"):
                tags = self._client.list_tags_for_certificate(CertificateArn=arn)["Tags"]
        except (NotFound, Rejected):
            return ""
        return next((str(tag.get("Value", "")) for tag in tags if tag.get("Key") == _SITE), "")

    def _imported_at(self, arn: str) -> datetime | None:
        with self.calls(f"describe {plain(arn)}"):
            found = self._client.describe_certificate(CertificateArn=arn)["Certificate"]
            moment = found.get("ImportedAt")
        return moment if isinstance(moment, datetime) else None

    def _delete(self, arn: str) -> None:
        try:
            with self.calls(f"delete {plain(arn)}"):
                self._client.delete_certificate(CertificateArn=arn)
        except NotFound:
            return
        except Rejected as exc:
            if exc.code != "ResourceInUseException":
                raise
            logger.info("acm.delete %s: still in use, tried again after the next change", arn)
            return
        self._leaves.pop(arn, None)
        effect("acm.delete", connector=self.label, arn=arn)


def _may_be(summary: Mapping[str, Any], leaf: x509.Certificate) -> bool:
    """Return whether a certificate of the list can be *leaf* by its dates, if they are told."""
    end = summary.get("NotAfter")
    return end is None or _moment(end) == leaf.not_valid_after_utc


def _moment(value: Any) -> datetime:
    if not isinstance(value, datetime):
        return datetime.max.replace(tzinfo=UTC)
    return value.astimezone(UTC)
