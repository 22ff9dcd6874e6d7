"""The stage: every server of the demo, and how what they serve is looked at."""

from __future__ import annotations

import secrets
import shutil
import socket
import ssl
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deployments.demo import balancer as balancer_
from deployments.demo import ca as ca_
from deployments.demo import dns_server, fleet, installation, machine
from deployments.demo import mail as mail_
from deployments.demo.balancer import Balancer
from deployments.demo.ca import Ca
from deployments.demo.dns_server import DnsServer
from deployments.demo.fleet import Fleet
from deployments.demo.installation import Installation
from deployments.demo.machine import Machine
from deployments.demo.mail import Mail
from deployments.demo.screen import DemoError, Screen

ZONE = "example.test"
WWW = f"www.{ZONE}"
SHOP = f"shop.{ZONE}"
LB = f"lb.{ZONE}"
MAIL = f"mail.{ZONE}"
TEAM = f"web-team@{ZONE}"


@dataclass(frozen=True)
class Scene:
    """What a chapter may use.

    Attributes:
        folder: temporary; everything is below it.
        screen: where it is told.
        dns: the authoritative DNS server.
        ca: the ACME CA.
        machine: the web server's machine.
        balancer: a load balancer with an API.
        fleet: many endpoints at one address.
        mail: a mail server.
        installation: Certrail.
    """

    folder: Path
    screen: Screen
    dns: DnsServer
    ca: Ca
    machine: Machine
    balancer: Balancer
    fleet: Fleet
    mail: Mail
    installation: Installation

    def handshake(self, name: str, *, port: int = 0) -> str:
        """Connect as any client would, verified, and say so; return the serial number served.

        *port* is the machine's web server unless given.

        Raises:
            DemoError: the connection or its verification failed.
        """
        port = port or self.machine.https_port
        version, served = _handshake(name, port, self.ca.root)
        serial = str(served["serialNumber"])
        self.screen.proof(
            f"handshake with {name} at 127.0.0.1:{port}: {version}, verified, "
            f"serial …{serial[-8:]}, valid until {served['notAfter']}"
        )
        return serial

    def handshakes_with_the_fleet(self) -> None:
        """Connect to every name of the fleet, and say so in one line.

        Raises:
            DemoError: one of them failed, or two have the same certificate.
        """
        fleet = self.fleet
        found = [_handshake(name, fleet.port, fleet.root) for name in fleet.names]
        serials = {str(served["serialNumber"]) for _, served in found}
        if len(serials) != len(found):
            raise DemoError("two names of the fleet are served with the same certificate")
        self.screen.proof(
            f"handshakes with all {len(found)} at 127.0.0.1:{fleet.port}: verified, each name with "
            "a certificate of its own"
        )


def _handshake(name: str, port: int, root: Path) -> tuple[str | None, dict[str, Any]]:
    """Return TLS version and certificate that a client gets who trusts *root*.

    This is Python's own ``ssl``, not the code that is shown here.
    """
    context = ssl.create_default_context(cafile=str(root))
    try:
        with (
            socket.create_connection(("127.0.0.1", port), timeout=10) as raw,
            context.wrap_socket(raw, server_hostname=name) as connection,
        ):
            return connection.version(), dict(connection.getpeercert() or {})
    except OSError as exc:
        raise DemoError(f"the handshake for {name} failed: {exc}") from exc


@contextmanager
def built(screen: Screen) -> Iterator[Scene]:
    """Start everything; stop it and remove its files at the end."""
    # Before anything is started, so that what is missing is told at once.
    ca_.caddy()
    with ExitStack() as stack:
        folder = Path(tempfile.mkdtemp(prefix="certrail-demo-"))
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        screen.note(f"everything is in {folder}")
        dns = stack.enter_context(dns_server.serving(ZONE, secret=secrets.token_bytes(32)))
        screen.note(f"authoritative DNS for {ZONE} at 127.0.0.1:{dns.port}, signed updates only")
        authority = stack.enter_context(ca_.issuing(folder / "ca", dns_port=dns.port))
        screen.note(f"ACME CA (Caddy): {authority.directory_url}")
        host = stack.enter_context(machine.started(folder / "machine", first_name=WWW))
        screen.note(
            f"a machine behind SSH at 127.0.0.1:{host.ssh_port}, HAProxy on it at "
            f"127.0.0.1:{host.https_port} with a self-signed certificate"
        )
        lb = stack.enter_context(balancer_.balancing(folder / "balancer", first_name=LB))
        screen.note(f"a load balancer with an API (Caddy) at 127.0.0.1:{lb.https_port}")
        many = stack.enter_context(fleet.serving(folder / "fleet"))
        screen.note(f"{len(many.names)} names behind one TLS server at 127.0.0.1:{many.port}")
        post = stack.enter_context(mail_.receiving(folder / "mail"))
        screen.note(f"a mail server at 127.0.0.1:{post.port}")
        screen.note("certrail up: PostgreSQL, Prefect and a worker")
        own = stack.enter_context(
            installation.running(
                folder / "data",
                folder=folder,
                screen=screen,
                secrets={"DEMO_TSIG_KEY": dns.secret},
            )
        )
        yield Scene(folder, screen, dns, authority, host, lb, many, post, own)
