"""Wait until every authoritative server shows a TXT record, or no longer does."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import timedelta

import dns.rcode
import dns.rdataclass
import dns.rdatatype

from certrail import wait
from certrail.dns.query import Server, canonical, exchange, plain_name, question, txt_values
from certrail.errors import ConnectorError, NotPropagated
from certrail.log import plain
from certrail.model import TxtRecord
from certrail.wait import Clock, Pending
from certrail.words import counted

_AT_ONCE = 8
_SLOWEST_POLL = timedelta(seconds=10)
_QUERY_TIMEOUT = timedelta(seconds=3)
_SHOWN = 3
# A name server that is down is one the CA's resolver passes over as well, so
# after this long it is not waited for, if it was found by an NS record.
SILENCE = timedelta(seconds=15)


@dataclass(slots=True)
class _Watched:
    """One name on one server."""

    fqdn: str
    values: frozenset[str]
    server: Server
    done: bool = False
    heard: bool = False
    """Whether a usable answer ever came."""
    asked: int = 0
    shows: str = "nothing yet"


@dataclass(slots=True)
class Propagation:
    """What is waited for.

    Attributes:
        records: what must (no longer) be seen.
        servers: for each record name, the servers to ask; their hosts are IP addresses.
        present: False to wait until the records are gone.
    """

    records: Sequence[TxtRecord]
    servers: Mapping[str, Sequence[Server]]
    present: bool = True
    clock: Clock = time
    _watched: list[_Watched] = field(init=False)

    def __post_init__(self) -> None:
        wanted: dict[str, set[str]] = {}
        for record in self.records:
            wanted.setdefault(record.fqdn, set()).add(record.value)
        self._watched = [
            _Watched(fqdn, frozenset(values), server)
            for fqdn, values in wanted.items()
            for server in self.servers[fqdn]
        ]

    def wait(self, *, timeout: timedelta, interval: timedelta) -> str:
        """Ask until all servers agree; return one line for people.

        Servers are asked directly, each until it agrees. UDP first, TCP when
        the answer is cut off, or in turns where nothing came.

        Raises:
            NotPropagated: names the server that lags and what it showed last.
        """
        started = self.clock.monotonic()

        def ask() -> str | Pending:
            open_ = [watched for watched in self._watched if not watched.done]
            with ThreadPoolExecutor(max(1, min(_AT_ONCE, len(open_)))) as pool:
                list(pool.map(self._look, open_))
            silent = [watched for watched in open_ if not watched.done]
            patient = self.clock.monotonic() - started < SILENCE.total_seconds()
            if silent and (patient or not all(self._may_be_left_out(w) for w in silent)):
                return Pending()
            return self._summary(silent)

        return wait.until(
            ask,
            timeout=timeout,
            interval=interval,
            late=self._late,
            slowest=_SLOWEST_POLL,
            clock=self.clock,
        )

    def _look(self, watched: _Watched) -> None:
        name = canonical(watched.fqdn)
        tcp = not watched.heard and watched.asked % 2 == 1
        watched.asked += 1
        try:
            answer = exchange(
                watched.server,
                question(name, dns.rdatatype.TXT),
                tcp=tcp,
                timeout=_QUERY_TIMEOUT,
            )
        except ConnectorError as exc:
            watched.shows = str(exc).removeprefix(f"{watched.server}: ")
            return
        code = answer.rcode()
        if code not in (dns.rcode.NOERROR, dns.rcode.NXDOMAIN):
            watched.shows = dns.rcode.to_text(code)
            return
        watched.heard = True
        found = txt_values(answer, name)
        watched.done = watched.values <= found if self.present else not watched.values & found
        alias = answer.get_rrset(answer.answer, name, dns.rdataclass.IN, dns.rdatatype.CNAME)
        if alias:
            watched.shows = f"a CNAME to {plain(plain_name(alias[0].target))}"
        elif found:
            watched.shows = _quoted(found)
        else:
            watched.shows = "nothing" if code == dns.rcode.NOERROR else "NXDOMAIN"

    def _may_be_left_out(self, silent: _Watched) -> bool:
        return (
            bool(silent.server.name)
            and not silent.heard
            and any(w.done for w in self._watched if w.fqdn == silent.fqdn)
        )

    def _summary(self, silent: Sequence[_Watched]) -> str:
        count = sum(len({r.value for r in self.records if r.fqdn == f}) for f in self.servers)
        what = counted(count, "TXT record")
        where = _listed(str(w.server) for w in self._watched if w.done)
        line = f"{what} {'visible on' if self.present else 'gone from'} {where}"
        if silent:
            line += f"; no answer from {_listed(str(w.server) for w in silent)}"
        return line

    def _late(self) -> NotPropagated:
        lagging = [watched for watched in self._watched if not watched.done]
        first = lagging[0]
        state = "is not visible" if self.present else "is still visible"
        message = f"TXT {first.fqdn} {state} on {first.server}, which shows: {first.shows}"
        others = _listed(str(w.server) for w in lagging[1:] if w.server != first.server)
        if others:
            message += f"; the same on {others}"
        if first.heard:
            remedy = (
                f"Check that zone changes reach {first.server} (NOTIFY, transfers), or raise the "
                "connector's propagation_timeout, then retry."
            )
        else:
            remedy = (
                f"Check that {first.server} runs, serves the zone and can be reached from here "
                "over UDP and TCP, then retry."
            )
        return NotPropagated(message, remedy=remedy)


def _listed(items: Iterable[str]) -> str:
    unique = list(dict.fromkeys(items))
    shown = ", ".join(unique[:_SHOWN])
    more = len(unique) - _SHOWN
    return f"{shown} and {more} more" if more > 0 else shown


def _quoted(values: Iterable[str]) -> str:
    return _listed(f'"{plain(value)[:80]}"' for value in sorted(values))
