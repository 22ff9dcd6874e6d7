"""An installation, real servers around it, and a place on each way where things break.

:meth:`Field.storm` runs requests through chosen faults and then, with the
faults over, to their end; :mod:`tests.chaos.invariants` says what must hold
after it.
"""

from __future__ import annotations

import base64
import secrets
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit
from uuid import UUID, uuid4

import httpx
import psycopg

from certrail.errors import CertrailError, Unreachable
from certrail.settings import read_run_file
from tests.support import pebble
from tests.support.fault_link import Break, Link, link
from tests.support.faulty_proxy import Fault, Proxy, faulty_proxy, is_at
from tests.support.flow_runner import FlowRunner
from tests.support.hook_server import HookServer, hook_server
from tests.support.nginx import Visits
from tests.support.process import wait_for
from tests.support.stack import Stack
from tests.support.world import World, world

_TRIES = 8


@dataclass(frozen=True)
class Trouble:
    """One fault on one of the ways.

    Attributes:
        way: ``ca``, ``dns``, ``ssh``, ``prefect`` or ``database``; to Prefect goes either, a call
            or a connection.
        what: what happens.
        where: for a call ``METHOD /part/of/path`` or its number; for a connection the number of
            the piece.
    """

    way: str
    what: Fault | Break
    where: str | int

    def __str__(self) -> str:
        return f"{self.way} {self.where}: {self.what.value}"


@dataclass
class Seen:
    """What a storm did to some requests.

    Attributes:
        requests: ids by name.
        fired: how many faults of each trouble happened.
        failures: how often a run ended with a failed step before the faults were over.
        orders, certificates: how many more the CA has than before.
        visits: what clients met meanwhile, by name.
        before: what was served, by name.
    """

    requests: dict[str, str]
    fired: Counter[str] = field(default_factory=Counter)
    failures: list[dict[str, Any]] = field(default_factory=list)
    orders: int = 0
    certificates: int = 0
    visits: dict[str, Visits] = field(default_factory=dict)
    before: dict[str, str] = field(default_factory=dict)


