"""Every connector meets replies that are not what its vendor documents: only errors of ours.

The services are those of the contract tests. ``make fuzz`` tries more of it.
"""

from __future__ import annotations

import os
import random
import socket
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import dns.tsig
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import SecretStr

from blocks.dns.rfc2136 import Rfc2136
from blocks.targets import redis_server
from blocks.targets.haproxy import HaproxyRuntimeTarget, RuntimeApi
from blocks.targets.iis import IisTarget, KeyOnIisTarget, Remoting, remoting
from certrail.connectors import HoldsKey, InstallTarget
from certrail.dns.lookup import Resolver, authority_of, challenge_target
from certrail.dns.query import Server
from certrail.errors import CertrailError
from certrail.keys.generate import generate
from certrail.model import (
    Bundle,
    KeyAlgorithm,
    OrderKey,
    OrderSpec,
    RevocationReason,
    Site,
    SubjectSpec,
    TxtRecord,
)
from certrail.remote.local import LocalHost
from certrail.x509.csr import build_csr
from tests.contract import appliance_cases, ca_cases, delivery_cases, dns_cases
from tests.contract.install_cases import SITE
from tests.fuzz.spoiling import Spoiler, spoiled_http, spoiling_relay
from tests.fuzz.spoiling_dns import DnsRelay
from tests.support import dns_servers, iis_api, winrm_service
from tests.support.bundles import new_bundle
from tests.support.haproxy_runtime import HaproxyRuntime, wheel
from tests.support.iis_api import IisServer
from tests.support.redis_server import PASSWORD, RedisProcess

EXAMPLES = int(os.environ.get("CERTRAIL_FUZZ_EXAMPLES", "8"))
# The SDK of AWS tries again by itself, with pauses.
_SLOW = 4
# What has another protocol has a relay of its own below, and IIS a session for each attempt.
_OTHERS = ("redis", "haproxy-runtime-2.6", "haproxy-runtime-2.8", "iis", "iis-own-key")
_NOT_HTTP = ("ca-local", "ca-command", "ca-acme", "dns-rfc2136", "directory-local", "directory-ssh")


