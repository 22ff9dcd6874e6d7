"""The plan of a request: all that it needs to know, frozen when it is made."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any, Literal

from pydantic import (
    Field,
)

from certrail.configuration.fields import StartTls, Strict
from certrail.configuration.profile import Approval, Validation
from certrail.maintenance import Calendar
from certrail.model import KeyAlgorithm, Workflow


class ConnectorRef(Strict):
    """Where a connector's settings are: block type and name."""

    name: str
    slug: str

    @property
    def reference(self) -> str:
        """What Prefect loads the block by."""
        return f"{self.slug}/{self.name}"


class Place(Strict):
    """Where else the certificate of a plan is installed, and where that is tested."""

    target: ConnectorRef
    server: dict[str, Any]
    addresses: tuple[str, ...]


class Hold(Strict):
    """When a certificate that was obtained may be installed.

    Attributes:
        calendar: the windows.
        deadline: moment from which the windows no longer count, None if they always do.
    """

    calendar: Calendar
    deadline: datetime | None = None


class Plan(Strict):
    """All that a request needs to know, frozen when it is made. No secret is in it."""

    location: str
    names: tuple[str, ...]
    addresses: tuple[str, ...]
    sni: str | None
    starttls: StartTls | None = None
    server: dict[str, Any] = Field(default_factory=dict)
    target: ConnectorRef | None = None
    also_on: tuple[Place, ...] = ()
    workflow: Workflow
    profile: str
    ca: ConnectorRef
    ca_profile: str = ""
    validation: Validation | None = None
    dns: ConnectorRef | None = None
    key_algorithm: KeyAlgorithm = KeyAlgorithm.ECDSA_P256
    key_location: Literal["store", "host"] = "store"
    trust_pem: str | None = None
    client: Literal["web-pki", "rfc5280", "openssl"] | None = None
    replaces: bool = True
    issue_timeout_seconds: int = 600
    install_timeout_seconds: int = 30
    executor: str | None = None
    approval: Approval | None = None
    hold: Hold | None = None
    takes_back: dict[str, Any] | None = Field(
        default=None, description="What was staged, where the target itself takes it back."
    )

    def as_ordered(self, ordered: Plan) -> Plan:
        """Return this plan, but for what was ordered already with another.

        An order stands for its names, at its CA, and a CSR for its key;
        changing them would need another order.
        """
        return self.model_copy(
            update={
                "names": ordered.names,
                "key_algorithm": ordered.key_algorithm,
                "key_location": ordered.key_location,
                "ca": ordered.ca,
                "ca_profile": ordered.ca_profile,
                "workflow": ordered.workflow,
                "takes_back": ordered.takes_back,
            }
        )

    def at(self, number: int) -> Plan:
        """Return the plan of one place alone: 0 is the endpoint's own, then those of `also_on`."""
        if number == 0:
            return self
        place = self.also_on[number - 1]
        return self.model_copy(
            update={
                "target": place.target,
                "server": place.server,
                "addresses": place.addresses,
            }
        )

    @property
    def host(self) -> str:
        """The host part of the location; for an object, the whole of it."""
        return self.location.rsplit(":", 1)[0].strip("[]")

    @property
    def port(self) -> int:
        """The port of the location; 443 for an object."""
        tail = self.location.rsplit(":", 1)[-1]
        return int(tail) if tail.isdigit() else 443

    @property
    def issue_timeout(self) -> timedelta:
        """How long the CA may take once it has the CSR."""
        return timedelta(seconds=self.issue_timeout_seconds)

    @property
    def install_timeout(self) -> timedelta:
        """How long the new certificate may take to be served after a reload."""
        return timedelta(seconds=self.install_timeout_seconds)
