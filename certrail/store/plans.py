"""Making a request's plan from endpoint, profile and connectors as they are now."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from pydantic import ValidationError
from sqlalchemy import Row, Select, any_, literal, select
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.dialects.postgresql import UUID as UUID_

from certrail.configuration.endpoint import with_tls
from certrail.configuration.fields import split_address
from certrail.configuration.plan import ConnectorRef, Place, Plan
from certrail.configuration.profile import ProfileConfig
from certrail.errors import InvalidRequest
from certrail.maintenance import Calendar
from certrail.model import Action
from certrail.names import Name
from certrail.store import endpoint_detail
from certrail.store.database import transaction
from certrail.store.schema import certificates, connectors, endpoints, profiles, requests
from certrail.words import quoted


@dataclass(frozen=True, slots=True)
class Prepared:
    """What is needed to start a request for an endpoint.

    Attributes:
        plan: as endpoint, profile and connectors are now.
        profile: the settings the plan was made from.
        certificate_id: the certificate it got from us last and serves, None if none.
        obtained_id: the newest certificate that was obtained for it, installed or not.
        obtained_names: the names in that one.
    """

    endpoint_id: UUID
    plan: Plan
    profile: ProfileConfig
    certificate_id: UUID | None
    obtained_id: UUID | None
    obtained_names: tuple[str, ...] = ()

    @property
    def default_action(self) -> Action:
        """Enroll without a certificate of ours, else renew."""
        return Action.ENROLL if self.certificate_id is None else Action.RENEW

    def plan_for(self, action: Action) -> Plan:
        """Return the plan of a request with *action*.

        A certificate that is installed again has the names it has, whatever
        names the endpoint was given since.
        """
        if action is Action.REDEPLOY and self.obtained_names:
            return self.plan.model_copy(update={"names": self.obtained_names})
        return self.plan

    def certificate_for(self, action: Action) -> UUID | None:
        """Return the certificate that a request with *action* begins with, None to obtain one.

        Raises:
            InvalidRequest: there is none to install again.
        """
        if action is not Action.REDEPLOY:
            return None
        if self.obtained_id is None:
            raise InvalidRequest(
                f"no certificate was obtained for {self.plan.location} yet, so there is nothing "
                "to install again",
                remedy=f"certrail request start {quoted(self.plan.location)} --action enroll",
            )
        return self.obtained_id


def for_location(location: str) -> Prepared:
    """Return the plan for one endpoint.

    Raises:
        NotFound: the inventory has none of that location.
        InvalidRequest: it is not configured well enough; says what is missing.
    """
    with transaction() as connection:
        rows = connection.execute(_query().where(endpoints.c.location == location.lower())).all()
        slugs = _slugs(connection)
        if not rows:
            raise endpoint_detail.unknown(location, connection)
    return _prepare(rows[0], slugs)


def for_endpoints(ids: Iterable[UUID]) -> dict[UUID, Prepared | InvalidRequest]:
    """Return the plan for each of several endpoints, or why there is none."""
    found: dict[UUID, Prepared | InvalidRequest] = {}
    with transaction() as connection:
        rows = connection.execute(
            _query().where(endpoints.c.id == any_(literal(list(ids), ARRAY(UUID_))))
        ).all()
        slugs = _slugs(connection)
    for row in rows:
        try:
            found[row.id] = _prepare(row, slugs)
        except InvalidRequest as exc:
            found[row.id] = exc
    return found


def calendars() -> dict[str, Calendar]:
    """Return when certificates may be installed, by the profile's name."""
    with transaction() as connection:
        stored = connection.execute(select(profiles.c.settings)).scalars().all()
    found = (read_profile(settings) for settings in stored)
    return {one.name: one.calendar for one in found}


def _query() -> Select[Any]:
    obtained = (
        select(requests.c.certificate_id)
        .where(
            requests.c.endpoint_id == endpoints.c.id,
            requests.c.certificate_id.is_not(None),
        )
        .order_by(requests.c.created_at.desc())
        .limit(1)
        .correlate(endpoints)
        .scalar_subquery()
    )
    had = certificates.alias("had")
    return select(
        endpoints,
        profiles.c.settings.label("profile_settings"),
        certificates.c.id.label("present_id"),
        obtained.label("obtained_id"),
        select(had.c.names).where(had.c.id == obtained).scalar_subquery().label("obtained_names"),
        certificates.c.names.label("present_names"),
        connectors.c.executor.label("target_executor"),
    ).select_from(
        endpoints.outerjoin(profiles, endpoints.c.profile_id == profiles.c.id)
        .outerjoin(certificates, endpoints.c.certificate_id == certificates.c.id)
        .outerjoin(connectors, endpoints.c.target == connectors.c.name)
    )


