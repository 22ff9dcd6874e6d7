"""How long a page of the inventory takes, for each filter and order, up to 100,000 endpoints.

The endpoints are made in the database itself, with certificates, earlier
certificates and requests; what is measured is the call that ``certrail
endpoint list --limit 50`` makes, rows read included. Each question finds
something: one that finds nothing may be answered without looking.
"""

from __future__ import annotations

import gc
import hashlib
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from sqlalchemy import text

from certrail.postgres import EmbeddedPostgres
from certrail.store import database, inventory
from certrail.store.inventory import parse_filter
from certrail.store.inventory_query import FIELDS, UNSORTED
from certrail.store.views import SYSTEM_VIEWS

SIZES = (1_000, 10_000, 100_000)
PAGE = 50
_SOON = (datetime.now(UTC) + timedelta(days=20)).date().isoformat()
_LEAST = 200  # so that the 99th percentile is not the slowest one
_LONGEST = 3.0

FILTERS = (
    "",
    "location=h777.example.test:443",
    "location~h77",
    "names=h777.example.test",
    "names~www.h77",
    "common_name=h777.example.test",
    "common_name~h77",
    "profile=profile-3",
    "profile!=profile-3",
    "workflow=appliance",
    "target=target-17",
    "server=haproxy",
    "job=job-3",
    "job=",
    "request~ab",
    "status=automation-failed",
    "status=in-progress",
    "status=automation-successful",
    "status=automation-at-risk",
    "status=not-configured",
    "status=ready",
    "status=auto-renew-scheduled",
    "status!=auto-renew-scheduled",
    f"not_after<{_SOON}",
    "days_left<10",
    "days_left=",
    "issuer='Rare CA'",
    "issuer~rare",
    f"fingerprint={hashlib.sha256(b'2/777').hexdigest()}",
    "serial=007772",
    "key='RSA 2048'",
    "tag=rare",
    "tag~rar",
    "last_success_at>2020-01-01",
    f"next_renewal_at<{_SOON}",
    "findings=weak-key",
    "findings=key-reused",
    "findings=",
    "risks=served-differs",
    "risks=profile-changed",
    "step='Domain validated' and status=automation-failed",
    "ca=ca-2",
    "ca!=ca-2",
    "executor=branch-1",
    "dns=ns",
    "lifetime_days<48",
    "lifetime_days>=48",
    "status=automation-failed and tag=shop and days_left<60",
)

