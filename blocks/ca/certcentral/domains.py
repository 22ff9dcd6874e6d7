"""Domains of a CertCentral account: found, added, and proven by a DNS TXT record."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

from pydantic import BaseModel

from blocks.ca.certcentral.api import Api, Domain, DomainPage, NewDomain, Token
from certrail.errors import Rejected
from certrail.log import effect, logger
from certrail.model import Authorization, AuthorizationStatus, Challenge, ChallengeKind
from certrail.remote import http

METHOD = "dns-txt-token"


class Domains:
    """What the account knows of domains, for products of one validation type at a time."""

    def __init__(
        self, api: Api, *, label: str, url: str, organization: int, dcv_label: str, poll: timedelta
    ) -> None:
        self._api = api
        self._label = label
        self._url = url
        self._organization = organization
        self._dcv_label = dcv_label
        self._poll = poll
        self._seen: set[int] = set()

    def authorizations(self, domains: Mapping[str, int], product: str) -> tuple[Authorization, ...]:
        """Return the state of every name; *domains* are ids by name.

        From the second time on, CertCentral is asked to look for the record
        first; the first time, nobody has published it yet.
        """
        kind = _validation_type(product)
        states = {number: self._state(number, kind) for number in set(domains.values())}
        return tuple(self._authorization(name, states[domains[name]], kind) for name in domains)

    def look(self, challenge: Challenge) -> None:
        """Have CertCentral look for the record of *challenge*."""
        number = int(challenge.authorization.rpartition("/")[2])
        self._seen.add(number)
        self._look_for_record(number)

    def covering(self, name: str, product: str) -> int:
        """Return the id of the account's domain that covers *name*, adding one if none does."""
        base = name.removeprefix("*.")
        labels = base.split(".")
        for start in range(max(1, len(labels) - 1)):
            candidate = ".".join(labels[start:])
            params = {"filters[search]": candidate, "limit": 1000}
            listed = http.json_of(self._api.call("GET", "domain", params=params), DomainPage)
            for domain in listed.domains:
                if domain.name.lower() == candidate and domain.is_active:
                    return self._submitted(domain.id, product)
        body = {
            "name": base,
            "organization": {"id": self._organization},
            "validations": [{"type": _validation_type(product)}],
            "dcv_method": METHOD,
        }
        number = http.json_of(self._api.call("POST", "domain", body), NewDomain).id
        effect("ca.domain.add", ca=self._label, domain=base, id=number)
        return number

    def _submitted(self, number: int, product: str) -> int:
        """Have a known domain validated by DNS, unless it is valid already."""
        domain = self._domain(number)
        kind = _validation_type(product)
        if _proven(domain, kind) is None and (domain.dcv_method != METHOD or not _usable(domain)):
            body = {"validations": [{"type": kind}], "dcv_method": METHOD}
            self._api.call("POST", f"domain/{number}/validation", body)
            effect("ca.domain.submit", ca=self._label, domain=domain.name, id=number)
        return number

    def _domain(self, number: int) -> Domain:
        params = {"include_dcv": "true", "include_validation": "true"}
        return http.json_of(self._api.call("GET", f"domain/{number}", params=params), Domain)

    def _state(self, number: int, kind: str) -> Domain:
        domain = self._domain(number)
        if _proven(domain, kind) is None and number in self._seen:
            self._look_for_record(number)
            domain = self._domain(number)
        self._seen.add(number)
        if _proven(domain, kind) is None and not _usable(domain):
            reply = self._api.call("POST", f"domain/{number}/dcv/token")
            domain = domain.model_copy(update={"dcv_token": http.json_of(reply, Token)})
        return domain

    def _look_for_record(self, number: int) -> None:
        try:
            self._api.call("PUT", f"domain/{number}/dcv/validate-token")
        except Rejected as exc:
            # Not there yet, or proven before; the domain itself tells which.
            logger.info("%s: domain %s: %s", self._label, number, exc)

    def _authorization(self, name: str, domain: Domain, kind: str) -> Authorization:
        url = f"{self._url}/domain/{domain.id}"
        proven = _proven(domain, kind)
        if proven is not None:
            return Authorization(name, AuthorizationStatus.VALID, url, expires=proven.until)
        assert domain.dcv_token is not None
        token, label = domain.dcv_token.token, self._dcv_label
        challenge = Challenge(
            kind=ChallengeKind.DNS_01,
            url=f"{url}/dcv/validate-token?token={token}",
            authorization=url,
            name=domain.name,
            token=token,
            key_authorization=token,
            txt_value=token,
            txt_name=f"{label}.{domain.name}" if label else domain.name,
        )
        return Authorization(
            name,
            AuthorizationStatus.PENDING,
            url,
            challenges=(challenge,),
            retry_after=self._poll,
        )


class _Proof(BaseModel):
    until: datetime | None = None


def _proven(domain: Domain, kind: str) -> _Proof | None:
    """Return until when control of *domain* is proven for *kind*, None if it is not."""
    for each in domain.validations:
        done = each.dcv_status in ("complete", "valid") if each.dcv_status else False
        if each.type == kind and (done or (not each.dcv_status and each.status == "active")):
            ends = domain.dcv_expiration_datetime or each.validated_until
            if ends is None or _aware(ends) > datetime.now(UTC):
                return _Proof(until=_aware(ends) if ends else None)
    return None


def _usable(domain: Domain) -> bool:
    token = domain.dcv_token
    if token is None or not token.token:
        return False
    return token.expiration_date is None or _aware(token.expiration_date) > datetime.now(UTC)


def _aware(moment: datetime) -> datetime:
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _validation_type(product: str) -> str:
    return "ev" if "_ev_" in f"{product}_" else "ov"
