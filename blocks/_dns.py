"""What the settings of DNS providers have in common: whom to ask, how often, for how long."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydantic import Field

from certrail.dns.lookup import Resolver
from certrail.dns.query import Server

RESOLVERS: Any = Field(
    default_factory=list,
    description="Resolvers (host or host:port) that know CNAMEs and NS records; "
    "empty: those of the system.",
)
PROPAGATION_TIMEOUT: Any = Field(
    default=120, ge=1, le=86400, description="Seconds until every server must show a record."
)
POLL_INTERVAL: Any = Field(
    default=2.0, ge=0.05, le=600, description="Seconds between two looks at a server."
)


def nameservers_field(otherwise: str) -> Any:
    """Return the field for servers that must show a record; *otherwise* says which if empty."""
    return Field(
        default_factory=list,
        description="Servers (host or host:port) that must show a record before the CA is told; "
        f"empty: {otherwise}.",
    )


def servers(texts: Sequence[str]) -> tuple[Server, ...]:
    """Return the servers that settings name.

    Raises:
        InvalidRequest: one is not host or host:port.
    """
    return tuple(Server.parse(text) for text in texts)


def resolver_of(known: Sequence[Server], resolvers: Sequence[str]) -> Resolver:
    """Return whom to ask for CNAMEs and name servers.

    First the servers that a connector knows, then its resolvers or, without any,
    the system's.
    """
    return Resolver((*known, *servers(resolvers)), use_system=not resolvers)