@dataclass
class Field:
    """Everything that takes part."""

    stack: Stack
    outside: World
    ca: Proxy
    dns: Proxy
    ssh: Link
    api: Proxy
    prefect: Link
    database: Link
    runner: FlowRunner
    log: Path
    environment: Mapping[str, str]
    hooks: HookServer
    began: float = field(default_factory=time.time)
    _waiting: list[Trouble] = field(default_factory=list)
    _fired: Counter[str] = field(default_factory=Counter)
    _calls: Counter[str] = field(default_factory=Counter)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def storm(
        self,
        names: Sequence[str],
        troubles: Sequence[Trouble],
        *,
        twice: bool = False,
        meanwhile: Callable[[], object] = lambda: None,
        repair: Callable[[], object] = lambda: None,
    ) -> Seen:
        """Run a request for each of *names* at once while *troubles* happen, then to the end.

        With *twice* each request is started by two processes at the same moment;
        *meanwhile* is done once they have begun, *repair* before anything is retried.
        """
        seen = Seen({name: self.request(name) for name in names})
        seen.before = {name: self.outside.nginx.served(name) for name in names}
        ca = self.outside.ca
        orders, certificates = ca.order_count(), ca.certificate_count()
        with ExitStack() as stack:
            for name in names:
                seen.visits[name] = stack.enter_context(
                    self.outside.nginx.visitors(name, threads=1, pause=0.1)
                )
            self.arm(troubles)
            runs = [
                self.runner.start(request)
                for request in seen.requests.values()
                for _ in range(2 if twice else 1)
            ]
            meanwhile()
            for run in runs:
                self.runner.wait(run, within=120)
            wait_for(self._is_up, "the installation is there again", within=60)
            seen.fired = self.disarm()
            for request in seen.requests.values():
                self._to_the_end(request, seen, repair)
            self.runner.reconcile()
        seen.orders = ca.order_count() - orders
        seen.certificates = ca.certificate_count() - certificates
        return seen

    def all_requests(self) -> list[UUID]:
        """Return every request that this field has had."""
        with psycopg.connect(self.stack.database_url) as connection:
            rows = connection.execute(
                "select r.id from requests r join endpoints e on e.id = r.endpoint_id"
                " where e.location = any(%s)",
                [[f"{name}:443" for name in self.outside.names]],
            )
            return [id_ for (id_,) in rows]

    def request(self, name: str) -> str:
        """Store a request that no worker knows of."""
        return renewal_of(f"{name}:443")

    def arm(self, troubles: Sequence[Trouble]) -> None:
        """Let each of *troubles* happen once."""
        self._fired.clear()
        self._calls.clear()
        self._waiting = [one for one in troubles if isinstance(one.what, Fault)]
        for one in troubles:
            if isinstance(one.what, Break):
                assert isinstance(one.where, int)
                self.links[one.way].arm(one.what, one.where)
        for line in self.links.values():
            line.broken = 0

    def disarm(self) -> Counter[str]:
        """End all faults; returns how often which way broke."""
        self._waiting = []
        for line in self.links.values():
            line.disarm()
        fired = Counter(self._fired)
        for way, line in self.links.items():
            fired[way] += line.broken
        return +fired

    @property
    def links(self) -> Mapping[str, Link]:
        """The ways whose connections break, whatever they carry."""
        return {"ssh": self.ssh, "prefect": self.prefect, "database": self.database}

    def choose(self, way: str, method: str, path: str) -> Fault:
        """Return what happens to a call, and that it has happened."""
        with self._lock:
            self._calls[way] += 1
            for one in self._waiting:
                if one.way == way and self._is_at(one.where, way, method, path):
                    self._waiting.remove(one)
                    self._fired[way] += 1
                    assert isinstance(one.what, Fault)
                    return one.what
        return Fault.NONE

    def _is_at(self, where: str | int, way: str, method: str, path: str) -> bool:
        if isinstance(where, int):
            return self._calls[way] >= where
        return is_at(where, method, path)

    def row(self, request_id: str) -> dict[str, Any]:
        """Return the status of a request, who holds it, and what failed in it."""
        with psycopg.connect(self.stack.database_url) as connection:
            status, owner = connection.execute(
                "select status, case when lease_until > now() then lease_owner end"
                " from requests where id = %s",
                [request_id],
            ).fetchone() or ("", None)
            failed = connection.execute(
                "select title, cause, remedy, retryable from steps"
                " where request_id = %s and status = 'failed'",
                [request_id],
            ).fetchall()
        return {"status": status, "owner": owner, "failed": failed}

    def _is_up(self) -> bool:
        from certrail.store import requests

        try:
            # Of both pools; the first call finds the connections that are gone.
            requests.newest(limit=1)
            requests.of_run(uuid4())
            return httpx.get(f"{self.stack.api_url}/health", timeout=10).is_success
        except (CertrailError, httpx.HTTPError):
            return False

    def _to_the_end(self, request_id: str, seen: Seen, repair: Callable[[], object]) -> None:
        from certrail.cli import _starting
        from certrail.store import requests

        for _ in range(_TRIES):
            wait_for(
                lambda: self.row(request_id)["owner"] is None, "nobody runs the request", within=60
            )
            now = self.row(request_id)
            if now["status"] == "automation-successful":
                return
            if now["status"] == "automation-failed":
                seen.failures.append(now)
                repair()
                with suppress(Unreachable):
                    _starting.reopen(requests.get(UUID(request_id)), "test")
            self.runner.run(request_id)
        shown = self.stack.cli("request", "show", request_id, "--history").stdout
        raise AssertionError(f"lost: {shown}\n{self.log.read_text()[-3000:]}")