_MAKE = (
    # Some targets are reached by an executor in a branch only.
    """insert into connectors (name, slug, executor)
       select 'target-' || n, 'host-ssh', case when n % 50 = 0 then 'branch-1' end
       from generate_series(1, 200) n""",
    """insert into executors (pool, name, queues, version, host, started_at, last_seen_at)
       values ('agents', 'branch-1', '{branch-1}', '1', 'branch-1', now(), now())""",
    """insert into connectors (name, slug) values ('ca', 'ca-acme'), ('ca-2', 'ca-vault'),
         ('ns', 'dns-rfc2136')""",
    """insert into profiles (name, workflow, ca, settings)
       select 'profile-' || n, case when n % 5 = 0 then 'appliance' else 'web-server' end,
         case when n % 20 = 4 then 'ca-2' else 'ca' end,
         jsonb_build_object('name', 'profile-' || n, 'renew',
           jsonb_build_object('auto', n % 20 <> 0)) || case when n % 4 = 1 then
             '{"validation": {"method": "dns-01", "dns": "ns"}}'::jsonb else '{}' end
       from generate_series(1, 40) n""",
    """insert into jobs (name, action, status) select 'job-' || n, 'renew', 'completed'
       from generate_series(1, 30) n""",
    # An earlier certificate and the present one, which has a third of its life left at
    # least, as those have that renew by themselves; but some are near their end.
    """insert into certificates
         (fingerprint, serial, issuer, common_name, names, key_kind, not_before, not_after,
          chain_pem, ca, key_hash)
       select encode(sha256(convert_to(g || '/' || n, 'utf8')), 'hex'), '00' || n * 10 + g,
         case when n % 5000 = 7 then 'Rare CA' else 'Common CA ' || n % 3 end,
         'h' || n || '.example.test', array['h' || n || '.example.test'],
         case when n % 10 = 0 then 'RSA 2048' else 'ECDSA P-256' end,
         ends - days * interval '1 day', ends,
         repeat(md5(n::text), 60), case when n % 20 = 3 then 'ca-2' else 'ca' end,
         md5(case when n % 2000 in (3, 4) then 'same' else g || '/' || n end)
       from generate_series(1, :size) n, generate_series(1, 2) g,
         lateral (select case when n % 5 = 0 then 47 else 90 end days) l,
         lateral (select now() - (2 - g) * days * interval '1 day' * 2 / 3 + interval '1 minute' *
           case when n % 97 = 5 then n % 14400
             else days * 480 + n::bigint * 7919 % (days * 960) end ends) e""",
    """insert into endpoints (location, names, profile_id, target, server, tags, certificate_id,
         observed, observed_at, last_success_at, next_renewal_at)
       select 'h' || n || '.example.test:443',
         array['h' || n || '.example.test', 'www.h' || n || '.example.test'],
         case when n % 300 <> 0 then p.id end,
         case when n % 250 <> 0 then 'target-' || n % 200 + 1 end,
         jsonb_build_object('kind', case when n % 500 = 0 then 'haproxy' else 'nginx' end),
         case when n % 1000 = 1 then '{rare,shop}' when n % 3 = 0 then '{shop}'
           else '{}' end::text[],
         -- Some are configured, and nothing is served there yet.
         case when n % 600 <> 599 then c.id end,
         case when n % 600 <> 599 then jsonb_build_object('fingerprint',
           case when n % 3000 = 5 then o.fingerprint else c.fingerprint end,
           'findings', case when n % 400 = 2 then
             jsonb_build_array(jsonb_build_object('code', 'weak-key', 'message', 'weak'))
             else '[]' end,
           'addresses', jsonb_build_array(jsonb_build_object('seen', repeat(md5(n::text), 40))))
           end,
         now() - interval '1 day', now() - interval '10 days',
         now() + interval '1 minute' * (n % 43200)
       from generate_series(1, :size) n
       join profiles p on p.name = 'profile-' || n % 40 + 1
       join certificates c
         on c.fingerprint = encode(sha256(convert_to('2/' || n, 'utf8')), 'hex')
       join certificates o
         on o.fingerprint = encode(sha256(convert_to('1/' || n, 'utf8')), 'hex')""",
    """update certificates c set names = e.names from endpoints e
       where e.certificate_id = c.id and e.location not like '%99.example.test%'""",
    # Two requests for each: the last one of some failed, is running, or just ended.
    """insert into requests (endpoint_id, job_id, workflow, action, status, reason_code,
         reason_message, requested_by, plan, created_at, started_at, ended_at)
       select e.id, j.id, 'web-server', 'renew',
         case when g = 1 then case when e.n % 7 = 0 then 'automation-failed' else
           'automation-successful' end
         when e.n % 2500 = 9 then 'automation-failed' when e.n % 5000 = 11 then 'in-progress'
         when e.n % 5000 = 12 then 'approval-pending' else 'automation-successful' end,
         'renewal-due', 'due', 'sweep', '{}', now() - interval '40 days' * (3 - g),
         now() - interval '40 days' * (3 - g),
         case when g = 1 or e.n % 5000 not in (11, 12) then
           case when g = 2 and e.n % 1000 = 13 then now() - interval '1 hour'
           else now() - interval '40 days' * (3 - g) end end
       from (select id, row_number() over (order by location) n from endpoints) e
       cross join generate_series(1, 2) g
       left join jobs j on j.name = 'job-' || (e.n % 60 + g)
       order by g""",
    """insert into steps (request_id, number, title, status, detail, cause, remedy, retryable)
       select r.id, s.number, s.title,
         case when r.status = 'automation-failed' and s.number = 2 then 'failed'
           when r.status = 'automation-failed' and s.number > 2 then 'pending'
           when r.status in ('in-progress', 'approval-pending') then 'pending' else 'completed' end,
         'done', 'cause', 'remedy', true
       from requests r, (values (1, 'ACME account created'), (2, 'Domain validated'),
         (3, 'Certificate issued'), (4, 'Certificate installed'), (5, 'Testing installation'))
         s(number, title)
       where r.is_latest""",
    "vacuum analyze",
)


def fill(size: int) -> None:
    """Make *size* endpoints in the configured database, which is empty."""
    for statement in _MAKE:
        if statement.startswith("vacuum"):
            with (
                database.engine()
                .connect()
                .execution_options(isolation_level="AUTOCOMMIT") as connection
            ):
                connection.execute(text(statement))
            continue
        with database.transaction() as connection:
            values = {"size": size} if ":size" in statement else {}
            connection.execute(text(statement), values)


