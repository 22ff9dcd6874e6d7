"""HTTPS and TLS listeners of Application and Network Load Balancers."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from blocks._aws import AwsRegion
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
from certrail.model import Bundle, Fingerprint, Site, Staged, key_text, subject_names
from certrail.names import matches
from certrail.remote import aws

_PLACE = re.compile(r"(?P<name>[A-Za-z0-9-]{1,32}):(?P<port>\d{1,5})(?:/(?P<host>\S{1,253}))?")
_SECURE = frozenset({"HTTPS", "TLS"})
_MISSING = "CertificateNotFound"


class AwsElb(AwsRegion, TargetBlock):
    """Replace certificates of HTTPS and TLS listeners of AWS load balancers.

    The site is `NAME:PORT` for a listener's default certificate, or `NAME:PORT/HOST` for
    the certificate that its list has for that name (SNI). The certificate is imported
    into ACM as a new one; the one before is deleted once the new one has passed its test.
    """

    _block_type_slug = "target-aws-elb"
    _block_type_name = "Certrail target: AWS load balancer"

    @contextmanager
    def connect(self) -> Iterator[InstallTarget]:
        """Open the target."""
        with self.opened(self.region) as session:
            yield ElbTarget(session, self.label)


@dataclass(frozen=True)
class _Place:
    """A listener, and the name whose certificate of its list is meant ("" the default)."""

    listener: str
    host: str

    def __str__(self) -> str:
        return f"the certificate for {self.host}" if self.host else "the default certificate"


class ElbTarget(InstallTarget):
    """The load balancers of one account and region."""

    traits = Traits(
        restores_by="the listener is pointed at the old certificate again, which stays in ACM "
        "until the new one has passed its test",
        longest_name=32,
    )

    def __init__(self, session: aws.Session, label: str) -> None:
        self._client = session.client("elbv2")
        self._acm = Acm(session, label)
        self._label = label

    def check(self) -> str:
        with self._calls("list load balancers"):
            found = self._client.describe_load_balancers(PageSize=1)["LoadBalancers"]
        return f"AWS answers, {'load balancers' if found else 'no load balancer'} in the region"

    def sites(self) -> Iterator[Site]:
        for balancer in self._pages("describe_load_balancers", "LoadBalancers"):
            arn = balancer["LoadBalancerArn"]
            for one in self._pages("describe_listeners", "Listeners", LoadBalancerArn=arn):
                if one.get("Protocol") not in _SECURE:
                    continue
                name = f"{balancer['LoadBalancerName']}:{one['Port']}"
                listens = (f"{balancer.get('DNSName', '')}:{one['Port']}",)
                default, rest = self._certificates(one["ListenerArn"])
                yield self._site(name, listens, default)
                for other in rest:
                    names = self._names(other)
                    if names:
                        yield self._site(f"{name}/{names[0]}", listens, other)

    def serving(self, site: Site) -> Fingerprint | None:
        return self._acm.fingerprint(self._present(self._place(site.id)))

    def stage(self, site: Site, bundle: Bundle, replaces: Fingerprint | None) -> Staged:
        key = must_take(bundle, self.traits, "AWS")
        new = bundle.chain.fingerprint
        place = self._place(site.id)
        if place.host and not _covers(subject_names(bundle.chain.leaf), place.host):
            raise InvalidRequest(
                f"the certificate is not for {place.host}, the name that it is to be listed for",
                remedy="Add the name to the endpoint's `names`, or name another site.",
            )
        old = self._present(place)
        present = self._acm.fingerprint(old)
        must_replace(present, replaces, new, site.id, self._label)
        arn = self._acm.ensure(site, bundle, key)
        effect("target.stage", connector=self._label, site=site.id, arn=arn)
        return Staged(
            site.id,
            new,
            replaces or present,
            f"AWS: {place} of {site.id} becomes {key_text(bundle.chain.leaf)} as {arn}",
            {"new": arn, "old": "" if old == arn else old},
        )

    def activate(self, staged: Staged) -> str:
        place = self._place(staged.site)
        new, old = str(staged.data["new"]), str(staged.data["old"])
        now = self._present(place)
        if now == new and not self._lists(place, old):
            return f"AWS: {short(staged.fingerprint)} was live already, nothing changed"
        if now not in (old, new):
            raise Conflict(
                f"{self._label}: {place} of {staged.site} is now {plain(now)}: somebody else "
                "changed it since this one was staged",
                connector=self._label,
            )
        self._switch(place, old, new)
        effect("target.activate", connector=self._label, site=staged.site, arn=new)
        return f"AWS: {place} of {staged.site} is {new}"

    def restore(self, staged: Staged) -> str:
        place = self._place(staged.site)
        new, old = str(staged.data["new"]), str(staged.data["old"])
        now = self._present(place)
        if now != new and not self._lists(place, new):
            if now != old:
                raise Conflict(
                    f"{self._label}: {place} of {staged.site} was changed by somebody else since",
                    connector=self._label,
                )
            return "AWS: nothing to put back"
        if not old and not place.host:
            return "AWS: nothing to put back"
        self._switch(place, new, old)
        effect("target.restore", connector=self._label, site=staged.site, arn=old)
        return f"AWS: {place} of {staged.site} is {plain(old or 'none')} again"

    def discard(self, staged: Staged) -> None:
        self._acm.remove_unused(staged, self._present(self._place(staged.site)))

    def _switch(self, place: _Place, before: str, after: str) -> None:
        """Make *after* the certificate of *place* instead of *before* ("" for none)."""
        try:
            if not place.host:
                with self._calls("change the default certificate"):
                    self._client.modify_listener(
                        ListenerArn=place.listener, Certificates=[{"CertificateArn": after}]
                    )
                return
            # First the new one: no moment without a certificate for the name.
            if after:
                with self._calls("add to the certificates"):
                    self._client.add_listener_certificates(
                        ListenerArn=place.listener, Certificates=[{"CertificateArn": after}]
                    )
            if before:
                with self._calls("remove from the certificates"):
                    self._client.remove_listener_certificates(
                        ListenerArn=place.listener, Certificates=[{"CertificateArn": before}]
                    )
        except Rejected as exc:
            if exc.code == _MISSING and self._acm.exists(after):
                raise Busy(
                    f"{self._label}: ACM has the certificate, Elastic Load Balancing does not "
                    "see it yet",
                    connector=self._label,
                    code=exc.code,
                ) from exc
            raise ActivationRefused(
                f"AWS refused the certificate: {exc}",
                remedy="Look at what the listener's protocol and policy take. Then retry, no new "
                "order is made.",
            ) from exc

    def _place(self, site: str) -> _Place:
        found = _PLACE.fullmatch(site)
        if found is None:
            raise InvalidRequest(
                f"not a listener: {plain(site)[:300]}",
                remedy="Set the endpoint's site to NAME:PORT or NAME:PORT/HOST of a load balancer.",
            )
        with self._calls(f"find the load balancer {found['name']}"):
            (balancer, *_) = self._client.describe_load_balancers(Names=[found["name"]])[
                "LoadBalancers"
            ] or [{}]
        arn = balancer.get("LoadBalancerArn", "")
        listeners = self._pages("describe_listeners", "Listeners", LoadBalancerArn=arn)
        for one in listeners if arn else ():
            if one.get("Port") == int(found["port"]) and one.get("Protocol") in _SECURE:
                return _Place(one["ListenerArn"], (found["host"] or "").lower())
        raise NotFound(
            f"{self._label}: {found['name']} has no HTTPS or TLS listener on port {found['port']}",
            remedy="Make the listener with any certificate first, or correct the endpoint's site.",
            connector=self._label,
        )

    def _present(self, place: _Place) -> str:
        """Return the ARN of what *place* has, "" for nothing.

        Of several certificates for one name AWS takes the one that is valid longest.
        """
        default, rest = self._certificates(place.listener)
        if not place.host:
            return default
        fitting = [arn for arn in rest if _covers(self._names(arn), place.host)]
        return max(fitting, key=lambda arn: self._rank(arn, place.host), default="")

    def _rank(self, arn: str, host: str) -> tuple[bool, float, str]:
        leaf = self._acm.leaf(arn)
        assert leaf is not None
        exact = host in subject_names(leaf)
        return exact, leaf.not_valid_before_utc.timestamp(), arn

    def _lists(self, place: _Place, arn: str) -> bool:
        return bool(place.host and arn) and arn in self._certificates(place.listener)[1]

    def _certificates(self, listener: str) -> tuple[str, list[str]]:
        """Return the default certificate and the list of others."""
        default, rest = "", []
        for one in self._pages(
            "describe_listener_certificates", "Certificates", ListenerArn=listener
        ):
            if one.get("IsDefault"):
                default = str(one["CertificateArn"])
            else:
                rest.append(str(one["CertificateArn"]))
        return default, rest

    def _names(self, arn: str) -> tuple[str, ...]:
        leaf = self._acm.leaf(arn)
        return subject_names(leaf) if leaf is not None else ()

    def _site(self, id_: str, listens: tuple[str, ...], arn: str) -> Site:
        return Site(
            id_, self._names(arn), listens, tls=True, fingerprint=self._acm.fingerprint(arn)
        )

    def _pages(self, call: str, field: str, **asked: Any) -> Iterator[Mapping[str, Any]]:
        more: dict[str, str] = {}
        while True:
            with self._calls(call.replace("_", " ")):
                page = getattr(self._client, call)(**asked, **more)
                found = page[field]
            yield from found
            if not page.get("NextMarker"):
                return
            more = {"Marker": page["NextMarker"]}

    @contextmanager
    def _calls(self, what: str) -> Iterator[None]:
        try:
            with aws.calls(self._label, what):
                yield
        except PermissionRefused as exc:
            exc.remedy = (
                "Give the role the permissions of the connector's page, for elasticloadbalancing "
                "and acm."
            )
            raise


def _covers(names: tuple[str, ...], host: str) -> bool:
    """Return whether a certificate with *names* is for *host*, wildcards included."""
    return any(matches(name, host) for name in names)