@dataclass
class Attempts:
    """Calls of a connector; each may end with an error of ours, and no other.

    Attributes:
        refused: how they ended that did.
    """

    refused: list[CertrailError] = field(default_factory=list)

    def __call__(self, call: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
        """Return what *call* returns, None where it is refused."""
        refused: CertrailError | None = None
        try:
            return call(*arguments, **named)
        except CertrailError as exc:
            refused = exc
        text = f"{refused} {refused.remedy}"
        assert str(refused), "no cause"
        assert refused.remedy, refused
        assert text.isprintable(), text
        assert len(text) < 4000, text[:200]
        self.refused.append(refused)
        return None


Run = Callable[[Attempts], None]


def _install(
    open_target: Callable[[], InstallTarget], site: Site, bundle: Callable[[], Any]
) -> Run:
    def run(attempt: Attempts) -> None:
        target = attempt(open_target)
        if target is None:
            return
        attempt(target.check)
        attempt(lambda: list(target.sites()))
        there = attempt(target.serving, site)
        staged = attempt(lambda: target.stage(site, bundle(), there))
        if staged is not None:
            attempt(target.activate, staged)
            attempt(target.serving, site)
            attempt(target.restore, staged)
            attempt(target.discard, staged)

    return run


def _issue(world: ca_cases.World) -> Run:
    def run(attempt: Attempts) -> None:
        name = world.name()
        csr = build_csr(SubjectSpec(names=(name,)), generate(KeyAlgorithm.ECDSA_P256))
        with suppress(CertrailError), world.block.connect() as ca:
            attempt(ca.check)
            order = attempt(ca.open_order, OrderSpec(key=OrderKey(name), names=(name,)))
            if order is None:
                return
            attempt(ca.reopen, order)
            order = attempt(ca.finalize, order, csr) or order
            chain = attempt(ca.collect, order)
            if hasattr(chain, "leaf"):
                attempt(chain.must_answer, csr, (name,))
                attempt(ca.revoke, chain, RevocationReason.UNSPECIFIED)

    return run


def _publish(world: dns_cases.World) -> Run:
    def run(attempt: Attempts) -> None:
        record = TxtRecord(f"_acme-challenge.www.{dns_cases.ZONE}", "value")
        with suppress(CertrailError), world.block.connect() as dns:
            attempt(dns.check)
            attempt(dns.zone_of, record.fqdn)
            attempt(dns.append_txt, record)
            attempt(dns.find_txt, record.fqdn)
            attempt(dns.delete_txt, record)

    return run


def _deliver(world: delivery_cases.World) -> Run:
    def run(attempt: Attempts) -> None:
        site = world.site()
        with suppress(CertrailError), world.open() as target:
            attempt(target.check)
            attempt(target.delivered, site)
            attempt(target.deliver, site, new_bundle(*site.names))
            attempt(target.delivered, site)
            attempt(target.deliver, site, new_bundle(*site.names))

    return run


Opened = Callable[[Path], AbstractContextManager[Run]]


def _case(case: Any, made: Callable[[Any], Run]) -> Opened:
    @contextmanager
    def opened(folder: Path) -> Iterator[Run]:
        with case.world(folder) as world:
            yield made(world)

    return opened


@contextmanager
def _iis(target: Callable[[Remoting], IisTarget]) -> Iterator[Run]:
    """Run attempts with a session each, since one that broke is not used again."""
    with IisServer().running() as device:

        def run(attempt: Attempts) -> None:
            with remoting(
                device.url,
                winrm_service.USER,
                winrm_service.PASSWORD,
                auth="basic",
                ca_bundle=device.roots,
                label="iis",
                timeout=timedelta(seconds=1),
                grace=timedelta(0),
            ) as session:
                site = Site(iis_api.BINDING)
                opened = target(session)

                def bundle() -> Bundle:
                    if not isinstance(opened, HoldsKey):
                        return device.ca.bundle(SITE)
                    csr = opened.generate_csr(site, SubjectSpec((SITE,)))
                    return Bundle(device.ca.signed(csr, SITE), None)

                _install(lambda: opened, site, bundle)(attempt)

        yield run


_HTTP: dict[str, Opened] = {
    **{
        case.name: _case(case, lambda world: _install(world.open, world.site, world.bundle))
        for case in appliance_cases.APPLIANCES
        if case.name not in _OTHERS
    },
    **{case.name: _case(case, _issue) for case in ca_cases.CASES if case.name not in _NOT_HTTP},
    **{
        case.block.__name__: _case(case, _publish)
        for case in dns_cases.CASES
        if case.block is not None and "power" in case.name
    },
    "iis": lambda _: _iis(IisTarget),
    "iis-own-key": lambda _: _iis(KeyOnIisTarget),
    **{
        f"delivery {case.name}": _case(case, _deliver)
        for case in delivery_cases.CASES
        if case.name not in _NOT_HTTP
    },
}


@pytest.mark.parametrize("name", _HTTP)
def test_replies_over_http(name: str, tmp_path: Path) -> None:
    """JSON, XML, headers and status, in the middle of what the connector does."""
    with _HTTP[name](tmp_path) as run:

        def one(which: int, seed: int) -> bool:
            spoiler = Spoiler(which, random.Random(seed))
            with spoiled_http(spoiler):
                run(Attempts())
            return spoiler.hit

        _try(one, examples=EXAMPLES // _SLOW if "aws" in name or "s3" in name else EXAMPLES)


@pytest.mark.parametrize("opened", ["haproxy", "redis"])
def test_replies_of_other_protocols(opened: str, tmp_path: Path) -> None:
    """What HAProxy's socket and Redis say."""
    world = {"haproxy": _haproxy, "redis": _redis}[opened]
    with world(tmp_path) as (run, arm):

        def one(which: int, seed: int) -> bool:
            spoiler = arm(which, seed)
            run(Attempts())
            return spoiler.hit

        _try(one)


def test_replies_of_a_name_server(tmp_path: Path) -> None:
    """Answers to updates, signed anew where they were; to what asks for zones, CNAMEs and TXT."""
    with dns_servers.bind(tmp_path, [dns_cases.ZONE]) as server:
        key = dns.tsig.Key(server.key_name, server.key_secret, server.algorithm)
        armed = _Armed()
        with DnsRelay(Server(server.address, server.port), key, armed.due).running() as relay:
            block = Rfc2136(
                server=relay.host,
                port=relay.port,
                key_name=server.key_name,
                key_secret=SecretStr(server.key_secret),
                algorithm=server.algorithm,
                timeout=1,
                nameservers=[str(relay)],
                propagation_timeout=1,
                poll_interval=0.05,
            )
            resolver = Resolver((relay,), use_system=False)
            record = TxtRecord(f"_acme-challenge.www.{dns_cases.ZONE}", "value")

            def one(which: int, seed: int) -> bool:
                spoiler = armed.arm(which, seed)
                attempt = Attempts()
                attempt(challenge_target, record.fqdn, resolver)
                attempt(authority_of, record.fqdn, resolver)
                with block.connect() as provider:
                    attempt(provider.check)
                    attempt(provider.append_txt, record)
                    attempt(provider.find_txt, record.fqdn)
                    attempt(provider.wait_until_visible, [record])
                    attempt(provider.delete_txt, record)
                return spoiler.hit

            _try(one, which=11, examples=EXAMPLES * 5)


def _try(one: Callable[[int, int], bool], examples: int = EXAMPLES, which: int = 7) -> None:
    hits = []

    @settings(
        max_examples=examples,
        derandomize=True,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(st.integers(0, which), st.integers(0, 2**32))
    def any_of_them(number: int, seed: int) -> None:
        hits.append(one(number, seed))

    any_of_them()
    assert any(hits) or examples < EXAMPLES, "nothing was spoiled"


Arm = Callable[[int, int], Spoiler]


class _Armed:
    """The spoiler of the present attempt, for the threads of a relay."""

    def __init__(self) -> None:
        self._now: Spoiler | None = None

    def arm(self, which: int, seed: int) -> Spoiler:
        self._now = Spoiler(which, random.Random(seed))
        return self._now

    def due(self) -> Spoiler | None:
        now = self._now
        if now is None:
            return None
        now.seen += 1
        if now.seen != now.which + 1:
            return None
        now.hit = True
        return now


@contextmanager
def _haproxy(folder: Path) -> Iterator[tuple[Run, Arm]]:
    armed = _Armed()
    with HaproxyRuntime.running(folder, wheel()) as haproxy:

        def connect() -> socket.socket:
            connection = socket.socket(socket.AF_UNIX)
            connection.connect(haproxy.socket)
            return connection

        with spoiling_relay(connect, armed.due) as port:
            api = RuntimeApi(("127.0.0.1", port), "lb", timedelta(seconds=10))
            site = Site(str(haproxy.file))

            def open_target() -> InstallTarget:
                return HaproxyRuntimeTarget(api, LocalHost("here"))

            yield (
                _install(open_target, site, lambda: haproxy.ca.bundle(SITE)),
                armed.arm,
            )


@contextmanager
def _redis(folder: Path) -> Iterator[tuple[Run, Arm]]:
    armed = _Armed()
    with RedisProcess.started(folder) as server:

        def connect() -> socket.socket:
            return socket.create_connection(("127.0.0.1", server.plain))

        with (
            spoiling_relay(connect, armed.due) as port,
            redis_server.client(
                "localhost", port, tls=False, ca_bundle="", password=PASSWORD, timeout=2
            ) as client,
        ):
            world = appliance_cases.RedisWorld(server, client)
            yield _install(world.open, world.site, world.bundle), armed.arm


def test_every_connector_with_a_service_is_here() -> None:
    """Those that are not speak nothing, or are elsewhere: ACME in targets.py."""
    slugs = {case.name for case in appliance_cases.APPLIANCES} - {*_OTHERS}
    assert slugs <= set(_HTTP)
