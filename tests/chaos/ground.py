"""Endpoints of all three workflows, and a place on each way to them where things break.

Web servers: Pebble, PowerDNS, nginx behind sshd. Appliances: a real Caddy by its
admin API. Deliveries: PKCS #12 into a folder behind the same sshd. Both of these
get their certificates from a CA in a folder, whose files say what it issued.
"""

from __future__ import annotations

import random
import secrets
import threading
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx

from certrail.model import Workflow
from tests.chaos.troubles import CERTIFICATE, CHALLENGE, FINALIZE, ORDER, RECORDS, STATE
from tests.support import pebble
from tests.support.bulk import Estate, make_root
from tests.support.caddy import Caddy, entry
from tests.support.fault_link import Break, Link, link
from tests.support.faulty_proxy import Fault, Proxy, faulty_proxy, is_at
from tests.support.mail_server import MailServer, mail_server
from tests.support.stack import Stack
from tests.support.world import World, world

EXECUTOR = "soak"
_CA_BUDGET = 25
_HTTP: dict[str, tuple[str, ...]] = {
    "ca": (ORDER, CHALLENGE, FINALIZE, CERTIFICATE, "HEAD /nonce-plz"),
    "dns": (RECORDS, "GET /api/"),
    "appliance": ("GET /config/", "PATCH /config/", "POST /config/", "DELETE /config/"),
    # Slots that are taken twice are free again after a minute, for which all requests would wait.
    "prefect": (STATE, "POST /api/events", "POST /decrement-with-lease"),
}
# To Prefect goes a proxy behind a link; what breaks a connection is done by that one.
_OF_CALLS: dict[str, set[Fault]] = {
    "ca": set(Fault) - {Fault.NONE},
    "prefect": {Fault.REFUSED_AFTER, Fault.DOUBLED},
}
_LINKS = ("ssh", "database", "prefect")
# Within so many calls or pieces that come back it has happened. Counted from where it was drawn,
# whoever calls: one that waited for a call that is rare, as that for a first nonce, would come
# with many others and spoil every try of whoever calls.
_SOON = {"ca": 150, "dns": 100, "appliance": 40, "ssh": 200, "database": 1000, "prefect": 40}
_EVERYWHERE = ("database", "prefect")
_WAYS = {
    Workflow.WEB_SERVER: ("ca", "dns", "ssh", *_EVERYWHERE),
    Workflow.APPLIANCE: ("appliance", *_EVERYWHERE),
    Workflow.DELIVERY: ("ssh", *_EVERYWHERE),
}


@dataclass
class _Waiting:
    fault: Fault
    left: int


class Faults:
    """Every kind of fault on every way, each in a share of the requests.

    Attributes:
        drawn, happened: how often, by way and fault.
    """

    def __init__(self, chance: random.Random, percent: float) -> None:
        self.drawn: Counter[str] = Counter()
        self.happened: Counter[str] = Counter()
        self._chance = chance
        self._share = percent / 100
        self._links: Mapping[str, Link] = {}
        self._waiting: dict[str, list[_Waiting]] = defaultdict(list)
        self._lock = threading.Lock()

    def spoil(self, proxies: Mapping[str, Proxy], links: Mapping[str, Link]) -> None:
        """Break things on these ways."""
        self._links = links
        for way, proxy in proxies.items():
            proxy.choose = partial(self._choose, way)

    def mix_in(self, workflow: Workflow) -> None:
        """Draw for one more request: each kind of fault on each of its ways by itself."""
        for way in _WAYS[workflow]:
            for fault in kinds(way):
                if self._chance.random() >= self._share:
                    continue
                self.drawn[f"{way}: {fault.value}"] += 1
                after = self._chance.randint(1, _SOON[way])
                if isinstance(fault, Break):
                    self._links[way].arm(fault, after)
                    continue
                with self._lock:
                    self._waiting[way].append(_Waiting(fault, after))

    def end(self) -> Counter[str]:
        """Forget the faults that have not happened; returns those that have."""
        with self._lock:
            self._waiting.clear()
        found = Counter(self.happened)
        for way, line in self._links.items():
            line.disarm()
            for fault, times in line.happened.items():
                found[f"{way}: {fault.value}"] += times
        return found

    def _choose(self, way: str, method: str, path: str) -> Fault:
        if not any(is_at(place, method, path) for place in _HTTP[way]):
            return Fault.NONE
        with self._lock:
            for one in self._waiting[way]:
                one.left -= 1
            for one in self._waiting[way]:
                # Only a POST uses a nonce up.
                if one.left <= 0 and (one.fault is not Fault.STALE_NONCE or method == "POST"):
                    self._waiting[way].remove(one)
                    self.happened[f"{way}: {one.fault.value}"] += 1
                    return one.fault
        return Fault.NONE


