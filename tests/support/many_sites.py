"""Many sites of one real server, each with a request that is about to install its certificate."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from uuid import UUID

from sqlalchemy import insert

from certrail.configuration.plan import ConnectorRef, Plan
from certrail.connectors import InstallTarget
from certrail.errors import CertrailError
from certrail.model import Action, Bundle, Chain, Fingerprint, Site, Workflow
from certrail.remote.local import LocalHost
from certrail.servers.registry import open_target, site_of
from certrail.steps import installation, together
from certrail.steps.outcome import Work
from certrail.store import certificates, keys, new_requests, request_runs, requests
from certrail.store.database import locked, transaction
from certrail.store.requests import Reason
from certrail.store.schema import endpoints
from tests.support.apache import Apache
from tests.support.nginx import Nginx
from tests.support.process import wait_for

LOCK = "machine"
BLOCK = """
    server {{
        listen 127.0.0.1:@port@ ssl;
        server_name {name};
        ssl_certificate     @dir@/old.pem;
        ssl_certificate_key @dir@/old.key;
    }}
"""
HOST = """
<VirtualHost *:@port@>
    ServerName {name}
    SSLEngine on
    SSLCertificateFile @dir@/old.pem
    SSLCertificateKeyFile @dir@/old.key
</VirtualHost>
"""


@dataclass
class Sites:
    """The sites of one server, each with a request that is about to install."""

    web: Nginx | Apache
    bundles: dict[str, Bundle] = field(default_factory=dict)
    made: dict[str, UUID] = field(default_factory=dict)
    told: dict[str, str] = field(default_factory=dict)
    host: type[LocalHost] = LocalHost

    def request(self, name: str, bundle: Bundle | None = None, *, port: int = 443) -> None:
        """Make a request for the site that has its certificate; *port* tells endpoints apart."""
        bundle = bundle or self.web.ca.bundle(name)
        plan = Plan(
            location=f"{name}:{port}",
            names=(name,),
            addresses=(f"127.0.0.1:{self.web.port}",),
            sni=name,
            server={**self.web.server, "site": name},
            target=ConnectorRef(name="web", slug="host-local"),
            workflow=Workflow.WEB_SERVER,
            profile="p",
            ca=ConnectorRef(name="ca", slug="ca-acme"),
            trust_pem=Chain.of([self.web.ca.root]).text,
            client="openssl",
            install_timeout_seconds=20,
        )
        assert bundle.key
        with transaction() as connection:
            endpoint: UUID = connection.execute(
                insert(endpoints).values(location=plan.location).returning(endpoints.c.id)
            ).scalar_one()
        reason = Reason("requested", "by test")
        made = new_requests.create(
            endpoint, action=Action.RENEW, plan=plan, reason=reason, actor="t"
        )
        request_runs.take(made.id, "run", timedelta(seconds=60))
        with transaction() as connection:
            key = keys.keep(connection, bundle.key, purpose="leaf", algorithm="ecdsa-p256")
            found = certificates.save(connection, bundle.chain, key_id=key, ca="ca")
            requests.keep_certificate(connection, made.id, found)
        self.made[name], self.bundles[name] = made.id, bundle

    @contextmanager
    def open(self, plan: Plan) -> Iterator[tuple[InstallTarget, Site]]:
        """Open the server for one site."""
        target = open_target(self.host("web"), plan.server)
        target.lock_name = LOCK
        yield target, site_of(plan.server)

    def install(self, name: str) -> None:
        """Run the step; keeps what it tells."""
        work = Work.of(requests.get(self.made[name]))
        try:
            outcome = installation.install(work, lambda: self.open(work.plan))
        except CertrailError as exc:
            self.told[name] = f"{type(exc).__name__}: {exc}"
        except BaseException as exc:
            self.told[name] = f"{type(exc).__name__}: {exc}"
            if isinstance(exc, Exception):
                raise
        else:
            self.told[name] = outcome.detail

    def install_at_once(self, names: Sequence[str]) -> None:
        """Let all of them wait for the machine, then let it go."""
        threads = [threading.Thread(target=self.install, args=(name,)) for name in names]
        with locked(f"target:{LOCK}"):
            for thread in threads:
                thread.start()
            wait_for(lambda: together.waiting(f"target:{LOCK}") == len(names), "all of them wait")
        for thread in threads:
            thread.join()

    @property
    def right(self) -> dict[str, bool]:
        """Whether a client sees the new certificate of each."""
        return {
            name: self.web.served(name) == bundle.chain.fingerprint
            for name, bundle in self.bundles.items()
        }

    def served(self, name: str) -> Fingerprint:
        """What a client sees."""
        return self.web.served(name)


@contextmanager
def nginx(folder: Path, names: Sequence[str]) -> Iterator[Sites]:
    """Start nginx with a server block for each name."""
    text = "".join(BLOCK.format(name=name) for name in names)
    with Nginx.started(folder, servers=text) as web:
        yield Sites(web)


@contextmanager
def apache(folder: Path, names: Sequence[str]) -> Iterator[Sites]:
    """Start Apache with a virtual host for each name."""
    text = "".join(HOST.format(name=name) for name in names)
    with Apache.started(folder, hosts=text) as web:
        yield Sites(web)
