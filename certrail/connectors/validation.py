"""What we ask of whoever publishes the answer to a challenge."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from datetime import timedelta

from certrail.connectors.base import Connector
from certrail.model import (
    Challenge,
    ChallengeKind,
    TxtRecord,
)


class DnsProvider(Connector):
    """Publishes TXT records in zones it is authoritative for."""

    propagation_timeout: timedelta = timedelta(minutes=2)
    poll_interval: timedelta = timedelta(seconds=2)
    appends_atomically: bool = True
    """False where a change is read-modify-write; the step then holds a lock."""

    @abstractmethod
    def zone_of(self, fqdn: str) -> str:
        """Return the zone that holds *fqdn*, without a trailing dot.

        Raises:
            NotFound: none of this connector's zones does.
        """

    @abstractmethod
    def append_txt(self, record: TxtRecord) -> None:
        """Add one value. Other values at the name stay; a duplicate is quiet."""

    @abstractmethod
    def delete_txt(self, record: TxtRecord) -> None:
        """Remove exactly this name and value. Absent is success."""

    @abstractmethod
    def find_txt(self, fqdn: str) -> frozenset[str]:
        """Return the values the provider holds, not what resolvers see."""

    @abstractmethod
    def wait_until_visible(self, records: Sequence[TxtRecord], *, present: bool = True) -> str:
        """Block until every authoritative server shows (or no longer shows) *records*.

        Returns one line for people: which servers were asked. This is the one
        connector method that waits, since only the provider knows its servers.

        Raises:
            NotPropagated: a server did not show it within ``propagation_timeout``.
        """


class ChallengeResponder(ABC):
    """Where the proof for one kind of challenge is published and removed again."""

    kind: ChallengeKind

    @abstractmethod
    def publish(self, challenges: Sequence[Challenge]) -> str:
        """Make the proofs visible to the CA; return one line for people when they are.

        Raises:
            NotPropagated: they did not become visible in time.
        """

    @abstractmethod
    def withdraw(self, challenges: Sequence[Challenge]) -> None:
        """Remove exactly these proofs. Absent is success."""