def _slugs(connection: Any) -> Mapping[str, str]:
    return {row.name: row.slug for row in connection.execute(select(connectors))}


def _prepare(row: Row[Any], slugs: Mapping[str, str]) -> Prepared:
    location = row.location
    if row.profile_settings is None:
        raise InvalidRequest(
            f"{location} has no profile, so nothing says which CA to ask",
            remedy="Give the endpoint a `profile` in the configuration file, then "
            "`certrail apply`.",
        )
    if row.target is None:
        raise InvalidRequest(
            f"{location} has no target, so the certificate could not be installed",
            remedy="Give the endpoint a `target` in the configuration file, then `certrail apply`.",
        )
    profile = read_profile(row.profile_settings)
    if row.also_on and profile.key.location == "host":
        raise InvalidRequest(
            f"{location} is served by several machines, so its key cannot stay on one of them",
            remedy="Give it a profile with `key: {location: store}`, or make an endpoint of each.",
        )
    names = tuple(row.names) or _own_names(row)
    dns = profile.validation.dns if profile.validation else None
    try:
        plan = Plan(
            location=location,
            names=names,
            addresses=tuple(row.addresses),
            sni=row.sni or _sni(location, names),
            starttls=row.starttls,
            server=with_tls(row.server, enabled=profile.enable_tls),
            target=_reference(row.target, slugs),
            also_on=_further(row, slugs, enable_tls=profile.enable_tls),
            workflow=profile.workflow,
            profile=profile.name,
            ca=_reference(profile.ca, slugs),
            ca_profile=profile.ca_profile,
            validation=profile.validation,
            dns=_reference(dns, slugs) if dns else None,
            key_algorithm=profile.key.algorithm,
            key_location=profile.key.location,
            trust_pem=profile.trust_pem,
            client=profile.client,
            replaces=profile.renew.use_ari,
            issue_timeout_seconds=profile.issue_timeout_seconds,
            install_timeout_seconds=profile.install_timeout_seconds,
            executor=row.executor or row.target_executor,
            approval=profile.approval,
        )
    except ValidationError as exc:
        first = exc.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise InvalidRequest(f"{location} cannot be automated: {where}: {first['msg']}") from None
    return Prepared(
        endpoint_id=row.id,
        plan=plan,
        profile=profile,
        certificate_id=row.present_id,
        obtained_id=row.obtained_id or row.present_id,
        obtained_names=tuple(row.obtained_names or row.present_names or ()),
    )


def _further(row: Row[Any], slugs: Mapping[str, str], *, enable_tls: bool) -> tuple[Place, ...]:
    return tuple(
        Place(
            target=_reference(one["target"], slugs),
            server=with_tls(one["server"] or row.server, enabled=enable_tls),
            addresses=tuple(one["address"]),
        )
        for one in row.also_on
    )


def read_profile(settings: Mapping[str, Any]) -> ProfileConfig:
    """Read a profile as it is stored.

    Raises:
        InvalidRequest: another version wrote it.
    """
    try:
        return ProfileConfig.model_validate(settings)
    except ValidationError as exc:
        first = exc.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise InvalidRequest(
            f"the stored profile {settings.get('name', '')} cannot be read: {where}: "
            f"{first['msg']}",
            remedy="Apply the profile again with `certrail apply`.",
        ) from None


def _own_names(row: Row[Any]) -> tuple[str, ...]:
    """Return the name that the endpoint goes by, when no names are configured."""
    host = row.sni or _host(row.location)
    if host:
        try:
            return (Name.parse(host).text,)
        except InvalidRequest:
            pass
    raise InvalidRequest(
        f"{row.location} has no names to put into the certificate",
        remedy="List `names` for the endpoint in the configuration file, then `certrail apply`.",
    )


def _sni(location: str, names: tuple[str, ...]) -> str | None:
    candidates = [host for host in (_host(location),) if host] or list(names)
    for candidate in candidates:
        try:
            name = Name.parse(candidate)
        except InvalidRequest:
            continue
        if not name.is_ip and not name.is_wildcard:
            return name.text
    return None


def _host(location: str) -> str | None:
    try:
        return split_address(location)[0]
    except ValueError:
        return None  # connector/object


def _reference(name: str, slugs: Mapping[str, str]) -> ConnectorRef:
    if name not in slugs:
        raise InvalidRequest(
            f"there is no connector {name}",
            remedy="Add it to the configuration file, then `certrail apply`.",
        )
    return ConnectorRef(name=name, slug=slugs[name])
