"""Publish dns-01 challenges through a DNS provider."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager

from certrail.connectors import ChallengeResponder, DnsProvider
from certrail.dns.lookup import Resolver, challenge_target
from certrail.errors import CertrailError, InvalidRequest, Unreachable
from certrail.log import effect, logger, plain
from certrail.model import Challenge, ChallengeKind, TxtRecord

LockFactory = Callable[[str], AbstractContextManager[object]]


class Dns01Responder(ChallengeResponder):
    """Write the TXT records of dns-01 (RFC 8555 section 8.4), and remove them again.

    A challenge name that is a CNAME is followed: the record is written at its
    target. Nothing is remembered between calls, so that ``withdraw`` works in
    another process from the challenges alone.
    """

    kind = ChallengeKind.DNS_01

    def __init__(
        self,
        provider: DnsProvider,
        *,
        lock: LockFactory,
        resolver: Resolver | None = None,
    ) -> None:
        """Use *provider*.

        *lock* makes, for a name such as ``dns:_acme-challenge.example.org``,
        a lock that all workers share; it is taken around each change where
        the provider does not change records atomically. *resolver* is asked
        for CNAMEs; by default this machine's.
        """
        self._provider = provider
        self._lock = lock
        self._resolver = resolver or Resolver()

    def publish(self, challenges: Sequence[Challenge]) -> str:
        """Add the records and wait until every authoritative server shows them.

        When that fails half-way, what was added is removed again first.
        """
        records = self._records(challenges)
        tried: list[TxtRecord] = []
        try:
            for record in records:
                # Before the call: a request that seems lost may have been carried out.
                tried.append(record)
                self._append(record)
            return self._provider.wait_until_visible(records)
        except BaseException as exc:
            left = self._remove(tried)
            if left is not None:
                exc.add_note(f"and the records could not be removed again: {left}")
            raise

    def withdraw(self, challenges: Sequence[Challenge]) -> None:
        """Remove exactly these values; all are tried before the first error is raised."""
        failure = self._remove(self._records(challenges))
        if failure is not None:
            raise failure

    def _records(self, challenges: Sequence[Challenge]) -> list[TxtRecord]:
        for challenge in challenges:
            if challenge.kind is not self.kind or not challenge.txt_value:
                raise InvalidRequest(f"the challenge for {challenge.name} is not a dns-01 one")
        names = dict.fromkeys(challenge.record_name for challenge in challenges)
        targets = {name: self._target(name) for name in names}
        # A name and its wildcard share a record name, with a value each.
        return list(
            dict.fromkeys(TxtRecord(targets[c.record_name], c.txt_value) for c in challenges)
        )

    def _target(self, name: str) -> str:
        try:
            return challenge_target(name, self._resolver)
        except Unreachable as exc:
            # Without a resolver we cannot see a delegation out of the provider's
            # zones. If the provider has the name itself, that is the usual case.
            self._provider.zone_of(name)
            logger.warning("no resolver to look for a CNAME at %s: %s", name, plain(exc))
            return name

    def _append(self, record: TxtRecord) -> None:
        if self._provider.appends_atomically:
            self._provider.append_txt(record)
        else:
            with self._lock(f"dns:{record.fqdn}"):
                self._provider.append_txt(record)
        effect("txt.append", fqdn=record.fqdn, value=record.value)

    def _remove(self, records: Sequence[TxtRecord]) -> CertrailError | None:
        """Delete all of them and return the first failure."""
        first: CertrailError | None = None
        for record in records:
            try:
                if self._provider.appends_atomically:
                    self._provider.delete_txt(record)
                else:
                    with self._lock(f"dns:{record.fqdn}"):
                        self._provider.delete_txt(record)
            except CertrailError as exc:
                logger.warning("could not remove TXT %s: %s", record.fqdn, plain(exc))
                first = first or exc
            else:
                effect("txt.delete", fqdn=record.fqdn, value=record.value)
        return first