def kinds(way: str) -> Sequence[Fault | Break]:
    """Return what can break on a way."""
    usual = set(Fault) - {Fault.NONE, Fault.STALE_NONCE} if way in _HTTP else set()
    of_calls = _OF_CALLS.get(way, usual)
    return [
        *(one for one in Fault if one in of_calls),
        *(one for one in Break if way in _LINKS),
    ]


@dataclass(frozen=True)
class Place:
    """One endpoint: its location, its name in certificates, and what its requests do."""

    location: str
    name: str
    workflow: Workflow


@dataclass
class Ground:
    """Everything that takes part.

    Attributes:
        places: all endpoints.
        api_url, database_url: Prefect and the inventory, by the ways where things break.
    """

    stack: Stack
    outside: World
    caddy: Caddy
    mail: MailServer
    estate: Estate
    delivered: Path
    places: list[Place]
    api_url: str
    database_url: str
    ca_port: int
    dns_port: int
    appliance_port: int
    ssh_port: int
    password: Path = field(default_factory=Path)

    def served(self, place: Place) -> str | None:
        """Return what a client finds at a place; None for a delivery, which serves nothing."""
        if place.workflow is Workflow.WEB_SERVER:
            return str(self.outside.nginx.served(place.name))
        if place.workflow is Workflow.APPLIANCE:
            return str(self.caddy.served(place.name))
        return None

    def issued(self) -> Counter[str]:
        """Count the certificates that each CA says it issued."""
        return Counter(
            {
                "pebble": self.outside.ca.certificate_count(),
                "folder": sum(self.estate.issued().values()),
            }
        )

    def configuration(self) -> dict[str, Any]:
        """Return the file that puts all of it under Certrail."""
        outside = self.outside
        ca, dns, host = outside.connectors()
        ca |= {"name": "soak-acme", "directory_url": f"https://127.0.0.1:{self.ca_port}/dir"}
        dns |= {"name": "soak-ns", "url": f"http://127.0.0.1:{self.dns_port}"}
        del host["known_hosts_file"]
        host |= {"name": "soak-host", "port": self.ssh_port, "host_key": outside.ssh.host_key}
        appliance = {
            "name": "soak-caddy",
            "type": "target-caddy",
            "url": f"http://127.0.0.1:{self.appliance_port}",
        }
        private = {"name": "soak-ca", "type": "ca-local", "ca_dir": str(self.estate.folder / "ca")}
        post = {
            "name": "soak-mail",
            "type": "notifier-smtp",
            "host": "127.0.0.1",
            "port": self.mail.port,
            "security": "none",
            "sender": "Certrail <certrail@example.test>",
        }
        validation = {"method": "dns-01", "dns": "soak-ns", "timeout_seconds": 120}
        trust = str(self.estate.folder / "ca" / "authority" / "root.pem")
        return {
            "connectors": [ca, dns, host, appliance, private, post],
            "notifications": {
                "mail": "soak-mail",
                "email": ["ops@example.test"],
                "events": ["automation-completed", "automation-failed"],
            },
            "profiles": [
                outside.profile(name="soak-web", ca="soak-acme", validation=validation),
                {"name": "soak-app", "workflow": "appliance", "ca": "soak-ca", "trust": trust},
                {"name": "soak-delivery", "workflow": "delivery", "ca": "soak-ca", "trust": trust},
            ],
            "endpoints": [self._endpoint(place) for place in self.places],
        }

    def _endpoint(self, place: Place) -> dict[str, Any]:
        common = {"location": place.location, "names": [place.name], "executor": EXECUTOR}
        if place.workflow is Workflow.WEB_SERVER:
            return self.outside.endpoint(
                place.name, profile="soak-web", target="soak-host", **common
            )
        if place.workflow is Workflow.APPLIANCE:
            return common | {
                "address": f"127.0.0.1:{self.caddy.port}",
                "profile": "soak-app",
                "target": "soak-caddy",
                "server": {"site": place.name},
            }
        return common | {
            "profile": "soak-delivery",
            "target": "soak-host",
            "server": {
                "kind": "directory",
                "path": str(self.delivered),
                "format": "pkcs12",
                "password": f"file:{self.password}",
            },
        }