@contextmanager
def filled(size: int) -> Iterator[None]:
    """An inventory of *size* endpoints in a server of its own."""
    with tempfile.TemporaryDirectory(prefix="certrail-bench-") as folder:
        os.chmod(folder, 0o755)
        server = EmbeddedPostgres(Path(folder) / "pg", durable=False)
        server.create()
        server.start()
        before = os.environ.get("CERTRAIL_DATABASE_URL")
        try:
            os.environ["CERTRAIL_DATABASE_URL"] = server.url("certrail")
            database.migrate(server.url("certrail"))
            fill(size)
            yield
        finally:
            database.engine().dispose()
            os.environ.pop("CERTRAIL_DATABASE_URL")
            if before is not None:
                os.environ["CERTRAIL_DATABASE_URL"] = before
            server.stop()


def questions() -> dict[str, Callable[[], Sequence[object]]]:
    """Return what is measured, by name."""

    def page(text: str, sort: str = "location", after: str = "") -> Callable[[], Sequence[object]]:
        clauses = parse_filter(text) if text else []
        return lambda: inventory.find(clauses, sort=sort, limit=PAGE, after=after)

    asked = {f"filter `{one}`" if one else "no filter": page(one) for one in FILTERS}
    for name in FIELDS:
        if name not in UNSORTED:
            asked[f"sort `{name}`"] = page("", name)
            asked[f"sort `-{name}`"] = page("", f"-{name}")
    for name, view in SYSTEM_VIEWS.items():
        asked[f"view `{name}`"] = page(" and ".join(view.filters), view.sort)
    asked["page in the middle, sort `issuer`"] = page("", "issuer", "h555.example.test:443")
    asked["page in the middle, sort `-days_left`"] = page("", "-days_left", "h555.example.test:443")
    return asked


def must_find(asked: Mapping[str, Callable[[], Sequence[object]]]) -> None:
    """Make sure that what is measured is an answer.

    Raises:
        RuntimeError: a question finds nothing.
    """
    empty = [name for name, ask in asked.items() if not ask()]
    if empty:
        raise RuntimeError(f"nothing is found by {', '.join(empty)}: make endpoints like that")


@dataclass(frozen=True, slots=True)
class Measured:
    """What calls took, in milliseconds.

    Attributes:
        median, late: median and 99th percentile of the time that passed.
        processor: the 99th percentile of what this process and the database's computed.
    """

    median: float
    late: float
    processor: float


def measured(ask: Callable[[], object]) -> Measured:
    """Ask again and again, and tell how long it took.

    The processor's time tells a page that is slow from one that waited for a
    processor, on a machine that does other things too.
    """
    ask()
    # A page of the command line is the only one of its process: no garbage of earlier ones.
    gc.collect()
    gc.freeze()
    backend = Path(f"/proc/{_backend()}/schedstat")
    taken: list[float] = []
    computed: list[float] = []
    begin = time.perf_counter()
    while len(taken) < _LEAST and time.perf_counter() - begin < _LONGEST:
        start, used = time.perf_counter(), _computed(backend)
        ask()
        taken.append((time.perf_counter() - start) * 1000)
        computed.append(_computed(backend) - used)
    return Measured(statistics.median(taken), _late(taken), _late(computed))


def _late(values: list[float]) -> float:
    return sorted(values)[min(len(values) - 1, int(len(values) * 0.99))]


def _backend() -> int:
    """Return the process of the database that answers, the same one as long as one asks."""
    with database.transaction() as connection:
        found: int = connection.execute(text("select pg_backend_pid()")).scalar_one()
        return found


def _computed(backend: Path) -> float:
    # Its first number is nanoseconds on a processor: "Scheduler Statistics" of the kernel.
    return time.process_time() * 1000 + int(backend.read_text().split()[0]) / 1e6


def run() -> str:
    """Measure every question at every size; return the chapter as Markdown."""
    found: dict[str, list[str]] = {name: [] for name in questions()}
    for size in SIZES:
        with filled(size):
            must_find(questions())
            for name, ask in questions().items():
                took = measured(ask)
                found[name].append(f"{took.median:.1f} / {took.late:.1f} / {took.processor:.0f}")
    head = " | ".join(f"{size:,}" for size in SIZES)
    lines = [f"| {name} | {' | '.join(cells)} |" for name, cells in found.items()]
    return "\n".join(
        [
            "## Inventory",
            "",
            f"One page of {PAGE} rows as `certrail endpoint list` reads it, by the number of "
            "endpoints: p50 / p99 in milliseconds, and p99 of the processor time of client and "
            f"database, of {_LEAST} calls (fewer where they take long). Where the second is far "
            f"above the third, the page waited for a processor.",
            "",
            f"| question | {head} |",
            f"| --- |{' --- |' * len(SIZES)}",
            *lines,
            "",
        ]
    )