@contextmanager
def the_field(
    stack: Stack,
    folder: Path,
    names: Sequence[str],
    *,
    prefix: str = "chaos",
    servers: Mapping[str, Mapping[str, Any]] | None = None,
) -> Iterator[Field]:
    """Put proxies on all ways between *stack* and a world with *names*, and apply it.

    Args:
        stack: the installation.
        folder: for the files of the world.
        names: of its sites.
        prefix: of connectors and profile.
        servers: what the server settings of some names have besides.
    """
    running = read_run_file(stack.data_dir)
    assert running is not None
    with ExitStack() as on:
        outside = on.enter_context(world(folder / "world", names))
        pair = (outside.folder / "ca" / "pebble-tls.pem", outside.folder / "ca" / "pebble-tls.key")
        ca = on.enter_context(faulty_proxy(urlsplit(outside.ca.directory_url).port or 0, tls=pair))
        ca.alone = pebble.ALONE
        dns = on.enter_context(faulty_proxy(urlsplit(outside.dns.url).port or 0))
        ssh = on.enter_context(link(outside.ssh.port))
        server = urlsplit(stack.api_url).port or 0
        api = on.enter_context(faulty_proxy(server, keep=True))
        prefect = on.enter_context(link(api.port))
        database = on.enter_context(link(urlsplit(stack.database_url).port or 0))
        found = {
            **running.environment(),
            "PREFECT_API_URL": _moved(running.environment()["PREFECT_API_URL"], prefect.port),
            "CERTRAIL_DATABASE_URL": _moved(stack.database_url, database.port),
            "CERTRAIL_LEASE_SECONDS": "1",
            "CERTRAIL_RETRY_SECONDS": "0.2",
        }
        log = folder / "runner.log"
        runner = on.enter_context(FlowRunner(found, log))
        secret = folder / "hook-secret"
        secret.touch(mode=0o600)
        secret.write_text("whsec_" + base64.b64encode(secrets.token_bytes(32)).decode())
        hooks = on.enter_context(hook_server(secret.read_text()))
        made = Field(
            stack, outside, ca, dns, ssh, api, prefect, database, runner, log, found, hooks
        )
        for way, proxy in (("ca", ca), ("dns", dns), ("prefect", api)):
            proxy.choose = partial(made.choose, way)
        file = outside.write(f"{prefix}.yaml", _configuration(made, prefix, servers or {}))
        applied = stack.cli("apply", "-f", str(file))
        assert applied.returncode == 0, applied.stderr
        yield made


def _configuration(
    field_: Field, prefix: str, servers: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    outside = field_.outside
    ca, dns, target = outside.connectors()
    ca |= {"name": f"{prefix}-ca", "directory_url": f"https://127.0.0.1:{field_.ca.port}/dir"}
    dns |= {"name": f"{prefix}-ns", "url": f"http://127.0.0.1:{field_.dns.port}"}
    del target["known_hosts_file"]
    target |= {
        "name": f"{prefix}-web",
        "port": field_.ssh.port,
        "host_key": outside.ssh.host_key,
    }
    validation = {"method": "dns-01", "dns": f"{prefix}-ns", "timeout_seconds": 60}
    told = {
        "mode": "replace",
        "events": ["automation-completed", "automation-failed"],
        "channels": [f"{prefix}-hook"],
    }
    profile = outside.profile(
        name=prefix, ca=f"{prefix}-ca", validation=validation, notifications=told
    )
    hook = {"name": f"{prefix}-hook", "type": "notifier-webhook", "url": field_.hooks.url}
    hook["secret"] = f"file:{field_.log.parent / 'hook-secret'}"
    endpoints = [
        outside.endpoint(name, profile=prefix, target=f"{prefix}-web") for name in outside.names
    ]
    for endpoint in endpoints:
        endpoint["server"] |= servers.get(endpoint["names"][0], {})
    return {"connectors": [ca, dns, target, hook], "profiles": [profile], "endpoints": endpoints}


def _moved(url: str, port: int) -> str:
    parts = urlsplit(url)
    head, _, _ = parts.netloc.rpartition(":")
    return urlunsplit(parts._replace(netloc=f"{head}:{port}"))


def renewal_of(location: str) -> str:
    """Store a request of the endpoint that no worker knows of; returns its id."""
    from certrail.model import Action
    from certrail.store import new_requests, plans
    from certrail.store.requests import Reason

    prepared = plans.for_location(location)
    made = new_requests.create(
        prepared.endpoint_id,
        action=Action.RENEW,
        plan=prepared.plan,
        reason=Reason("requested", "by a test"),
        actor="test",
    )
    return str(made.id)
