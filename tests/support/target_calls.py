"""The calls of an install target that change something, each spoilt on the way once."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

from blocks.targets import redis_server
from certrail.connectors import InstallTarget
from certrail.model import Fingerprint, Site
from tests.support.caddy import SITE, Caddy
from tests.support.device import Request
from tests.support.faulty_proxy import Fault, faulty_proxy
from tests.support.haproxy_runtime import HaproxyRuntime, debian
from tests.support.nginx import TestCa
from tests.support.redis_server import NAMES, PASSWORD, RedisProcess
from tests.support.targets import Target, caddy_at, haproxy_at, redis_at
from tests.support.tcp_relay import tcp_relay

# What a call only reads, or does to its own session.
_READS = re.compile(
    r"#(Describe\w+|List\w+|Get\w+|Create|Receive|Signal|Delete"
    r"|Command (Get-|Test-|Import-Module)(?!.*AddSsl).*)$"
)
_NAMES = re.compile(r"[0-9A-Fa-f]{8,}[-0-9A-Fa-f]*|\d+")


@dataclass
class Spoiler:
    """Spoils the first call of each kind; without a fault it only notes which there are.

    Attributes:
        fault: what happens to them; None for nothing.
        kinds: those there were, in order, and whether each was spoilt.
    """

    fault: Fault | None = None
    kinds: dict[str, bool] = field(default_factory=dict)

    def __call__(self, method: str, called: str) -> Fault:
        if method in ("GET", "HEAD") or _READS.search(called):
            return Fault.NONE
        return self._of(f"{method} {_NAMES.sub('*', called)}")

    def of_bytes(self, changes: re.Pattern[bytes], part: bytes) -> Fault:
        """Return what happens to a request of a protocol whose *changes* are such."""
        found = changes.search(part)
        return self._of(found[1].decode()) if found else Fault.NONE

    def _of(self, kind: str) -> Fault:
        if self.fault is None or self.kinds.get(kind):
            self.kinds.setdefault(kind, False)
            return Fault.NONE
        self.kinds[kind] = True
        return self.fault

    @property
    def spoilt(self) -> int:
        """How many kinds were."""
        return sum(self.kinds.values())


@dataclass(frozen=True)
class Way:
    """A target, and the way to it.

    Attributes:
        ca: issues what is installed.
        port: where clients connect.
        open: opens the target for calls that may take so long.
        served: what a client sees.
        kept: how many things are stored or left open there.
        spoil: lets this happen to calls from now on.
        names: what a certificate for it has.
    """

    ca: TestCa
    port: int
    open: Callable[[timedelta], AbstractContextManager[tuple[InstallTarget, Site]]]
    served: Callable[[], Fingerprint]
    kept: Callable[[], int]
    spoil: Callable[[Spoiler], None]
    names: tuple[str, ...] = (SITE,)


@contextmanager
def way_to(target: Target, folder: Path) -> Iterator[Way]:
    """Start the other side of *target*: the real program, or the imitation of a device."""
    if target.device is None:
        with _PROGRAMS[target.slug](folder) as way:
            yield way
        return
    with target.device().running() as device:
        to, site = target.to, target.site
        assert to
        assert site

        @contextmanager
        def opened(deadline: timedelta) -> Iterator[tuple[InstallTarget, Site]]:
            with to(device, None, device.roots, deadline) as one:
                yield one, site(device)

        def spoil(by: Spoiler) -> None:
            def choose(request: Request) -> Fault:
                return by(request.method, request.called)

            device.spoil = choose

        def kept() -> int:
            return len(device.snapshot())

        yield Way(device.ca, device.port, opened, device.served, kept, spoil)


@contextmanager
def _caddy(folder: Path) -> Iterator[Way]:
    with Caddy.started(folder) as caddy, faulty_proxy(caddy.admin) as proxy:

        @contextmanager
        def opened(deadline: timedelta) -> Iterator[tuple[InstallTarget, Site]]:
            url, host = f"http://127.0.0.1:{proxy.port}", f"127.0.0.1:{caddy.admin}"
            with caddy_at(url, deadline, host) as one:
                yield one, Site(SITE)

        def kept() -> int:
            shelf = caddy.config("apps/http/servers/certrail_staged") or {}
            return len(caddy.config("apps/tls/certificates/load_pem")) + len(shelf)

        def spoil(by: Spoiler) -> None:
            proxy.choose = by

        yield Way(caddy.ca, caddy.port, opened, caddy.served, kept, spoil)


@contextmanager
def _haproxy(folder: Path) -> Iterator[Way]:
    with (
        HaproxyRuntime.running(folder, debian()) as haproxy,
        tcp_relay(haproxy.other) as between,
    ):

        @contextmanager
        def opened(deadline: timedelta) -> Iterator[tuple[InstallTarget, Site]]:
            with haproxy_at(between.port, deadline) as one:
                yield one, Site(str(haproxy.file))

        def kept() -> int:
            return haproxy.command("show ssl cert").count("\n*")

        def served() -> Fingerprint:
            return haproxy.served(SITE)

        def spoil(by: Spoiler) -> None:
            between.choose = lambda part: by.of_bytes(_COMMAND, part)

        yield Way(haproxy.ca, haproxy.port, opened, served, kept, spoil)


@contextmanager
def _redis(folder: Path) -> Iterator[Way]:
    with RedisProcess.started(folder) as server, tcp_relay(server.plain) as between:

        @contextmanager
        def opened(deadline: timedelta) -> Iterator[tuple[InstallTarget, Site]]:
            seconds = deadline.total_seconds()
            with redis_at(between.port, folder, PASSWORD, seconds) as one:
                yield one, Site(redis_server.SITE)

        def spoil(by: Spoiler) -> None:
            between.choose = lambda part: by.of_bytes(_CONFIG, part)

        yield Way(server.ca, server.port, opened, server.served, lambda: 0, spoil, NAMES)


_COMMAND = re.compile(rb"((?:new|set|commit|abort|add|del) ssl [a-z-]+)")
_CONFIG = re.compile(rb"CONFIG\r\n\$\d+\r\n(SET|REWRITE)\r\n", re.IGNORECASE)
_PROGRAMS = {"target-caddy": _caddy, "target-haproxy": _haproxy, "target-redis": _redis}