@contextmanager
def the_ground(
    stack: Stack, folder: Path, faults: Faults, counts: Mapping[Workflow, int]
) -> Iterator[Ground]:
    """Start everything, apply it and put *faults* on all ways; *counts* are endpoints."""
    places = [
        Place(_location(workflow, name), name, workflow)
        for workflow, count in counts.items()
        for name in (f"{workflow.value[:3]}{number}.example.test" for number in range(count))
    ]
    by = {flow: [p.name for p in places if p.workflow is flow] for flow in Workflow}
    with ExitStack() as on:
        outside = on.enter_context(world(folder / "world", by[Workflow.WEB_SERVER]))
        (folder / "caddy").mkdir()
        caddy = on.enter_context(Caddy.started(folder / "caddy"))
        estate = Estate(folder / "private", (), 0, "soak")
        make_root(estate.folder / "ca")
        (folder / "password").touch(mode=0o600)
        (folder / "password").write_text(secrets.token_hex(8))
        pair = (outside.folder / "ca" / "pebble-tls.pem", outside.folder / "ca" / "pebble-tls.key")
        proxies = {
            "ca": on.enter_context(
                faulty_proxy(urlsplit(outside.ca.directory_url).port or 0, tls=pair)
            ),
            "dns": on.enter_context(faulty_proxy(urlsplit(outside.dns.url).port or 0)),
            "appliance": on.enter_context(faulty_proxy(caddy.admin)),
            "prefect": on.enter_context(faulty_proxy(urlsplit(stack.api_url).port or 0, keep=True)),
        }
        proxies["ca"].alone = pebble.ALONE
        links = {
            "ssh": on.enter_context(link(outside.ssh.port)),
            "prefect": on.enter_context(link(proxies["prefect"].port)),
            "database": on.enter_context(link(urlsplit(stack.database_url).port or 0)),
        }
        # Caddy answers to the names of its own port only, unless it is told.
        ports = (caddy.admin, proxies["appliance"].port)
        origins = [f"127.0.0.1:{port}" for port in ports]
        assert caddy.change("PUT", "admin/origins", origins) == 200
        old = [entry(caddy.ca.bundle(name)) for name in by[Workflow.APPLIANCE]]
        assert caddy.change("PATCH", "apps/tls/certificates/load_pem", old) == 200
        made = Ground(
            stack=stack,
            outside=outside,
            caddy=caddy,
            mail=on.enter_context(mail_server()),
            estate=estate,
            delivered=folder / "delivered",
            places=places,
            api_url=moved(stack.api_url, links["prefect"].port),
            database_url=moved(stack.database_url, links["database"].port),
            ca_port=proxies["ca"].port,
            dns_port=proxies["dns"].port,
            appliance_port=proxies["appliance"].port,
            ssh_port=links["ssh"].port,
            password=folder / "password",
        )
        budget = {"name": "ca:soak-acme", "limit": _CA_BUDGET, "active": True}
        httpx.post(f"{stack.api_url}/v2/concurrency_limits/", json=budget).raise_for_status()
        applied = stack.cli("apply", "-f", str(outside.write("soak.yaml", made.configuration())))
        assert applied.returncode == 0, applied.stderr
        faults.spoil(proxies, links)
        yield made


def moved(url: str, port: int) -> str:
    """Return *url* with another port of the same host."""
    parts = urlsplit(url)
    head, _, _ = parts.netloc.rpartition(":")
    return parts._replace(netloc=f"{head}:{port}").geturl()


def _location(workflow: Workflow, name: str) -> str:
    return f"soak-folder/{name}" if workflow is Workflow.DELIVERY else f"{name}:443"
