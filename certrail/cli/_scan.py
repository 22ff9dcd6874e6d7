"""Looking at what is served now: at addresses, or on a target."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import click
import yaml

from certrail.cli import _prefect, _prefect_blocks
from certrail.cli._output import echo_table
from certrail.configuration.endpoint import EndpointConfig
from certrail.connectors import Host, InstallTarget
from certrail.errors import CertrailError, InvalidRequest, NotFound
from certrail.model import Site
from certrail.servers import registry
from certrail.servers.discovery import Found, discover
from certrail.settings import adopt
from certrail.steps import looking
from certrail.store import configured, inventory, observed
from certrail.store.database import transaction
from certrail.tls.addresses import is_ip
from certrail.tls.scan import Scanned, scan
from certrail.tls.starttls import StartTls, guess_starttls
from certrail.words import counted

_HTTPS = 443
# Settings that say which site is meant, not where the server is.
_OF_A_SITE = ("site", "listen")


def addresses(
    targets: Sequence[str],
    *,
    starttls: str | None,
    timeout: timedelta,
    concurrency: int,
    keep: bool,
) -> list[dict[str, Any]]:
    """Scan addresses and networks; a known location is reached the way it is configured.

    What only an agent or sensor reaches is not kept: its own regular look is.

    Raises:
        InvalidRequest: a target cannot be read, or is too large a network.
    """
    adopt()
    protocol = StartTls(starttls) if starttls else None
    rows: list[dict[str, Any]] = []
    unknown: list[str] = []
    for target in targets:
        place = observed.place_of(target)
        if place is None or not (place.addresses or place.sni or place.starttls or place.executor):
            unknown.append(target)
            continue
        answers = list(looking.look_at(place, protocol, timeout))
        # What answers here under the address of a place behind an agent may be another machine.
        if keep and place.executor is None:
            looking.keep(place, answers)
        rows += [_row(seen, place.location) for seen in answers]
    found = scan(unknown, concurrency=concurrency, timeout=timeout, starttls=protocol)
    for seen in found:
        location = observed.keep(seen.address, seen.to_json(), seen.chain) if keep else None
        rows.append(_row(seen, location))
    return rows


@dataclass(frozen=True, slots=True)
class Offer:
    """What was found on a target.

    Attributes:
        rows: one for each site, and one for each server that cannot be read.
        endpoints: the sites that are not in the inventory, as endpoints.
    """

    rows: list[dict[str, Any]]
    endpoints: list[EndpointConfig]

    def as_yaml(self) -> str:
        """Return the endpoints as a file for `certrail apply`."""
        found = [one.model_dump(mode="json", exclude_defaults=True) for one in self.endpoints]
        return str(yaml.safe_dump({"endpoints": found}, sort_keys=False, allow_unicode=True))


def sites_of_target(name: str, *, keep: bool, profile: str | None = None) -> Offer:
    """List the sites of a host or appliance; with *keep*, unknown ones become endpoints.

    Raises:
        NotFound: there is no connector of that name, or it serves no kind of server we know.
        InvalidRequest: it is not something that serves sites.
        ConnectorError: it cannot be reached.
    """
    _prefect.installation()
    with transaction() as connection:
        found = {c.name: c for c in configured.all_connectors(connection)}
    if name not in found:
        raise NotFound(
            f"there is no connector {name}", remedy="`certrail connector list` shows all."
        )
    block = _prefect_blocks.load_block(found[name].reference)
    known = {
        (str(server.get("kind", "")), *_site_key(server)): location
        for location, server in inventory.servers_on(name)
    }
    offer = Offer([], [])
    with block.connect() as opened:
        for server, target, running in _servers(name, opened):
            try:
                sites = list(target.sites())
            except CertrailError as exc:
                offer.rows.append(_unreadable(server, exc))
                continue
            for site in sites:
                location = known.get((str(server.get("kind", "")), *_site_key(site.settings)))
                wanted = None
                if location is None and site.tls and running:
                    wanted = _endpoint_of(name, block, server, site, profile)
                added = keep and wanted is not None and observed.add_site(wanted)
                if wanted is not None and wanted.location not in {
                    one.location for one in offer.endpoints
                }:
                    offer.endpoints.append(wanted)
                location = location or (wanted.location if wanted else None)
                row = _site_row(site, server, location, added=added)
                offer.rows.append({**row, "running": running})
    return offer


def print_rows(rows: Sequence[Mapping[str, Any]]) -> None:
    """Print what was found for people; addresses where nothing answers are only counted."""
    if rows and "site" in rows[0]:
        shown = ["server", "site", "listens", "tls", "running", "location", "added"]
        echo_table([(name, name) for name in shown], [one for one in rows if one["site"]])
        print_unreadable(rows)
        return
    silent = [row for row in rows if not row["reachable"]]
    answered = [_for_people(row) for row in rows if row["reachable"]]
    if answered:
        columns = ("address", "names", "issuer", "valid to", "key", "findings")
        echo_table([(name, name) for name in columns], answered)
    if silent:
        click.echo(f"{len(silent)} of {counted(len(rows), 'address', 'addresses')} did not answer")


def print_unreadable(rows: Sequence[Mapping[str, Any]]) -> None:
    """Say on standard error which servers could not be read, and why."""
    for one in rows:
        if "error" in one:
            click.echo(f"{one['server']}: {one['error']}", err=True)


def _row(seen: Scanned, location: str | None) -> dict[str, Any]:
    return {**seen.to_json(), "location": location}


def _for_people(row: Mapping[str, Any]) -> dict[str, Any]:
    certificate = row["certificate"] or {}
    ends = certificate.get("not_after")
    return {
        "address": row["address"],
        "names": certificate.get("names"),
        "issuer": certificate.get("issuer"),
        "valid to": datetime.fromisoformat(ends) if ends else None,
        "key": certificate.get("key"),
        "findings": [finding["code"] for finding in row["findings"]],
    }


def _servers(name: str, opened: Any) -> Iterator[tuple[dict[str, Any], InstallTarget, bool]]:
    """Yield settings and target of every server on what was opened, and whether it runs."""
    if isinstance(opened, InstallTarget):
        yield {}, opened, True
        return
    if not isinstance(opened, Host):
        raise InvalidRequest(
            f"{name} serves no sites", remedy="Name a host or an appliance with --target."
        )
    found = [Found(settings, running=True) for settings in _known_servers(name)]
    known = [one.settings for one in found]
    known_configs = {(one.kind, one.settings.get("config")) for one in found}
    for one in discover(opened):
        if one.settings in known or (one.kind, one.settings.get("config")) in known_configs:
            continue
        found.append(one)
    if not found:
        raise NotFound(
            f"no server of a known kind was found on {name}",
            remedy="Name its configuration in the `server` of an endpoint on this target. Known "
            f"kinds: {', '.join(registry.kinds())}.",
        )
    for one in found:
        yield one.settings, registry.open_target(opened, one.settings), one.running


def _site_key(settings: Mapping[str, Any]) -> tuple[str, str]:
    return str(settings.get("site", "")), str(settings.get("listen") or "")


def _known_servers(name: str) -> list[dict[str, Any]]:
    """Return how the servers of a host are configured in the inventory."""
    servers: dict[str, dict[str, Any]] = {}
    for _, server in inventory.servers_on(name):
        settings = {k: v for k, v in server.items() if k not in _OF_A_SITE}
        if settings.get("kind") in registry.kinds():
            servers[str(sorted(settings.items(), key=str))] = settings
    return list(servers.values())


def _endpoint_of(
    target: str, block: Any, server: Mapping[str, Any], site: Site, profile: str | None
) -> EndpointConfig | None:
    """Return the site as an endpoint; None where it has no name to be called by."""
    names = [name for name in site.names if not name.startswith(("*", "~", "_"))]
    if not names or not server:
        return None
    ports = [listen.rpartition(":")[2] for listen in site.listens]
    port = next((port for port in ports if port.isdigit() and port != "80"), str(_HTTPS))
    protocol = StartTls(site.starttls) if site.starttls else None
    try:
        return EndpointConfig(
            location=f"{names[0]}:{port}",
            address=_addresses(site, port, str(getattr(block, "host", ""))),
            names=tuple(names),
            profile=profile,
            target=target,
            server={**server, **{k: v for k, v in site.settings.items() if v}},
            starttls=None if protocol is guess_starttls(int(port)) else protocol,
        )
    except ValueError:
        return None


def _addresses(site: Site, port: str, machine: str) -> tuple[str, ...]:
    """Return where the site is to be tested: on that machine, not behind a balancer's name."""
    found: dict[str, None] = {}
    for listen in site.listens:
        host, _, own = listen.rpartition(":")
        if own != port:
            continue
        if is_ip(host.strip("[]")):
            found[listen] = None
        elif machine:
            found[f"[{machine}]:{port}" if ":" in machine else f"{machine}:{port}"] = None
    return tuple(found)


def _unreadable(server: Mapping[str, Any], error: CertrailError) -> dict[str, Any]:
    return {
        "site": None,
        "names": [],
        "listens": [],
        "tls": False,
        "fingerprint": None,
        "server": server.get("kind"),
        "location": None,
        "added": False,
        "running": True,
        "reachable": False,
        "error": " ".join(f"{error} {error.remedy}".split()),
    }


def _site_row(
    site: Site, server: Mapping[str, Any], location: str | None, *, added: bool
) -> dict[str, Any]:
    return {
        "site": site.id,
        "names": list(site.names),
        "listens": list(site.listens),
        "tls": site.tls,
        "fingerprint": site.fingerprint,
        "server": server.get("kind"),
        "location": location,
        "added": added,
        "reachable": True,
    }
