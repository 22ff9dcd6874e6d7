"""Requests that have their certificate and are about to install it, and two of them at once."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any
from uuid import UUID

from cryptography.hazmat.primitives import serialization
from sqlalchemy import insert

from certrail.configuration.plan import ConnectorRef, Plan
from certrail.connectors import InstallTarget
from certrail.errors import CertrailError
from certrail.model import Action, Bundle, Site, Workflow
from certrail.steps import installation
from certrail.steps.outcome import Work
from certrail.store import certificates, keys, new_requests, request_runs, requests
from certrail.store.database import transaction
from certrail.store.requests import Reason
from certrail.store.schema import endpoints
from certrail.tls.starttls import StartTls
from tests.support.nginx import TestCa

NAME = "www.example.test"
Opener = Callable[[], AbstractContextManager[tuple[InstallTarget, Site]]]
_CHANGES = ("stage", "activate", "discard")


def request_for(
    ca: TestCa,
    bundle: Bundle,
    port: int,
    location: str = "lb/www",
    *,
    starttls: str = "",
    seconds: int = 60,
) -> UUID:
    """Return a request whose clients connect to *port* of this machine, 0 for nowhere.

    The new certificate may take *seconds* to be served.
    """
    plan = Plan(
        location=f"127.0.0.1:{port}" if port else "lb/www",
        names=(NAME,),
        addresses=(),
        sni=NAME,
        starttls=StartTls(starttls) if starttls else None,
        target=ConnectorRef(name="lb", slug="target-test"),
        workflow=Workflow.APPLIANCE,
        profile="appliances",
        ca=ConnectorRef(name="ca", slug="ca-acme"),
        trust_pem=ca.root.public_bytes(serialization.Encoding.PEM).decode(),
        install_timeout_seconds=seconds,
    )
    with transaction() as connection:
        endpoint: UUID = connection.execute(
            insert(endpoints).values(location=location).returning(endpoints.c.id)
        ).scalar_one()
    request = new_requests.create(
        endpoint, action=Action.RENEW, plan=plan, reason=Reason("requested", "by test"), actor="t"
    )
    request_runs.take(request.id, "run", timedelta(seconds=60))
    with transaction() as connection:
        key = None
        if bundle.key is not None:
            key = keys.keep(connection, bundle.key, purpose="certificate", algorithm="ecdsa-p256")
        certificate = certificates.save(connection, bundle.chain, key_id=key, ca="ca")
        requests.keep_certificate(connection, request.id, certificate)
    return request.id


def work_of(request_id: UUID) -> Work:
    """Return the request as a fresh run sees it."""
    return Work.of(requests.get(request_id))


@dataclass
class AtOnce:
    """What two requests did that began at the same moment.

    Attributes:
        changes: who began or ended which change of the target, in the order of time.
        told: the step's line of each request; its error where it failed.
    """

    patience: timedelta
    changes: list[tuple[int, str, str]] = field(default_factory=list)
    told: dict[int, str | CertrailError] = field(default_factory=dict)
    _both: threading.Barrier = field(default_factory=lambda: threading.Barrier(2, timeout=60))
    _second: threading.Event = field(default_factory=threading.Event)

    def run(self, wanted: Sequence[tuple[UUID, Opener]]) -> None:
        """Install for both, each in a thread of its own; both have opened the target first."""
        threads = [
            threading.Thread(target=self._one, args=(number, request, opener))
            for number, (request, opener) in enumerate(wanted)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    @property
    def serialised(self) -> bool:
        """Whether neither changed anything between the other's staging and its switch."""
        holder: int | None = None
        for number, change, edge in self.changes:
            if holder not in (None, number):
                return False
            ended = edge == "end" and change in ("activate", "discard")
            holder = None if ended else number
        return True

    @property
    def apart(self) -> bool:
        """Whether no change began while another was under way.

        Enough where requests are taken along: they are staged one after the
        other, and switched together.
        """
        edges = [edge for *_, edge in self.changes]
        return edges == ["begin", "end"] * (len(edges) // 2)

    @property
    def last(self) -> int:
        """The number of the request that switched last by itself, 0 if both were taken along."""
        return ([0] + [number for number, change, _ in self.changes if change == "activate"])[-1]

    def _one(self, number: int, request: UUID, opener: Opener) -> None:
        @contextmanager
        def opened() -> Iterator[tuple[InstallTarget, Site]]:
            with opener() as (target, site):
                self._watch(number, target)
                self._both.wait()
                yield target, site

        try:
            self.told[number] = installation.install(work_of(request), opened).detail
        except CertrailError as exc:
            self.told[number] = exc

    def _watch(self, number: int, target: InstallTarget) -> None:
        for change in _CHANGES:
            setattr(target, change, self._noted(number, change, getattr(target, change)))

    def _noted(self, number: int, change: str, method: Callable[..., Any]) -> Callable[..., Any]:
        def noted(*given: Any) -> Any:
            self.changes.append((number, change, "begin"))
            if change == "stage":
                # Whoever is second, and is not held off, gets the time to come in.
                if any(other != number for other, _, _ in self.changes):
                    self._second.set()
                self._second.wait(self.patience.total_seconds())
            try:
                return method(*given)
            finally:
                self.changes.append((number, change, "end"))

        return noted
