"""CloudFront distributions."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

from blocks._aws import AwsAccess
from blocks._base import TargetBlock
from blocks._target import must_replace, must_take, short
from blocks.targets.aws.acm import Acm
from certrail.connectors import InstallTarget, Traits
from certrail.errors import (
    ActivationRefused,
    Busy,
    Conflict,
    InvalidRequest,
    NotFound,
    PermissionRefused,
    Rejected,
)
from certrail.log import effect, plain
from certrail.model import Bundle, Fingerprint, KeyAlgorithm, Site, Staged, key_text
from certrail.remote import aws

# CloudFront takes certificates of this region only.
_REGION = "us-east-1"
_ID = re.compile(r"[A-Z0-9]{5,32}")
# What a distribution gets that had CloudFront's own certificate; AWS's console proposes the same.
_USUAL = {"SSLSupportMethod": "sni-only", "MinimumProtocolVersion": "TLSv1.2_2021"}
_KEPT = tuple(_USUAL)


class AwsCloudFront(AwsAccess, TargetBlock):
    """Replace the certificate of CloudFront distributions.

    The site is the distribution's id. The certificate is imported into ACM in us-east-1
    as a new one; the one before is deleted once the new one has passed its test. A change
    takes minutes to reach every edge: `Testing installation` waits up to a quarter of an
    hour for the new certificate to be seen.
    """

    _block_type_slug = "target-aws-cloudfront"
    _block_type_name = "Certrail target: AWS CloudFront"

    @contextmanager
    def connect(self) -> Iterator[InstallTarget]:
        """Open the target."""
        with self.opened(_REGION) as session:
            yield CloudFrontTarget(session, self.label)


class CloudFrontTarget(InstallTarget):
    """The distributions of one account."""

    traits = Traits(
        transactional=True,
        restores_by="the distribution is pointed at the old certificate again, which stays in "
        "ACM until the new one has passed its test",
        key_algorithms=frozenset(KeyAlgorithm) - {KeyAlgorithm.ECDSA_P384},
        settles_within=timedelta(minutes=15),
    )

    def __init__(self, session: aws.Session, label: str) -> None:
        self._client = session.client("cloudfront")
        self._acm = Acm(session, label, region=_REGION)
        self._label = label

    def check(self) -> str:
        with self._calls("list distributions"):
            found = self._client.list_distributions(MaxItems="1")["DistributionList"]
            some = int(found["Quantity"]) > 0
        return f"CloudFront answers, {'distributions' if some else 'no distribution'} there"

    def sites(self) -> Iterator[Site]:
        more: dict[str, str] = {}
        while True:
            with self._calls("list distributions"):
                page = self._client.list_distributions(**more)["DistributionList"]
                items = page.get("Items", [])
            for one in items:
                arn = _arn_of(one.get("ViewerCertificate", {}))
                names = tuple(one.get("Aliases", {}).get("Items", ()))
                yield Site(
                    str(one["Id"]),
                    names,
                    (f"{one.get('DomainName', '')}:443",),
                    tls=True,
                    fingerprint=self._acm.fingerprint(arn),
                )
            if not page.get("NextMarker"):
                return
            more = {"Marker": page["NextMarker"]}

    def serving(self, site: Site) -> Fingerprint | None:
        config, _ = self._config(site.id)
        return self._acm.fingerprint(_arn_of(config.get("ViewerCertificate", {})))

    def stage(self, site: Site, bundle: Bundle, replaces: Fingerprint | None) -> Staged:
        key = must_take(bundle, self.traits, "CloudFront")
        new = bundle.chain.fingerprint
        config, _ = self._config(site.id)
        if not config.get("Aliases", {}).get("Quantity"):
            raise InvalidRequest(
                f"{self._label}: the distribution {site.id} has no alternate domain names, so it "
                "uses CloudFront's own certificate",
                remedy="Add the endpoint's names to the distribution as alternate domain names.",
            )
        viewer = config.get("ViewerCertificate", {})
        old = _arn_of(viewer)
        present = self._acm.fingerprint(old)
        must_replace(present, replaces, new, site.id, self._label)
        arn = self._acm.ensure(site, bundle, key)
        effect("target.stage", connector=self._label, distribution=site.id, arn=arn)
        return Staged(
            site.id,
            new,
            replaces or present,
            f"CloudFront: {site.id} gets {key_text(bundle.chain.leaf)} as {arn}",
            {"new": arn, "old": "" if old == arn else old, "viewer": _plain(viewer)},
        )

    def activate(self, staged: Staged) -> str:
        config, tag = self._config(staged.site)
        new, old = str(staged.data["new"]), str(staged.data["old"])
        viewer = config.get("ViewerCertificate", {})
        now = _arn_of(viewer)
        if now == new:
            return f"CloudFront: {short(staged.fingerprint)} was set already, nothing changed"
        if now != old:
            raise Conflict(
                f"{self._label}: {staged.site} now has {plain(now)}: somebody else changed it "
                "since this one was staged",
                connector=self._label,
            )
        kept = {field: viewer[field] for field in _KEPT if now and field in viewer}
        status = self._update(
            staged.site,
            config,
            tag,
            {
                **_USUAL,
                **kept,
                "ACMCertificateArn": new,
                "CloudFrontDefaultCertificate": False,
            },
        )
        effect("target.activate", connector=self._label, distribution=staged.site, arn=new)
        return f"CloudFront: {staged.site} has {new}, {status}"

    def restore(self, staged: Staged) -> str:
        config, tag = self._config(staged.site)
        new, old = str(staged.data["new"]), str(staged.data["old"])
        now = _arn_of(config.get("ViewerCertificate", {}))
        if now != new:
            if now != old:
                raise Conflict(
                    f"{self._label}: {staged.site} was changed by somebody else since",
                    connector=self._label,
                )
            return "CloudFront: nothing to put back"
        before = dict(staged.data["viewer"])
        if _arn_of(before) == new:
            return "CloudFront: nothing to put back"
        status = self._update(staged.site, config, tag, before)
        effect("target.restore", connector=self._label, distribution=staged.site, arn=old)
        return (
            f"CloudFront: {staged.site} has {plain(old or 'its own certificate')} again, {status}"
        )

    def discard(self, staged: Staged) -> None:
        config, _ = self._config(staged.site)
        self._acm.remove_unused(staged, _arn_of(config.get("ViewerCertificate", {})))

    def _update(
        self, id_: str, config: Mapping[str, Any], tag: str, viewer: Mapping[str, Any]
    ) -> str:
        """Change the viewer certificate of the configuration that *tag* stands for."""
        try:
            with self._calls(f"change {id_}"):
                reply = self._client.update_distribution(
                    Id=id_,
                    IfMatch=tag,
                    DistributionConfig={**config, "ViewerCertificate": dict(viewer)},
                )
                status = str(reply["Distribution"]["Status"])
        except Conflict as exc:
            # Also the answer where the same change arrived twice, as when its reply was lost.
            raise Busy(
                f"{self._label}: the distribution {id_} was changed at the same moment",
                remedy="Retry: the present configuration is read again.",
                connector=self._label,
                code=exc.code,
            ) from exc
        except Rejected as exc:
            raise ActivationRefused(
                f"CloudFront refused the certificate: {exc}",
                remedy="Its names have to cover the distribution's alternate domain names, and its "
                "chain has to lead to a CA that CloudFront trusts. Then retry: no new order is "
                "made.",
            ) from exc
        return "deployed" if status == "Deployed" else "on its way to the edges"

    def _config(self, id_: str) -> tuple[dict[str, Any], str]:
        if not _ID.fullmatch(id_):
            raise InvalidRequest(
                f"not a distribution's id: {plain(id_)[:100]}",
                remedy="Set the endpoint's site to an id such as E2QWRUHAPOMQZL.",
            )
        try:
            with self._calls(f"read {id_}"):
                reply = self._client.get_distribution_config(Id=id_)
                return dict(reply["DistributionConfig"]), str(reply["ETag"])
        except NotFound as exc:
            exc.remedy = "Set the endpoint's site to the id of a distribution of this account."
            raise

    @contextmanager
    def _calls(self, what: str) -> Iterator[None]:
        try:
            with aws.calls(self._label, what):
                yield
        except PermissionRefused as exc:
            exc.remedy = (
                "Give the role the permissions of the connector's page, for cloudfront and acm."
            )
            raise


def _arn_of(viewer: Mapping[str, Any]) -> str:
    """Return the ARN of a viewer certificate, "" for CloudFront's own and for one in IAM."""
    return str(viewer.get("ACMCertificateArn", "") or "")


def _plain(viewer: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields that AWS wants back; the deprecated ones contradict them."""
    known = ("CloudFrontDefaultCertificate", "IAMCertificateId", "ACMCertificateArn", *_KEPT)
    return {field: viewer[field] for field in known if viewer.get(field) not in (None, "")}
